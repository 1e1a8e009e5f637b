"""What a gateway keeps between two runs: each market's derived state, and where in the stream reading goes on. Pure.

A checkpoint is fuzzy on purpose: the position is taken first, the markets one after the other while the stream goes on,
each with the sequence up to which it holds everything (`as_of`). Reading on begins at the position, and what a market
holds already is not applied to it again. So saving never stops the stream, however many markets there are.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeVar

import msgspec

from ssmd.gateway.assembly import GiveUp, Position
from ssmd.gateway.candles import CandleRing
from ssmd.gateway.market import BookPlace, HeldTrade, Market
from ssmd.gateway.market_state import MarketState
from ssmd.schemas.records import BookSnapshot, Gap, MarketStatus, Quote, Record

FORMAT: Final = 2
"""A checkpoint of another format is not read: the stream is, from its start."""
TRADES_KEPT: Final = 50


class Head(msgspec.Struct, frozen=True):
    """Everything but the markets.

    Attributes:
        position: of the assembler, before the first market was saved.
        stream_seq: everything released up to it was in the state then.
        end_seq, end_id: the last stream message read when the last market had been saved, and its id: the stream must
            still have it, else the markets are of another one.
    """

    format: int
    feed: str
    incarnation: str
    position: Position
    stream_seq: int
    end_seq: int
    end_id: str
    points: list[Position]
    give_ups: list[GiveUp]
    whole_gaps_open: list[Gap]
    whole_gaps_closed: list[Gap]
    whole_gaps_forgotten_ns: int
    records: int


class SavedMarket(msgspec.Struct, frozen=True):
    """One market. `levels`: all of the book's, as (bids, asks) of (price, size), also negative ones."""

    ticker: str
    as_of: int
    connection: str
    price_exponent: int
    size_exponent: int
    levels: tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]
    book_at: BookPlace | None
    book_doubts: dict[str, Gap | None]
    quote: Quote | None
    quote_seq: int
    status: MarketStatus | None
    status_seq: int
    trades: tuple[HeldTrade, ...]
    trades_count: int
    candles: CandleRing
    gaps_open: dict[str, Gap]
    gaps_closed: tuple[Gap, ...]
    gaps_forgotten_ns: int
    counts: dict[str, int]
    last: Record | None
    last_stream_seq: int


_ENCODER: Final = msgspec.msgpack.Encoder()
_MARKETS: Final = msgspec.msgpack.Decoder(SavedMarket)
_HEADS: Final = msgspec.msgpack.Decoder(Head)


def encode_head(head: Head) -> bytes:
    return _ENCODER.encode(head)


def decode_head(body: bytes) -> Head | None:
    """The head; None when another version of ssmd wrote it, or it is damaged."""
    try:
        head = _HEADS.decode(body)
    except msgspec.DecodeError:
        return None
    return head if head.format == FORMAT else None


def encode_market(market: Market, as_of: int) -> bytes:
    """The market, which holds everything up to `as_of`."""
    book, place, last = market.book, market.book_at, market.last
    trades: deque[HeldTrade] = market.trades
    return _ENCODER.encode(
        SavedMarket(
            ticker=market.ticker,
            as_of=as_of,
            connection=market.connection,
            price_exponent=book.price_exponent,
            size_exponent=book.size_exponent,
            levels=book.levels_kept(),
            book_at=None if place is None else BookPlace(place.stream_seq, _without_levels(place.record)),
            book_doubts=market.book_doubts,
            quote=market.quote,
            quote_seq=market.quote_seq,
            status=market.status,
            status_seq=market.status_seq,
            trades=tuple(trades[at] for at in range(max(0, len(trades) - TRADES_KEPT), len(trades))),
            trades_count=market.trades_count,
            candles=market.candles,
            gaps_open=market.gaps_open,
            gaps_closed=tuple(market.gaps_closed),
            gaps_forgotten_ns=market.gaps_forgotten_ns,
            counts=market.counts,
            last=None if last is None else _without_levels(last),
            last_stream_seq=market.last_stream_seq,
        )
    )


def decode_market(body: bytes, trades_max: int) -> Market:
    """The market as it was.

    Raises:
        msgspec.DecodeError: the bytes are none of `encode_market`.
    """
    saved = _MARKETS.decode(body)
    market = Market(saved.ticker, trades_max)
    if saved.book_at is not None:
        bids, asks = saved.levels
        head = saved.book_at.record
        market.book.apply(
            BookSnapshot(
                feed=head.feed,
                ticker=saved.ticker,
                ts_event_ns=head.ts_event_ns,
                ts_recv_ns=head.ts_recv_ns,
                session=head.session,
                n=head.n,
                index=head.index,
                sid=head.sid,
                seq=head.seq,
                price_exponent=saved.price_exponent,
                size_exponent=saved.size_exponent,
                bids=bids,
                asks=asks,
                is_derived=True,
            )
        )
    market.as_of = saved.as_of
    market.connection = saved.connection
    market.book_at, market.book_doubts = saved.book_at, saved.book_doubts
    market.quote, market.quote_seq = saved.quote, saved.quote_seq
    market.status, market.status_seq = saved.status, saved.status_seq
    market.trades.extend(saved.trades)
    market.trades_count, market.candles = saved.trades_count, saved.candles
    market.gaps_open = saved.gaps_open
    market.gaps_closed.extend(saved.gaps_closed)
    market.gaps_forgotten_ns = saved.gaps_forgotten_ns
    market.counts = saved.counts
    market.last, market.last_stream_seq = saved.last, saved.last_stream_seq
    return market


def restore(state: MarketState, head: Head, markets: list[Market]) -> None:
    """Fill an empty state."""
    state.restore(sorted(markets, key=lambda market: market.last_stream_seq))
    state.whole_gaps_open.update(((gap.gap_id, gap.channel), gap) for gap in head.whole_gaps_open)
    state.whole_gaps_closed.extend(head.whole_gaps_closed)
    state.whole_gaps_forgotten_ns = head.whole_gaps_forgotten_ns
    state.stream_seq, state.records = head.stream_seq, head.records


RecordT = TypeVar("RecordT", bound=Record)


def _without_levels(record: RecordT) -> RecordT:
    """The book holds them."""
    return msgspec.structs.replace(record, bids=(), asks=()) if isinstance(record, BookSnapshot) else record
