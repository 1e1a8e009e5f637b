"""State as answers: what REST says of a market, and the snapshot a new subscriber gets. Every answer tells its coverage."""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.gateway.candles import MINUTE_NS
from ssmd.gateway.market import Market
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.messages import (
    GapView,
    Levels,
    QuoteMessage,
    SnapshotMessage,
    StatusMessage,
    TradeMessage,
    gap_view,
    levels,
    quote_message,
    status_message,
    trade_message,
)
from ssmd.identifiers import encode_token
from ssmd.schemas.decimals import render
from ssmd.schemas.records import Gap


class BookCoverage(msgspec.Struct, frozen=True):
    """What an order book rests on.

    Attributes:
        verified: a whole book came from the venue and nothing since speaks against it; else `reason` says why not.
        gap: the hole to blame, where there is one.
        as_of_stream_seq: everything of the market stream up to it is in the book.
        book_stream_seq, ts_event_ns, ts_recv_ns, session, n: the last record that touched this book; 0 = none.
    """

    verified: bool
    reason: str
    gap: GapView | None
    as_of_stream_seq: int
    book_stream_seq: int
    ts_event_ns: int
    ts_recv_ns: int
    session: int
    n: int


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


class OrderBook(msgspec.Struct, frozen=True):
    """`bids` and `asks` best first; `bid_levels` and `ask_levels` are how many there are, shown or not."""

    feed: str
    ticker: str
    bids: Levels
    asks: Levels
    bid_levels: int
    ask_levels: int
    coverage: BookCoverage


class MarketSummary(msgspec.Struct, frozen=True):
    """One line of the list of markets. Best prices come from the book; `verified` is the book's."""

    ticker: str
    status: str
    best_bid: str | None
    best_ask: str | None
    last_price: str | None
    verified: bool
    stream_seq: int
    ts_recv_ns: int


class Markets(msgspec.Struct, frozen=True):
    """A page of markets by ticker, ascending. `cursor` null = the last page."""

    feed: str
    markets: tuple[MarketSummary, ...]
    cursor: str | None
    as_of_stream_seq: int


class MarketDetail(msgspec.Struct, frozen=True):
    """One market: what a program needs to know before it asks for more.

    Attributes:
        spread: best ask - best bid. mid: half way between them.
        open_ns, close_ns: when trading of the contract begins and ends, by its last status; 0 = not told.
        records: by kind, since the gateway began to read.
        links: where more of it is.
    """

    feed: str
    ticker: str
    best_bid: tuple[str, str] | None
    best_ask: tuple[str, str] | None
    spread: str | None
    mid: str | None
    open_ns: int
    close_ns: int
    last_trade: TradeMessage | None
    quote: QuoteMessage | None
    status: StatusMessage | None
    records: dict[str, int]
    coverage: BookCoverage
    links: dict[str, str]


class Trades(msgspec.Struct, frozen=True):
    """A page of trades, newest first. `cursor` null = nothing older is held here (see `coverage.is_truncated`)."""

    feed: str
    ticker: str
    trades: tuple[TradeMessage, ...]
    cursor: str | None
    coverage: TradesCoverage


INTERVALS: Final = {"1m": MINUTE_NS, "5m": 5 * MINUTE_NS, "15m": 15 * MINUTE_NS, "1h": 60 * MINUTE_NS}

CATCHING_UP: Final = "catching-up"
"""Why nothing is verified while the gateway has not read all of the stream yet."""


def _doubt(state: MarketState, market: Market) -> tuple[str, Gap | None] | None:
    return market.book_doubt if state.is_current else (CATCHING_UP, None)


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


def book_coverage(state: MarketState, market: Market) -> BookCoverage:
    doubt = _doubt(state, market)
    reason, gap = doubt if doubt is not None else ("", None)
    at = market.book_at
    return BookCoverage(
        verified=doubt is None,
        reason=reason,
        gap=None if gap is None else gap_view(gap),
        as_of_stream_seq=state.stream_seq,
        book_stream_seq=0 if at is None else at.stream_seq,
        ts_event_ns=0 if at is None else at.record.ts_event_ns,
        ts_recv_ns=0 if at is None else at.record.ts_recv_ns,
        session=0 if at is None else at.record.session,
        n=0 if at is None else at.record.n,
    )


def order_book(state: MarketState, market: Market, depth: int) -> OrderBook:
    """The book, at most `depth` levels a side (0 = all)."""
    book = market.book
    bids, asks = book.levels()
    shown = slice(0, depth or None)
    return OrderBook(
        feed=state.feed,
        ticker=market.ticker,
        bids=levels(bids[shown], book.price_exponent, book.size_exponent),
        asks=levels(asks[shown], book.price_exponent, book.size_exponent),
        bid_levels=len(bids),
        ask_levels=len(asks),
        coverage=book_coverage(state, market),
    )


def snapshot(state: MarketState, market: Market) -> SnapshotMessage:
    """The book as it is now, for a client that begins with it; only for markets that have one."""
    book, at, doubt = market.book, market.book_at, market.book_doubt
    if at is None:
        raise ValueError(f"{market.ticker} has no book yet")
    bids, asks = book.levels()
    reason, gap = doubt if doubt is not None else ("", None)
    return SnapshotMessage(
        feed=state.feed,
        ticker=market.ticker,
        stream_seq=state.stream_seq,
        ts_event_ns=at.record.ts_event_ns,
        ts_recv_ns=at.record.ts_recv_ns,
        session=at.record.session,
        n=at.record.n,
        index=at.record.index,
        seq=at.record.seq,
        bids=levels(bids, book.price_exponent, book.size_exponent),
        asks=levels(asks, book.price_exponent, book.size_exponent),
        is_derived=True,
        verified=doubt is None,
        reason=reason,
        gap=None if gap is None else gap_view(gap),
    )


def summary(state: MarketState, market: Market) -> MarketSummary:
    book, status, quote = market.book, market.status, market.quote
    bid, ask = book.best_bid, book.best_ask
    last_price = None
    if market.trades:
        trade = market.trades[-1].record
        last_price = render(trade.price, trade.price_exponent)
    elif quote is not None and quote.last_price is not None:
        last_price = render(quote.last_price, quote.price_exponent)
    return MarketSummary(
        ticker=market.ticker,
        status="" if status is None else status.status,
        best_bid=None if bid is None else render(bid.price, book.price_exponent),
        best_ask=None if ask is None else render(ask.price, book.price_exponent),
        last_price=last_price,
        verified=_doubt(state, market) is None,
        stream_seq=market.last_stream_seq,
        ts_recv_ns=0 if market.last is None else market.last.ts_recv_ns,
    )


def detail(state: MarketState, market: Market) -> MarketDetail:
    book, quote, status = market.book, market.quote, market.status
    bid, ask = book.best_bid, book.best_ask
    price, size = book.price_exponent, book.size_exponent
    last = market.trades[-1] if market.trades else None
    path = f"/v1/markets/{encode_token(market.ticker)}"
    return MarketDetail(
        feed=state.feed,
        ticker=market.ticker,
        best_bid=None if bid is None else (render(bid.price, price), render(bid.size, size)),
        best_ask=None if ask is None else (render(ask.price, price), render(ask.size, size)),
        spread=None if bid is None or ask is None else render(ask.price - bid.price, price),
        mid=None if bid is None or ask is None else render((bid.price + ask.price) * 5, price - 1),
        open_ns=0 if status is None else status.open_ns,
        close_ns=0 if status is None else status.close_ns,
        last_trade=None if last is None else trade_message(last.record, last.stream_seq),
        quote=None if quote is None else quote_message(quote, market.quote_seq),
        status=None if status is None else status_message(status, market.status_seq),
        records=dict(market.counts),
        coverage=book_coverage(state, market),
        links={
            "self": path,
            "trades": f"{path}/trades",
            "orderbook": f"{path}/orderbook",
            "candles": f"{path}/candles",
            "gaps": f"/v1/gaps?ticker={encode_token(market.ticker)}",
            "stream": "/v1/stream",
        },
    )


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
