"""State as answers: what REST says of a market, and the snapshot a new subscriber gets. Every answer tells its coverage."""

from __future__ import annotations

from typing import Final

import msgspec

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
    quote_message,
    status_message,
    trade_message,
)
from ssmd.identifiers import encode_token
from ssmd.schemas.decimals import render
from ssmd.schemas.records import Gap
from ssmd.transforms.book_at import BookAt


class BookCoverage(msgspec.Struct, frozen=True):
    """What an order book rests on.

    Attributes:
        verified: a whole book came from the venue and nothing since speaks against it; else `reason` says why not
            (archive = see `reasons`).
        gap: the hole to blame, where there is one.
        as_of_stream_seq: everything of the market stream up to it is in the book; 0 for a book of the archive.
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


class OrderBook(msgspec.Struct, frozen=True):
    """`bids` and `asks` best first; `bid_levels` and `ask_levels` are how many there are, shown or not.

    `at_ns`: the instant asked for, the book being read from the archive; 0 = it is the book now. `reasons`: all that speaks
    against a book of the archive.
    """

    feed: str
    ticker: str
    bids: Levels
    asks: Levels
    bid_levels: int
    ask_levels: int
    coverage: BookCoverage
    at_ns: int = 0
    reasons: tuple[str, ...] = ()


class MarketSummary(msgspec.Struct, frozen=True):
    """One line of the list of markets. Best prices come from the book; `verified` is the book's.

    `status`: the last that the market stream told; else listed, closed, determined, settled or delisted, as the venue's
    list has it; "unknown" where neither knows the market's. `title`, `series`, `category`: as listed, "" = not listed.
    """

    ticker: str
    title: str
    series: str
    category: str
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


class Contract(msgspec.Struct, frozen=True):
    """What the venue lists of a market. Times 0 = not told. `stage`: listed, closed, determined, settled or delisted.

    `result`: what was determined, `value`: what one contract paid, decimal text; "" = not yet.
    """

    title: str
    series: str
    category: str
    open_ns: int
    close_ns: int
    expiry_ns: int
    stage: str
    result: str
    value: str


class MarketDetail(msgspec.Struct, frozen=True):
    """One market: what a program needs to know before it asks for more.

    Attributes:
        spread: best ask - best bid. mid: half way between them.
        market_status: as in `MarketSummary`.
        open_ns, close_ns: when trading of the contract begins and ends, by its last status, else as listed; 0 = not told.
        contract: null = the venue's list is not known here, or has no such market.
        records: by kind, since the gateway began to read.
        links: where more of it is.
    """

    feed: str
    ticker: str
    best_bid: tuple[str, str] | None
    best_ask: tuple[str, str] | None
    spread: str | None
    mid: str | None
    market_status: str
    open_ns: int
    close_ns: int
    contract: Contract | None
    last_trade: TradeMessage | None
    quote: QuoteMessage | None
    status: StatusMessage | None
    records: dict[str, int]
    coverage: BookCoverage
    links: dict[str, str]


CATCHING_UP: Final = "catching-up"
"""Why nothing is verified while the gateway has not read all of the stream yet."""


def _doubt(state: MarketState, market: Market) -> tuple[str, Gap | None] | None:
    return market.book_doubt if state.is_current else (CATCHING_UP, None)


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
    bids, asks = state.book_texts.sides(market)
    shown = slice(0, depth or None)
    return OrderBook(
        feed=state.feed,
        ticker=market.ticker,
        bids=bids[shown],
        asks=asks[shown],
        bid_levels=len(bids),
        ask_levels=len(asks),
        coverage=book_coverage(state, market),
    )


def snapshot(state: MarketState, market: Market) -> SnapshotMessage:
    """The book as it is now, for a client that begins with it; only for markets that have one."""
    at, doubt = market.book_at, market.book_doubt
    if at is None:
        raise ValueError(f"{market.ticker} has no book yet")
    bids, asks = state.book_texts.sides(market)
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
        bids=bids,
        asks=asks,
        is_derived=True,
        verified=doubt is None,
        reason=reason,
        gap=None if gap is None else gap_view(gap),
    )


def past_book(feed: str, found: BookAt, depth: int) -> OrderBook:
    """A book of the archive, in the shape of those of now."""
    shown = slice(0, depth or None)
    return OrderBook(
        feed=feed,
        ticker=found.ticker,
        bids=found.bids[shown],
        asks=found.asks[shown],
        bid_levels=len(found.bids),
        ask_levels=len(found.asks),
        coverage=BookCoverage(
            verified=found.verified,
            reason="" if found.verified else "archive",
            gap=None,
            as_of_stream_seq=0,
            book_stream_seq=0,
            ts_event_ns=0,
            ts_recv_ns=found.last_ns,
            session=found.session,
            n=found.n_last,
        ),
        at_ns=found.at_ns,
        reasons=found.reasons,
    )


def status_of(state: MarketState, market: Market) -> str:
    """See `MarketSummary`."""
    told = "" if market.status is None else market.status.status
    return told or state.listings.status_of(market.ticker)


def _contract(state: MarketState, market: Market) -> Contract | None:
    standing = state.listings.find(market.ticker)
    if standing is None:
        return None
    listed = standing.market
    return Contract(
        listed.title,
        listed.series,
        listed.category,
        listed.open_ns,
        listed.close_ns,
        listed.expiry_ns,
        state.listings.status_of(market.ticker),
        standing.result,
        standing.value,
    )


def summary(state: MarketState, market: Market) -> MarketSummary:
    book, quote = market.book, market.quote
    bid, ask = book.best_bid, book.best_ask
    last_price = None
    if market.trades:
        trade = market.trades[-1].record
        last_price = render(trade.price, trade.price_exponent)
    elif quote is not None and quote.last_price is not None:
        last_price = render(quote.last_price, quote.price_exponent)
    listed = state.listings.find(market.ticker)
    return MarketSummary(
        ticker=market.ticker,
        title="" if listed is None else listed.market.title,
        series="" if listed is None else listed.market.series,
        category="" if listed is None else listed.market.category,
        status=status_of(state, market),
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
    contract = _contract(state, market)
    path = f"/v1/markets/{encode_token(market.ticker)}"
    return MarketDetail(
        feed=state.feed,
        ticker=market.ticker,
        best_bid=None if bid is None else (render(bid.price, price), render(bid.size, size)),
        best_ask=None if ask is None else (render(ask.price, price), render(ask.size, size)),
        spread=None if bid is None or ask is None else render(ask.price - bid.price, price),
        mid=None if bid is None or ask is None else render((bid.price + ask.price) * 5, price - 1),
        market_status=status_of(state, market),
        open_ns=(status.open_ns if status is not None else 0) or (contract.open_ns if contract is not None else 0),
        close_ns=(status.close_ns if status is not None else 0) or (contract.close_ns if contract is not None else 0),
        contract=contract,
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
