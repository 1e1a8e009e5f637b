"""What the gateway knows of one market: book, quote, status, last trades, and what speaks against them. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from ssmd.exchanges.book import Book
from ssmd.gateway.candles import CandleRing
from ssmd.schemas.records import BookDelta, BookSnapshot, Gap, MarketStatus, Quote, Record, Trade

GAPS_CLOSED_MAX: Final = 64
GAPS_OPEN_MAX: Final = 64
NO_SNAPSHOT: Final = "no-snapshot"
"""Why a book nobody sent whole yet is not verified."""
NEGATIVE_LEVEL: Final = "negative-level"


class HeldTrade(NamedTuple):
    """A trade in the ring. `ordinal` counts this market's trades from 1 since the gateway began to read."""

    ordinal: int
    stream_seq: int
    record: Trade


class BookPlace(NamedTuple):
    """The last record the book took, and the stream sequence it came with."""

    stream_seq: int
    record: BookSnapshot | BookDelta


class Market:
    """One ticker's state, folded from its records in tape order.

    A book is verified from the venue's snapshot on, until a gap opens or a level goes negative. A gap of one named
    channel ends with its closing record or the next snapshot; one of the whole connection (channel "") with the
    next snapshot only, since only that replaces what was missed.
    """

    __slots__ = (
        "as_of",
        "book",
        "book_at",
        "book_doubts",
        "candles",
        "connection",
        "counts",
        "gaps_closed",
        "gaps_forgotten_ns",
        "gaps_open",
        "last",
        "last_stream_seq",
        "quote",
        "quote_seq",
        "revision",
        "status",
        "status_seq",
        "ticker",
        "trades",
        "trades_count",
    )

    def __init__(self, ticker: str, trades_max: int) -> None:
        self.ticker = ticker
        self.book = Book(ticker)
        self.book_at: BookPlace | None = None
        self.quote: Quote | None = None
        self.quote_seq = 0
        self.status: MarketStatus | None = None
        self.status_seq = 0
        self.trades: deque[HeldTrade] = deque(maxlen=trades_max)
        self.trades_count = 0
        self.candles = CandleRing()
        self.gaps_open: dict[str, Gap] = {}
        self.gaps_closed: deque[Gap] = deque(maxlen=GAPS_CLOSED_MAX)
        self.gaps_forgotten_ns = 0
        """Closed gaps that ended up to then may be missing from `gaps_closed`."""
        self.counts: dict[str, int] = {}
        self.last: Record | None = None
        self.last_stream_seq = 0
        self.book_doubts: dict[str, Gap | None] = {NO_SNAPSHOT: None}
        """Reasons against the book, oldest first; the gap to blame where there is one."""
        self.connection = ""
        """Whose tape it was last heard on."""
        self.as_of = 0
        """Records up to this stream sequence are in here already, though the reader may come to them again."""
        self.revision = 0
        """Grows with every change."""

    def apply(self, record: Record, kind: str, stream_seq: int) -> None:
        """Take the market's next record."""
        self.revision += 1
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.last, self.last_stream_seq = record, stream_seq
        if isinstance(record, BookDelta | BookSnapshot):
            self._apply_book(record, stream_seq)
        elif isinstance(record, Trade):
            self.trades_count += 1
            self.trades.append(HeldTrade(self.trades_count, stream_seq, record))
            self.candles.add(record)
        elif isinstance(record, Quote):
            self.quote, self.quote_seq = record, stream_seq
        elif isinstance(record, MarketStatus):
            self.status, self.status_seq = record, stream_seq
        else:
            self.apply_gap(record)

    def _apply_book(self, record: BookDelta | BookSnapshot, stream_seq: int) -> None:
        # A snapshot ssmd derived from earlier records inherits their faults: it fills an empty book, it proves nothing.
        if isinstance(record, BookSnapshot) and not record.is_derived:
            self.book_doubts.clear()
        findings = self.book.apply(record)
        self.book_at = BookPlace(stream_seq, record)
        if any(finding.what == NEGATIVE_LEVEL for finding in findings):
            self.book_doubts.setdefault(NEGATIVE_LEVEL, None)

    def apply_gap(self, gap: Gap) -> None:
        """A hole opens or closes here; also called for the holes of a whole channel that this market was part of."""
        self.revision += 1
        if gap.state != "closed":
            self.gaps_open[gap.gap_id] = gap
            self.book_doubts[gap.gap_id] = gap
            if len(self.gaps_open) > GAPS_OPEN_MAX:
                self._close(self.gaps_open.pop(next(iter(self.gaps_open))))
            return
        opened = self.gaps_open.pop(gap.gap_id, None)
        self._close(gap)
        if gap.channel and (opened is None or opened.channel):
            self.book_doubts.pop(gap.gap_id, None)

    def _close(self, gap: Gap) -> None:
        if len(self.gaps_closed) == GAPS_CLOSED_MAX:
            self.gaps_forgotten_ns = max(self.gaps_forgotten_ns, self.gaps_closed[0].end_ns)
        self.gaps_closed.append(gap)

    @property
    def book_doubt(self) -> tuple[str, Gap | None] | None:
        """(reason, gap to blame) why the book may be wrong; None = verified."""
        for name, gap in self.book_doubts.items():
            return ("gap" if gap is not None else name), gap
        return None

    @property
    def has_book(self) -> bool:
        """Whether any book record came."""
        return self.book_at is not None
