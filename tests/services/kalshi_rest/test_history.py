"""Trades across the cutoff: all of them, each once, even while the cutoff moves."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from ssmd.exchanges.kalshi.rest_history import CandleSpan
from ssmd.services.kalshi_rest.client import KalshiRest, RestAnswer
from ssmd.services.kalshi_rest.history import VenueHistory

SECOND_NS = 1_000_000_000
PAST = {"markets": 4, "rate": 20, "roll_s": 60, "history_s": 900, "live_window_s": 300, "seed": 6, "rest_tokens_s": 50_000}


def truth(model: Any, start_ns: int, end_ns: int, ticker: str = "") -> list[str]:
    held = [trade for trade in model.trades if start_ns <= trade.ts_ns < end_ns and ticker in {"", trade.ticker}]
    return [trade.trade_id for trade in sorted(held, key=lambda trade: (trade.ts_ns, trade.trade_id))]


@pytest.mark.parametrize(("from_s", "to_s"), [(900, 0), (900, 600), (250, 10), (400, 200), (301, 299), (10, 9)], ids=str)
async def test_trades_are_complete_on_both_sides_of_the_cutoff(run_venue: Any, from_s: int, to_s: int) -> None:
    async with run_venue(**PAST) as venue:
        now_ns = venue.model.now_ns + 1
        start_ns, end_ns = now_ns - from_s * SECOND_NS, now_ns - to_s * SECOND_NS
        found = await VenueHistory(venue.client).trades(start_ns, end_ns)
        assert [trade.trade_id for trade in found] == truth(venue.model, start_ns, end_ns)
        ticker = next(iter(venue.model.markets))
        of_one = await VenueHistory(venue.client).trades(start_ns, end_ns, ticker)
        assert [trade.trade_id for trade in of_one] == truth(venue.model, start_ns, end_ns, ticker)
        assert all(msgspec.json.decode(trade.row)["trade_id"] == trade.trade_id for trade in found)


async def test_a_cutoff_that_moves_while_one_reads_hides_nothing(run_venue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_venue(**PAST) as venue:
        model = venue.model
        now_ns = model.now_ns + 1
        expected = truth(model, 0, now_ns)
        history = venue.simulator._rest._calls._history
        kind = type(history)
        calls = 0

        def moving(_: Any) -> int:
            nonlocal calls
            calls += 1
            return int(now_ns // SECOND_NS - 300 + 20 * calls)  # rows move over to the historical side all the time

        monkeypatch.setattr(kind, "cutoff_s", property(moving))
        found = await VenueHistory(venue.client).trades(0, now_ns)
        assert calls > 4
        assert [trade.trade_id for trade in found] == expected


async def test_settled_markets_come_from_both_sides(run_venue: Any) -> None:
    async with run_venue(**PAST) as venue:
        model = venue.model
        found: set[str] = set()
        async for rows in VenueHistory(venue.client).settled_markets(0, model.now_ns):
            found |= {msgspec.json.decode(row)["ticker"] for row in rows}
        assert found == {ticker for ticker, market in model.markets.items() if market.settled_ns}


async def test_candles_of_a_market_that_is_historical_already(run_venue: Any) -> None:
    async with run_venue(**PAST) as venue:
        model = venue.model
        settled = next(market for market in model.markets.values() if market.settled_ns)
        span = CandleSpan(settled.spec.open_ns // SECOND_NS, settled.spec.close_ns // SECOND_NS + 60, 1)
        rows = await VenueHistory(venue.client).candles(settled.spec.event.series, settled.spec.ticker, span)
        assert [msgspec.json.decode(row)["end_period_ts"] for row in rows]
        assert await VenueHistory(venue.client).candles("KXNO", "KXNO-1", span) == ()


async def test_whatever_a_ticker_holds_it_is_one_part_of_a_path() -> None:
    asked: list[str] = []

    class Venue:
        async def get(self, path: str, _params: object) -> RestAnswer:
            asked.append(path)
            return RestAnswer(b'{"candlesticks":[]}', 0)

    history = VenueHistory(cast("KalshiRest", Venue()))
    assert await history.candles("KX?", "../portfolio/orders#", CandleSpan(0, 60, 1)) == []
    assert asked == ["/series/KX%3F/markets/..%2Fportfolio%2Forders%23/candlesticks"]
