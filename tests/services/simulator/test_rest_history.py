"""The past over REST: live and historical sides, candles, filters by time, the rate limit and the edge cache."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ssmd.clock import SystemClock
from ssmd.exchanges.kalshi import signing

PAST = {"markets": 4, "rate": 20, "roll_s": 60, "history_s": 900, "live_window_s": 300, "seed": 6}


async def walk(running: Any, path: str, rows: str, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        status, page = await running.get(path, cursor=cursor, **query)
        assert status == 200, page
        found += page[rows]
        cursor = page["cursor"]
        if not cursor:
            return found


async def test_live_and_historical_trades_together_are_all_of_them(run_simulator: Any) -> None:
    async with run_simulator(start_paused=True, **PAST) as running:
        _, cutoff = await running.get("/historical/cutoff")
        assert cutoff["trades_created_ts"] == "2026-11-22T15:54:59Z"
        live = await walk(running, "/markets/trades", "trades", limit="100")
        past = await walk(running, "/historical/trades", "trades", limit="100")
        assert {trade["trade_id"] for trade in live} & {trade["trade_id"] for trade in past}  # they overlap at the cutoff
        assert min(trade["created_time"] for trade in live) >= "2026-11-22T15:54:59"
        assert max(trade["created_time"] for trade in past) < "2026-11-22T15:56"
        everything = {trade["trade_id"]: trade for trade in (*live, *past)}
        model = running.simulator._feed.model
        assert set(everything) == {trade.trade_id for trade in model.trades}
        assert len(everything) > 1_000
        ticker = live[0]["ticker"]
        of_one = await walk(running, "/historical/trades", "trades", ticker=ticker, limit="1000")
        assert of_one == [trade for trade in past if trade["ticker"] == ticker]
        assert await walk(running, "/markets/trades", "trades", is_block_trade="true") == []


async def test_settled_markets_move_to_the_historical_side(run_simulator: Any) -> None:
    async with run_simulator(start_paused=True, **PAST) as running:
        settled = await walk(running, "/markets", "markets", status="settled", limit="3")
        past = await walk(running, "/historical/markets", "markets", limit="3")
        assert settled
        assert past
        cutoff = (await running.get("/historical/cutoff"))[1]["market_settled_ts"]
        assert min(market["settlement_ts"] for market in settled) >= cutoff
        old = min(past, key=lambda market: market["settlement_ts"])
        assert (await running.get(f"/markets/{old['ticker']}"))[0] == 404
        assert await running.get(f"/historical/markets/{old['ticker']}") == (200, {"market": old})
        assert (await running.get("/historical/markets", tickers="A", event_ticker="B"))[0] == 400
        times = sorted(market["settlement_ts"] for market in settled)
        since = (await running.get("/markets", min_settled_ts="1795363100"))[1]["markets"]
        assert sorted(market["settlement_ts"] for market in since) == [at for at in times if at >= "2026-11-22T15:58:20Z"]


@pytest.mark.parametrize(
    ("query", "allowed"),
    [
        ({"min_updated_ts": "1795363190"}, True),
        ({"min_updated_ts": "1", "mve_filter": "exclude", "series_ticker": "KXBTCD"}, True),
        ({"min_updated_ts": "1", "status": "open"}, False),
        ({"min_created_ts": "1", "status": "open"}, True),
        ({"min_created_ts": "1", "status": "settled"}, False),
        ({"min_close_ts": "1", "max_settled_ts": "2"}, False),
        ({"max_settled_ts": "2", "status": "settled"}, True),
    ],
)
async def test_time_filters_pair_as_the_venue_says(run_simulator: Any, query: dict[str, str], allowed: bool) -> None:
    async with run_simulator(markets=4) as running:
        status, body = await running.get("/markets", **query)
        assert status == (200 if allowed else 400)
        assert allowed or body["error"]["code"] == "bad_request"


async def test_only_changed_markets_are_given_since_a_time(run_simulator: Any) -> None:
    async with run_simulator(markets=12, rate=1, roll_s=100_000, seed=3, start_paused=True) as running:
        assert (await running.get("/markets", min_updated_ts="1795363201"))[1]["markets"] == []
        await running.control("/orders", {"kind": "list", "count": 2})
        status = await running.control("/status")
        assert status["feed"]["markets"] == 14
        model = running.simulator._feed.model
        since = model.now_ns // 1_000_000_000
        found = await walk(running, "/markets", "markets", min_updated_ts=str(since))
        assert {"KXFED-NEW00000-T3.00", "KXFED-NEW00000-T3.25"} <= {market["ticker"] for market in found}


async def test_candles_are_the_trades_of_their_minutes(run_simulator: Any) -> None:
    async with run_simulator(start_paused=True, **PAST) as running:
        ticker = next(iter(running.simulator._feed.model.markets))
        series = ticker.split("-", maxsplit=1)[0]
        span = {"start_ts": "1795362600", "end_ts": "1795363140"}
        path = f"/series/{series}/markets/{ticker}/candlesticks"
        status, body = await running.get(path, period_interval="1", **span)
        assert status == 200
        trades = [trade for trade in running.simulator._feed.model.trades if trade.ticker == ticker]
        assert len(body["candlesticks"]) == 10
        for candle in body["candlesticks"]:
            end_s = candle["end_period_ts"]
            within = [trade for trade in trades if end_s - 60 <= trade.ts_ns // 1_000_000_000 < end_s]
            assert candle["volume_fp"] == f"{sum(trade.size for trade in within) / 100:.2f}"
            assert candle["price"]["close_dollars"] == f"{within[-1].yes_price / 10_000:.4f}"
            assert candle["yes_bid"]["low_dollars"] <= candle["yes_bid"]["high_dollars"] < candle["yes_ask"]["high_dollars"]
        _, past = await running.get(f"/historical/markets/{ticker}/candlesticks", period_interval="1", **span)
        assert [candle["volume"] for candle in past["candlesticks"]] == [candle["volume_fp"] for candle in body["candlesticks"]]
        assert past["candlesticks"][0]["yes_bid"]["close"] == body["candlesticks"][0]["yes_bid"]["close_dollars"]
        _, many = await running.get("/markets/candlesticks", market_tickers=f"{ticker},KXNO", period_interval="60", **span)
        assert [row["market_ticker"] for row in many["markets"]] == [ticker, "KXNO"]
        assert (await running.get(path, period_interval="5", **span))[0] == 400
        assert (await running.get(path, period_interval="1", start_ts="1"))[0] == 400
        assert (await running.get(f"/series/KXNO/markets/{ticker}/candlesticks", period_interval="1", **span))[0] == 404


async def test_rest_knows_a_new_market_only_after_a_while(run_simulator: Any) -> None:
    async with run_simulator(markets=4, lag_s=5, start_paused=True) as running:
        await running.control("/orders", {"kind": "list"})
        assert (await running.get("/markets/KXFED-NEW00000-T3.00"))[0] == 404
        assert "KXFED-NEW00000-T3.00" not in [row["ticker"] for row in (await running.get("/markets"))[1]["markets"]]


async def test_each_key_has_a_bucket_of_its_own(run_simulator: Any, keys: Any) -> None:
    pems = {name: signing.public_pem(key).decode() for name, key in keys.items()}
    async with run_simulator(require_auth=True, public_keys=pems, rest_tokens_s=20, markets=2) as running:

        async def limits(name: str) -> tuple[int, bytes]:
            path = "/trade-api/v2/account/limits"
            headers = signing.headers(name, keys[name], SystemClock().now_ns() // 1_000_000, "GET", path)
            answer = await running.http.get(running.simulator.rest_url + "/account/limits", headers=headers)
            return answer.status_code, answer.content

        answers = [await limits("key-rsa") for _ in range(6)]
        assert answers[0][0] == 200
        assert msgspec.json.decode(answers[0][1])["read"] == {"bucket_capacity": 40, "refill_rate": 20}
        assert (429, b'{"error":"too many requests"}') in answers
        assert (await limits("key-ed"))[0] == 200
        assert (await running.get("/account/limits"))[0] == 401
        assert (await running.get("/account/endpoint_costs"))[1]["default_cost"] == 10


async def test_the_edge_gives_unsigned_callers_what_it_has(run_simulator: Any) -> None:
    async with run_simulator(markets=3, edge_cache_s=15, start_paused=True) as running:
        url = running.simulator.rest_url + "/markets"
        first = await running.http.get(url)
        assert (first.headers["cache-control"], first.headers["age"]) == ("public, max-age=15", "0")
        await running.control("/orders", {"kind": "list"})
        assert (await running.http.get(url)).content == first.content
        other = await running.http.get(url, params={"limit": "1000"})
        assert len(other.json()["markets"]) == 4
