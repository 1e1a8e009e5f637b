"""Normalized market records, the Python side of `market.capnp`.

Units, for every record: times are UTC nanoseconds (0 = unknown); a price is `price x 10**price_exponent`, a size is
`size x 10**size_exponent`, both exact integers. `None` stands for a price or size the venue did not give.
Field names and meanings follow `market.capnp` one to one (camelCase there, snake_case here).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import msgspec

WHOLE_CHANNEL: Final = "*"
"""Ticker of a gap that concerns a channel subscribed without a ticker filter."""


class Side(IntEnum):
    UNKNOWN = 0
    BID = 1
    ASK = 2


class SizeMeaning(IntEnum):
    CHANGE = 0
    """`size` is added to the level."""
    TOTAL = 1
    """`size` is the level's new size."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """What every record begins with; (session, n, index) is its identity within a connection.

    Attributes:
        ticker: the venue's name of the market.
        ts_event_ns: the venue's time of the event, 0 = not told.
        ts_recv_ns: when the frame was read off the socket.
        session: one number per connection made; see `schemas.blocks`.
        n: number of the tape entry, contiguous per session, from 1.
        index: 0, 1, ... among the records of one entry.
        sid: the venue's subscription id, 0 = none.
        seq: the venue's sequence number within `sid`, 0 = none.
    """

    feed: str
    ticker: str
    ts_event_ns: int
    ts_recv_ns: int
    session: int
    n: int
    index: int
    sid: int
    seq: int
    price_exponent: int
    size_exponent: int


class Trade(Header, frozen=True, gc=False, tag="trade"):
    trade_id: str
    price: int
    size: int
    aggressor: Side
    is_block: bool


class BookDelta(Header, frozen=True, gc=False, tag="book"):
    price: int
    size: int
    side: Side
    meaning: SizeMeaning


class BookSnapshot(Header, frozen=True, tag="snapshot"):
    """The whole book: levels as (price, size), best first on both sides. It replaces what was known."""

    bids: tuple[tuple[int, int], ...]
    asks: tuple[tuple[int, int], ...]
    is_derived: bool


class Quote(Header, frozen=True, gc=False, tag="quote"):
    bid_price: int | None
    bid_size: int | None
    ask_price: int | None
    ask_size: int | None
    last_price: int | None
    last_size: int | None
    volume: int | None
    open_interest: int | None


class MarketStatus(Header, frozen=True, gc=False, tag="status"):
    """A change in a market's life. `detail` is the venue's message body, verbatim JSON."""

    change: str
    status: str
    open_ns: int
    close_ns: int
    result: str
    settlement_price: int | None
    detail: str


class Gap(Header, frozen=True, gc=False, tag="gap"):
    """A hole in what was received, told in-band to every ticker it concerns.

    One record opens a gap (`state` "opened", `end_ns` 0), one with the same `gap_id` closes it.
    """

    gap_id: str
    state: str
    cause: str
    start_ns: int
    end_ns: int
    channel: str
    seq_expected: int
    seq_found: int
    evidence: str


TYPE_OF_KIND: Final = {
    "trade": Trade,
    "book": BookDelta,
    "snapshot": BookSnapshot,
    "quote": Quote,
    "status": MarketStatus,
    "gap": Gap,
}
KIND_OF: Final[dict[Any, str]] = {record: kind for kind, record in TYPE_OF_KIND.items()}
"""Record type -> the kind token of subjects and object keys."""

Record = Trade | BookDelta | BookSnapshot | Quote | MarketStatus | Gap
