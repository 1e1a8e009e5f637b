"""Clients nobody here wrote read the simulated venue: kalshi_python_async 3.2.0 and pykalshi 2.0.0 from PyPI.

kalshi_python_async is generated from the venue's OpenAPI 3.2.0 of December 2025, before cents and counts as integers left
the wire. What its models still demand and the venue sends no more is named below, field by field; all the rest is read.
pykalshi 2.0.0 reads today's wire; what it leaves unread is named where it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pykalshi
import pytest
from cryptography.hazmat.primitives import serialization
from kalshi_python_async import KalshiClient
from kalshi_python_async.configuration import Configuration
from kalshi_python_async.models.get_market_orderbook_response import GetMarketOrderbookResponse
from kalshi_python_async.models.market import Market
from kalshi_python_async.models.trade import Trade
from pydantic import ValidationError
from pykalshi import feed as pykalshi_feed
from pykalshi.enums import CandlestickPeriod

from ssmd.exchanges.kalshi import signing
from ssmd.exchanges.kalshi.combos import is_combo
from ssmd.exchanges.kalshi.simulated.combos import COLLECTION, SERIES

CENTS = {"yes_bid", "yes_ask", "no_bid", "no_ask", "last_price", "previous_yes_bid", "previous_yes_ask", "previous_price"}
GONE_OF_A_MARKET = CENTS | {
    "volume", "volume_24h", "open_interest", "notional_value", "liquidity", "liquidity_dollars",
    "subtitle", "category", "risk_limit_cents", "tick_size", "response_price_units",
}  # fmt: skip
GONE_OF_A_TRADE = {"price", "count", "yes_price", "no_price"}
VENUE = {
    "markets": 8,
    "rate": 100,
    "roll_s": 60,
    "history_s": 300,
    "live_window_s": 120,
    "rest_tokens_s": 0,
    "seed": 6,
    "combos": 2,
}


def demanded(error: ValidationError) -> set[str]:
    return {str(found["loc"][0]) for found in error.errors()}


@pytest.fixture
async def running(run_simulator: Any, keys: Any) -> AsyncIterator[Any]:
    pem = signing.public_pem(keys["key-rsa"]).decode()
    async with run_simulator(public_keys={"key-rsa": pem}, require_auth=True, **VENUE) as running:
        yield running


@pytest.fixture
def private_pem(keys: Any) -> bytes:
    pem: bytes = keys["key-rsa"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


async def refusal(call: Callable[..., Awaitable[Any]], **arguments: Any) -> set[str]:
    """Fields the client's model demands and did not get."""
    with pytest.raises(ValidationError) as caught:
        await call(**arguments)
    return demanded(caught.value)


async def test_the_venues_own_client_of_2025_reads_what_is_still_so(running: Any, private_pem: bytes) -> None:
    configuration = Configuration(host=running.simulator.rest_url)
    configuration.api_key_id = "key-rsa"
    configuration.private_key_pem = private_pem.decode()
    client: Any = KalshiClient(configuration)  # type: ignore[no-untyped-call]
    model = running.simulator._feed.model
    ticker = next(iter(model.markets))
    event = model.markets[ticker].spec.event
    now_s = model.now_ns // 1_000_000_000
    try:
        status = await client.get_exchange_status()
        assert (status.exchange_active, status.trading_active) == (True, True)
        schedule = (await client.get_exchange_schedule()).schedule
        assert [(hours.open_time, hours.close_time) for hours in schedule.standard_hours[0].thursday] == [
            ("00:00", "03:00"),
            ("05:00", "00:00"),
        ]
        events = (await client.get_events(limit=100)).events
        assert [found.event_ticker for found in events] == [name for name in model.events if not is_combo(name)]
        combos = (await client.get_multivariate_events()).events
        assert [found.event_ticker for found in combos] == [name for name in model.events if is_combo(name)]
        assert {(found.series_ticker, found.title, found.sub_title) for found in combos} == {(SERIES, "Combo", "MVE")}
        series = (await client.get_series(series_ticker="KXBTCD")).series
        assert (series.ticker, series.category, series.tags) == ("KXBTCD", "Crypto", ["Crypto"])
        assert await refusal(client.get_series, series_ticker="KXBTC15M") == {
            "tags", "settlement_sources", "additional_prohibitions",
        }  # fmt: skip  # null at times, by the venue's spec
        assert await refusal(client.get_market, ticker=ticker) == GONE_OF_A_MARKET
        assert await refusal(client.get_markets, limit=5) == GONE_OF_A_MARKET
        assert await refusal(client.get_event, event_ticker=event.ticker) == GONE_OF_A_MARKET
        assert await refusal(client.get_trades, limit=5) == GONE_OF_A_TRADE
        assert await refusal(client.get_market_orderbook, ticker=ticker) == {"orderbook"}  # orderbook_fp now
        candles = {"start_ts": now_s - 300, "end_ts": now_s, "period_interval": 1}
        spread = await refusal(client.get_market_candlesticks, series_ticker=event.series, ticker=ticker, **candles)
        assert spread == {"open", "low", "high", "close"}  # cents; *_dollars beside them are sent
    finally:
        await client.close()


async def test_with_what_is_gone_filled_in_the_old_models_take_every_other_field(running: Any) -> None:
    _, body = await running.get("/markets", limit="1")
    zeros = dict.fromkeys(CENTS | {"volume", "volume_24h", "open_interest", "notional_value", "liquidity"}, 0)
    texts = {"liquidity_dollars": "0.0000", "subtitle": "", "category": "", "response_price_units": "usd_cent"}
    gone = {**zeros, **texts, "risk_limit_cents": 0, "tick_size": 1}
    market = Market.from_dict({**body["markets"][0], **gone})
    assert market is not None
    _, combos = await running.get("/markets", mve_filter="only")
    combo = Market.from_dict({**combos["markets"][0], **gone})
    assert combo is not None
    assert combo.mve_collection_ticker == COLLECTION
    assert [leg.market_ticker for leg in combo.mve_selected_legs or ()] == [
        leg["market_ticker"] for leg in combos["markets"][0]["mve_selected_legs"]
    ]
    assert (market.ticker, market.yes_bid_dollars) == (body["markets"][0]["ticker"], body["markets"][0]["yes_bid_dollars"])
    assert [(found.start, found.step) for found in market.price_ranges] == [("0.0000", "0.0010")]
    _, trades = await running.get("/markets/trades", limit="1")
    trade = Trade.from_dict({**trades["trades"][0], **dict.fromkeys(GONE_OF_A_TRADE, 1)})
    assert trade is not None
    assert (trade.trade_id, trade.taker_side) == (trades["trades"][0]["trade_id"], trades["trades"][0]["taker_side"])
    _, book = await running.get(f"/markets/{market.ticker}/orderbook")
    legacy: dict[str, list[Any]] = {"yes": [], "no": [], "yes_dollars": [], "no_dollars": []}
    assert GetMarketOrderbookResponse.from_dict({**book, "orderbook": legacy}) is not None


async def test_pykalshi_reads_every_public_call(running: Any, private_pem: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem)
    base = running.simulator.rest_url
    async with pykalshi.AsyncKalshiClient(api_key_id="key-rsa", private_key_path=str(path), api_base=base) as client:
        await running.control("/pause")
        model = running.simulator._feed.model
        now_s = model.now_ns // 1_000_000_000
        assert (await client.exchange.get_status()).trading_active is True
        assert (await client.exchange.get_schedule())["maintenance_windows"] == []
        markets = await client.get_markets(limit=5, fetch_all=True)
        live = running.simulator._rest._calls._history.is_live
        assert {market.ticker for market in markets} == {name for name, held in model.markets.items() if live(held)}
        market = await client.get_market(next(iter(model.markets)))
        held = model.markets[market.ticker]
        assert market.yes_bid_dollars == f"{held.best_yes / 10_000:.4f}"
        book = (await market.get_orderbook()).orderbook
        assert [size for _, size in book.yes_dollars or []] == [f"{held.yes[level] / 100:.2f}" for level in sorted(held.yes)]
        (combo, *_) = [found for found in markets if is_combo(found.ticker)]
        legs = model.markets[combo.ticker].spec.combo.legs
        assert combo.data.mve_collection_ticker == COLLECTION
        assert [(leg.event_ticker, leg.market_ticker, leg.side) for leg in combo.data.mve_selected_legs] == [*legs]
        trades = await client.get_trades(limit=50)
        assert [trade.trade_id for trade in trades] == [trade.trade_id for trade in [*model.trades][-50:][::-1]]
        candles = (await market.get_candlesticks(now_s - 300, now_s, CandlestickPeriod.ONE_MINUTE)).candlesticks
        assert len(candles) == 5
        assert all(candle.volume_fp for candle in candles)
        names = [found.event_ticker for found in await client.get_events(limit=200)]
        assert names == [name for name in model.events if not is_combo(name)]
        assert (await client.get_series("KXFED")).ticker == "KXFED"
        assert {found.ticker for found in await client.get_all_series()} >= {"KXBTC15M", "KXBTCD"}
        assert (await client.history.get_cutoff()).trades_created_ts.endswith("Z")
        settled = await client.history.get_markets(limit=2)
        assert (await client.history.get_market(settled[0].ticker)).status == "finalized"
        past = await client.history.get_trades(ticker=market.ticker, limit=10)
        assert {trade.ticker for trade in past} == {market.ticker}
        one_minute = CandlestickPeriod.ONE_MINUTE
        spans = await client.history.get_candlesticks(settled[0].ticker, start_ts=now_s - 300, end_ts=now_s, period=one_minute)
        assert spans[0].yes_bid is not None
        limits = await client.api_keys.get_limits()
        # Unread: `read` and `write` buckets (it looks for read_limit and write_limit), `grants`.
        assert (limits.usage_tier, limits.read_limit) == ("basic", None)
        with pytest.raises(pykalshi.ResourceNotFoundError):
            await client.get_market("KXNO")


async def test_pykalshis_feed_reads_every_public_channel(
    running: Any, private_pem: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem)
    base = running.simulator.rest_url
    wanted = {
        pykalshi_feed.OrderbookSnapshotMessage,
        pykalshi_feed.OrderbookDeltaMessage,
        pykalshi_feed.TickerMessage,
        pykalshi_feed.TradeMessage,
        pykalshi_feed.MarketLifecycleMessage,
    }
    seen: set[type] = set()
    unread: set[str] = set()
    async with pykalshi.AsyncKalshiClient(api_key_id="key-rsa", private_key_path=str(path), api_base=base) as client:
        ticker = next(iter(running.simulator._feed.model.markets))
        feed = client.feed()
        feed._ws_url = running.simulator.websocket_url  # it knows two addresses, and no setting for a third
        book = pykalshi.OrderbookManager(ticker)
        feed.subscribe("orderbook_delta", market_tickers=[ticker])
        feed.subscribe("ticker", market_ticker=ticker)
        feed.subscribe("trade")
        feed.subscribe("market_lifecycle_v2")
        feed.subscribe("multivariate_market_lifecycle")
        deltas = 0
        stops: dict[str, Any] = {}
        async with asyncio.timeout(60), feed:
            await running.control("/orders", [{"kind": "rename"}, {"kind": "combo"}])
            async for message in feed:
                seen.add(type(message))
                unread |= {message.get("event_type", "event")} if isinstance(message, dict) else set()
                if isinstance(message, pykalshi_feed.OrderbookSnapshotMessage):
                    book.apply_snapshot(message.yes_dollars_fp, message.no_dollars_fp)
                elif isinstance(message, pykalshi_feed.OrderbookDeltaMessage):
                    book.apply_delta(message.side, message.price_dollars, message.delta_fp)
                    deltas += 1
                if seen >= wanted and deltas > 50 and "activated" in unread and not stops:
                    await running.control("/pause")
                    stops = (await running.get(f"/markets/{ticker}"))[1]["market"]
                if stops and (book.best_bid, book.best_ask) == (stops["yes_bid_dollars"], stops["yes_ask_dollars"]):
                    break  # what was under way has arrived, and the books agree
                if not seen >= wanted and deltas % 20 == 1:
                    await running.control("/orders", {"kind": "rename"})
    assert seen == wanted | ({dict} & seen)
    # No models for event_lifecycle and multivariate_market_lifecycle: what those say is given as it came.
    assert {"event", "created", "activated"} <= unread
    assert not [record for record in caplog.records if "Failed to validate" in record.message]
