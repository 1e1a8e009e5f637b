"""What the gateway says to its clients: one strict type per message, in JSON, numbers as the venue's exact decimal text.

`stream_seq` is the market stream's sequence of the mark that completed the record's block: it never falls along a
connection, and (stream_seq, session, n, index) is a message's place for good, the same for every client.
Times are UTC nanoseconds, 0 = unknown. A price or size nobody told is null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from ssmd.errors import Rejected
from ssmd.schemas import records
from ssmd.schemas.decimals import render

Levels = tuple[tuple[str, str], ...]
"""(price, size) pairs, best first."""


class Placed(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """What every message about a market begins with.

    Attributes:
        session, n, index: the tape entry it came from, and its number among that entry's records.
        seq: the venue's sequence number, 0 = none.
    """

    feed: str
    ticker: str
    stream_seq: int
    ts_event_ns: int
    ts_recv_ns: int
    session: int
    n: int
    index: int
    seq: int


class TradeMessage(Placed, frozen=True, gc=False, tag="trade"):
    """`aggressor`: bid = the taker bought, ask = the taker sold, unknown."""

    trade_id: str
    price: str
    size: str
    aggressor: str
    is_block: bool


class BookMessage(Placed, frozen=True, gc=False, tag="book"):
    """One level changed. `meaning` change: add `size` to the level; total: the level's new size. Size 0 = level gone."""

    side: str
    price: str
    size: str
    meaning: str


class GapView(msgspec.Struct, frozen=True, gc=False):
    """A hole in what was received; `end_ns` 0 = still open; `channel` "" = all of the connection's."""

    gap_id: str
    cause: str
    start_ns: int
    end_ns: int
    channel: str
    evidence: str


class SnapshotMessage(Placed, frozen=True, tag="snapshot"):
    """The whole book; it replaces what the client knew.

    Attributes:
        is_derived: made by the gateway from its own book on subscribing, not sent by the venue at this place.
        verified: nothing speaks against this book; else `reason` and, where one is to blame, `gap` say why.
    """

    bids: Levels
    asks: Levels
    is_derived: bool
    verified: bool
    reason: str
    gap: GapView | None


class QuoteMessage(Placed, frozen=True, gc=False, tag="quote"):
    bid_price: str | None
    bid_size: str | None
    ask_price: str | None
    ask_size: str | None
    last_price: str | None
    last_size: str | None
    volume: str | None
    open_interest: str | None


class StatusMessage(Placed, frozen=True, gc=False, tag="status"):
    """A change in a market's life. `detail` is the venue's message body, JSON as text."""

    change: str
    status: str
    open_ns: int
    close_ns: int
    result: str
    settlement_price: str | None
    detail: str


class GapMessage(Placed, frozen=True, gc=False, tag="gap"):
    """A hole opens or closes (`state`); `ticker` "*" = every ticker of `channel`."""

    gap_id: str
    state: str
    cause: str
    start_ns: int
    end_ns: int
    channel: str
    seq_expected: int
    seq_found: int
    evidence: str


MarketMessage = TradeMessage | BookMessage | SnapshotMessage | QuoteMessage | StatusMessage | GapMessage


class Control(msgspec.Struct, frozen=True, tag_field="type"):
    """Messages about the connection itself."""


class Ack(Control, frozen=True, tag="ack"):
    """Command `id` is done. Nothing a finished unsubscribe named comes after its ack, unless "*" brings it.

    Attributes:
        tickers, kinds: what the command concerned.
        snapshots: books this command makes a snapshot follow for; one snapshot may answer several commands.
        stream_seq: the gateway's position when it was done; with `resume_from` what follows comes from before it.
        stream: which life of the stream sequences are of; give it back with `resume_from`.
    """

    id: int
    cmd: str
    tickers: tuple[str, ...]
    kinds: tuple[str, ...]
    snapshots: int
    stream_seq: int
    stream: str


class Resumed(Control, frozen=True, tag="resumed"):
    """Everything missed has been sent: `messages` of them, up to `stream_seq`; from here on the client is live.

    Attributes:
        id: of the subscribe command with `resume_from`.
    """

    id: int
    messages: int
    stream_seq: int


class Pong(Control, frozen=True, tag="pong"):
    id: int
    stream_seq: int
    ts_ns: int


class Heartbeat(Control, frozen=True, tag="heartbeat"):
    """Nothing is waiting for this client: it has everything up to and with `stream_seq`, and may resume from there."""

    stream_seq: int
    ts_ns: int


class Refusal(Control, frozen=True, tag="error"):
    """A command was not done. `code` is stable; `id` null = the command's id could not be read."""

    id: int | None
    code: str
    message: str


def refusal_of(command_id: int | None, error: Rejected) -> Refusal:
    """The refusal that tells `error`, with the way out where there is one."""
    return Refusal(command_id, error.rule, f"{error.message}. {error.mend}" if error.mend else error.message)


class Loss(Control, frozen=True, tag="lost"):
    """This client was too slow: `messages` of its messages up to and with `stream_seq` were dropped; a close follows.

    Attributes:
        lost: ticker -> messages dropped; they sum up to `messages`.
        snapshots: books whose first snapshot was still owed.
    """

    messages: int
    lost: dict[str, int]
    snapshots: int
    stream_seq: int


class Conflated(Control, frozen=True, tag="conflated"):
    """Since the last frame `messages` messages were not sent because newer ones of their ticker and kind were.

    Attributes:
        replaced: ticker -> messages; they sum up to `messages`. Changes of a book that one snapshot stands for count too.
    """

    messages: int
    replaced: dict[str, int]
    stream_seq: int


class ModeAck(Control, frozen=True, tag="mode"):
    """Command `id` is done: the connection is served in `mode`, with `interval_ms` between frames (0 = none)."""

    id: int
    mode: str
    interval_ms: int


class Closing(Control, frozen=True, tag="closing"):
    """The gateway is about to close; nothing up to and with `resume_from` (a stream_seq) is missing.

    `resume_from` 0 = sequences seen so far mean nothing any more: begin anew.
    """

    reason: str
    resume_from: int


_ENCODER: Final = msgspec.json.Encoder()


def encode(message: MarketMessage | Control) -> str:
    """The message as a piece of a frame; encoded once and shared by all clients."""
    return _ENCODER.encode(message).decode()


def render_optional(mantissa: int | None, exponent: int) -> str | None:
    """Decimal text, or None for a number that was not told."""
    return None if mantissa is None else render(mantissa, exponent)


def levels(pairs: Iterable[tuple[int, int]], price_exponent: int, size_exponent: int) -> Levels:
    """(price, size) pairs as decimal text."""
    return tuple((render(price, price_exponent), render(size, size_exponent)) for price, size in pairs)


def gap_view(gap: records.Gap) -> GapView:
    return GapView(gap.gap_id, gap.cause, gap.start_ns, gap.end_ns, gap.channel, gap.evidence)


_SIDES: Final = {side: side.name.lower() for side in records.Side}
_MEANINGS: Final = {meaning: meaning.name.lower() for meaning in records.SizeMeaning}


def _head(record: Any, stream_seq: int) -> tuple[str, str, int, int, int, int, int, int, int]:
    return (
        record.feed,
        record.ticker,
        stream_seq,
        record.ts_event_ns,
        record.ts_recv_ns,
        record.session,
        record.n,
        record.index,
        record.seq,
    )


def trade_message(record: records.Trade, stream_seq: int) -> TradeMessage:
    return TradeMessage(
        *_head(record, stream_seq),
        trade_id=record.trade_id,
        price=render(record.price, record.price_exponent),
        size=render(record.size, record.size_exponent),
        aggressor=_SIDES[record.aggressor],
        is_block=record.is_block,
    )


def book_message(record: records.BookDelta, stream_seq: int) -> BookMessage:
    return BookMessage(
        *_head(record, stream_seq),
        side=_SIDES[record.side],
        price=render(record.price, record.price_exponent),
        size=render(record.size, record.size_exponent),
        meaning=_MEANINGS[record.meaning],
    )


def snapshot_message(record: records.BookSnapshot, stream_seq: int) -> SnapshotMessage:
    return SnapshotMessage(
        *_head(record, stream_seq),
        bids=levels(record.bids, record.price_exponent, record.size_exponent),
        asks=levels(record.asks, record.price_exponent, record.size_exponent),
        is_derived=record.is_derived,
        verified=not record.is_derived,
        reason="derived" if record.is_derived else "",
        gap=None,
    )


def quote_message(record: records.Quote, stream_seq: int) -> QuoteMessage:
    price, size = record.price_exponent, record.size_exponent
    return QuoteMessage(
        *_head(record, stream_seq),
        bid_price=render_optional(record.bid_price, price),
        bid_size=render_optional(record.bid_size, size),
        ask_price=render_optional(record.ask_price, price),
        ask_size=render_optional(record.ask_size, size),
        last_price=render_optional(record.last_price, price),
        last_size=render_optional(record.last_size, size),
        volume=render_optional(record.volume, size),
        open_interest=render_optional(record.open_interest, size),
    )


def status_message(record: records.MarketStatus, stream_seq: int) -> StatusMessage:
    return StatusMessage(
        *_head(record, stream_seq),
        change=record.change,
        status=record.status,
        open_ns=record.open_ns,
        close_ns=record.close_ns,
        result=record.result,
        settlement_price=render_optional(record.settlement_price, record.price_exponent),
        detail=record.detail,
    )


def gap_message(record: records.Gap, stream_seq: int) -> GapMessage:
    return GapMessage(
        *_head(record, stream_seq),
        gap_id=record.gap_id,
        state=record.state,
        cause=record.cause,
        start_ns=record.start_ns,
        end_ns=record.end_ns,
        channel=record.channel,
        seq_expected=record.seq_expected,
        seq_found=record.seq_found,
        evidence=record.evidence,
    )


_MAKERS: Final[dict[Any, Callable[[Any, int], MarketMessage]]] = {
    records.Trade: trade_message,
    records.BookDelta: book_message,
    records.BookSnapshot: snapshot_message,
    records.Quote: quote_message,
    records.MarketStatus: status_message,
    records.Gap: gap_message,
}


def of_record(record: records.Record, stream_seq: int) -> MarketMessage:
    """The message that tells `record`."""
    return _MAKERS[type(record)](record, stream_seq)
