"""REST calls about the past: trades, candlesticks, settled markets, and the cutoff between live and historical."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ssmd.exchanges.kalshi.simulated import listing_queries as queries
from ssmd.exchanges.kalshi.simulated import rest_objects as objects
from ssmd.exchanges.kalshi.simulated.candles import INTERVALS, Candle, fold
from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS
from ssmd.exchanges.kalshi.simulated.listing_queries import BadParameter
from ssmd.exchanges.kalshi.simulated.market import Market, Trade
from ssmd.exchanges.kalshi.simulated.rest_listed import Answer, Listed, Query, not_found
from ssmd.exchanges.kalshi.simulated.wire import rfc3339

CANDLES_MAX: Final = 10_000
BATCH_MAX: Final = 100
OVERLAP_S: Final = 60
"""So far above the cutoff do the historical calls still answer, as if the move of rows were not a single instant."""
_FILTERS: Final = frozenset({"event_ticker", "tickers", "series_ticker", "mve_filter"})


class History:
    """Answers about the past of `listed`.

    Args:
        live_window_s: what is older than this is historical: the live calls do not have it any more.
    """

    def __init__(self, listed: Listed, *, live_window_s: int, settlement_timer_s: int) -> None:
        self._listed = listed
        self._live_window_s = live_window_s
        self._settlement_timer_s = settlement_timer_s

    @property
    def cutoff_s(self) -> int:
        """Unix seconds: rows from here on are live."""
        return max(self._listed.now_ns // SECOND_NS - self._live_window_s, 0)

    def is_live(self, held: Market) -> bool:
        """Whether the live calls know the market: it is not settled, or was settled at or after the cutoff."""
        return not held.settled_ns or held.settled_ns // SECOND_NS >= self.cutoff_s

    def cutoff(self, _: Query) -> Answer:
        """`/historical/cutoff`."""
        at = rfc3339(self.cutoff_s * SECOND_NS)
        names = ("market_settled_ts", "trades_created_ts", "orders_updated_ts", "market_positions_last_updated_ts")
        return Answer(200, dict.fromkeys(names, at))

    def live_trades(self, query: Query) -> Answer:
        """`/markets/trades`, newest first."""
        return self._trades(query, "GetTrades", self.cutoff_s, 1 << 62)

    def past_trades(self, query: Query) -> Answer:
        """`/historical/trades`, newest first."""
        return self._trades(query, "GetHistoricalTrades", 0, self.cutoff_s + OVERLAP_S)

    def _trades(self, query: Query, call: str, first_s: int, end_s: int) -> Answer:
        wanted = queries.page(query, call, default=100, maximum=1000)
        ticker, block = query.get("ticker", ""), query.get("is_block_trade", "")
        least, most = queries.bounds(query, "")

        def fits(held: Trade) -> bool:
            at_s = held.ts_ns // SECOND_NS
            return (
                (not ticker or held.ticker == ticker)
                and least <= at_s <= most
                and first_s <= at_s < end_s
                and block != "true"  # this venue makes none
            )

        shown, cursor = queries.cut(reversed(self._listed.trades), lambda held: held.trade_id, fits, wanted)
        return Answer(200, {"cursor": cursor, "trades": [objects.trade(held) for held in shown]})

    def past_markets(self, query: Query) -> Answer:
        """`/historical/markets`; its filters exclude each other."""
        wanted = queries.page(query, "GetHistoricalMarkets", default=100, maximum=1000)
        given = _FILTERS & query.keys()
        if len(given) > 1:
            details = f"{', '.join(sorted(given))} exclude each other"
            raise BadParameter({"error": {"code": "bad_request", "message": "bad request", "details": details}})
        tickers = queries.names(query, "tickers")
        event, series = query.get("event_ticker", ""), query.get("series_ticker", "")

        def fits(held: Market) -> bool:
            return (
                bool(held.settled_ns)
                and held.settled_ns // SECOND_NS < self.cutoff_s + OVERLAP_S
                and (tickers is None or held.spec.ticker in tickers)
                and (not event or held.spec.event.ticker == event)
                and (not series or held.spec.event.series == series)
                and queries.takes_combo(query, held.spec.ticker)
            )

        shown, cursor = queries.cut(self._listed.markets.values(), lambda held: held.spec.ticker, fits, wanted)
        return Answer(200, {"cursor": cursor, "markets": [objects.market(held, self._settlement_timer_s) for held in shown]})

    def past_market(self, ticker: str) -> Answer:
        """`/historical/markets/{ticker}`."""
        held = self._listed.markets.get(ticker)
        if held is None or not held.settled_ns or held.settled_ns // SECOND_NS >= self.cutoff_s + OVERLAP_S:
            return not_found("market")
        return Answer(200, {"market": objects.market(held, self._settlement_timer_s)})

    def candles(self, ticker: str, series: str, query: Query) -> Answer:
        """`/series/{series}/markets/{ticker}/candlesticks`."""
        held = self._listed.markets.get(ticker)
        if held is None or held.spec.event.series != series:
            return not_found("market")
        found = _found(held, query)
        return Answer(200, {"ticker": ticker, "candlesticks": [objects.candle(one) for one in found]})

    def past_candles(self, ticker: str, query: Query) -> Answer:
        """`/historical/markets/{ticker}/candlesticks`, with the names of their own that those have."""
        held = self._listed.markets.get(ticker)
        if held is None:
            return not_found("market")
        found = _found(held, query)
        return Answer(200, {"ticker": ticker, "candlesticks": [objects.past_candle(one) for one in found]})

    def many_candles(self, query: Query) -> Answer:
        """`/markets/candlesticks`."""
        tickers = [name for name in query.get("market_tickers", "").split(",") if name]
        if not 1 <= len(tickers) <= BATCH_MAX:
            raise _invalid(f"market_tickers: expected 1 to {BATCH_MAX}")
        rows = []
        total = 0
        for ticker in tickers:
            held = self._listed.markets.get(ticker)
            found = [] if held is None else _found(held, query)
            total += len(found)
            rows.append({"market_ticker": ticker, "candlesticks": [objects.candle(one) for one in found]})
        if total > CANDLES_MAX:
            raise _invalid(f"{total} candlesticks asked for; at most {CANDLES_MAX}")
        return Answer(200, {"markets": rows})


def _found(held: Market, query: Query) -> list[Candle]:
    for name in ("start_ts", "end_ts", "period_interval"):
        if not query.get(name):
            raise _invalid(f"{name} is required")
    start_s, end_s = queries.whole(query["start_ts"], "start_ts"), queries.whole(query["end_ts"], "end_ts")
    minutes = queries.whole(query["period_interval"], "period_interval")
    if minutes not in INTERVALS:
        raise _invalid("period_interval: expected 1, 60 or 1440")
    if end_s < start_s:
        raise _invalid("end_ts is before start_ts")
    if (end_s - start_s) // (60 * minutes) > CANDLES_MAX // 2:
        raise _invalid(f"start_ts to end_ts holds more than {CANDLES_MAX // 2} candlesticks")
    if held.candles is None:
        return []
    found = held.candles.between(start_s, end_s, minutes)
    if query.get("include_latest_before_start") == "true":
        before = held.candles.between(0, start_s - 1, minutes)
        if before:
            last = fold(before[-1:], minutes)[0]
            last.end_s = start_s  # the venue gives it the start as its end, and no trades
            last.price, last.volume, last.paid = None, 0, 0
            found.insert(0, last)
    return found


def _invalid(details: str) -> BadParameter:
    body: Mapping[str, object] = {"code": "invalid_parameters", "message": "invalid parameters", "details": details}
    return BadParameter(dict(body))
