"""Trades and candles as answers. Every answer tells its coverage."""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.gateway.candles import MINUTE_NS
from ssmd.gateway.market import Market
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.messages import GapView, TradeMessage, gap_view, trade_message
from ssmd.schemas.decimals import render

INTERVALS: Final = {"1m": MINUTE_NS, "5m": 5 * MINUTE_NS, "15m": 15 * MINUTE_NS, "1h": 60 * MINUTE_NS}


class TradesCoverage(msgspec.Struct, frozen=True):
    """What a list of trades rests on.

    Attributes:
        verified: no hole is known in the time the trades held span, or open now.
        gaps: the known holes, oldest first; the last one may be open.
        is_truncated: older trades of this market have been dropped here; the archive holds them.
    """

    verified: bool
    gaps: tuple[GapView, ...]
    is_truncated: bool
    as_of_stream_seq: int


class Trades(msgspec.Struct, frozen=True):
    """A page of trades, newest first. `cursor` null = nothing older is held here (see `coverage.is_truncated`)."""

    feed: str
    ticker: str
    trades: tuple[TradeMessage, ...]
    cursor: str | None
    coverage: TradesCoverage


class CandleView(msgspec.Struct, frozen=True):
    """Trades from `start_ns` (inclusive) to the next candle's start; a stretch without trades has no candle."""

    start_ns: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    trades: int


class Candles(msgspec.Struct, frozen=True):
    """A page of candles, newest first; the newest may still grow. `cursor` null = nothing older is held here."""

    feed: str
    ticker: str
    interval: str
    candles: tuple[CandleView, ...]
    cursor: str | None
    coverage: TradesCoverage


def trades(state: MarketState, market: Market, *, limit: int, before: int) -> Trades:
    """At most `limit` trades, newest first, of those with an ordinal below `before` (0 = from the newest on)."""
    held = market.trades
    oldest = held[0].ordinal if held else market.trades_count + 1
    end = min(before - 1, market.trades_count) if before else market.trades_count
    begin = max(oldest, end - limit + 1)
    chosen = [held[ordinal - oldest] for ordinal in range(end, begin - 1, -1)]
    return Trades(
        feed=state.feed,
        ticker=market.ticker,
        trades=tuple(trade_message(one.record, one.stream_seq) for one in chosen),
        cursor=str(begin) if chosen and begin > oldest else None,
        coverage=trades_coverage(
            state,
            market,
            market.trades[0].record.ts_recv_ns if market.trades else 0,
            is_truncated=market.trades_count > len(market.trades),
        ),
    )


def candles(state: MarketState, market: Market, interval: str, *, limit: int, before_ns: int) -> Candles:
    """At most `limit` candles of `INTERVALS[interval]`, newest first, that begin before `before_ns` (0 = no bound)."""
    ring = market.candles
    price, size = ring.price_exponent, ring.size_exponent
    found = [one for one in ring.by(INTERVALS[interval]) if not before_ns or one.start_ns < before_ns][::-1]
    shown = found[:limit]
    return Candles(
        feed=state.feed,
        ticker=market.ticker,
        interval=interval,
        candles=tuple(
            CandleView(
                start_ns=one.start_ns,
                open=render(one.open, price),
                high=render(one.high, price),
                low=render(one.low, price),
                close=render(one.close, price),
                volume=render(one.volume, size),
                trades=one.trades,
            )
            for one in shown
        ),
        cursor=str(shown[-1].start_ns) if len(found) > len(shown) else None,
        coverage=trades_coverage(state, market, shown[-1].start_ns if shown else 0, is_truncated=ring.dropped_ns > 0),
    )


def trades_coverage(state: MarketState, market: Market, since_ns: int, *, is_truncated: bool) -> TradesCoverage:
    """What is known of the trades of one market since `since_ns` (receive time)."""
    closed = [gap for gap in (*market.gaps_closed, *state.whole_gaps_closed) if gap.end_ns >= since_ns]
    known = [*closed, *market.gaps_open.values(), *state.whole_gaps_open.values()]
    # A gap of the whole connection is held by each market and by the feed: told once.
    # Before any gap was forgotten this is -1: nothing is older than that.
    forgotten_ns = max(market.gaps_forgotten_ns, state.whole_gaps_forgotten_ns) or -1
    gaps = {(gap.gap_id, gap.channel): gap for gap in sorted(known, key=lambda gap: (gap.start_ns, gap.gap_id))}
    return TradesCoverage(
        verified=not gaps and state.is_current and since_ns > forgotten_ns,
        gaps=tuple(gap_view(gap) for gap in gaps.values()),
        is_truncated=is_truncated,
        as_of_stream_seq=state.stream_seq,
    )
