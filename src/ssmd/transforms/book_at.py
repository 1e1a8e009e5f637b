"""A ticker's book at an instant, from the archive: its last snapshot before, and the changes since, with what proves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ssmd.archive.reading import Wanted, Window, records
from ssmd.archive.shelf_manifest import ArchivedGap, raw_shelf, read_manifest
from ssmd.archive.storage import Storage
from ssmd.clock import iso_of
from ssmd.errors import Rejected
from ssmd.exchanges.book import Book
from ssmd.schemas.decimals import render
from ssmd.schemas.records import BookDelta, BookSnapshot, Gap, Record

BOOK_CHANNEL: Final = "orderbook_delta"


class BookAt(msgspec.Struct, frozen=True):
    """A book as of `at_ns` (inclusive). Prices and sizes are exact decimal text; levels best first.

    Attributes:
        snapshot_ns: receive time of the snapshot it starts from; last_ns: of the last change.
        session, seq_first, seq_last: the subscription's sequence numbers it rests on, snapshot and last change.
        n_first, n_last: the tape entries they came from.
        deltas: changes applied to the snapshot.
        digest: SHA-256 of ticker and levels (`exchanges.book.Book.digest`).
        verified: no gap concerns it, no change is missing, and it is neither crossed nor negative; else `reasons`.
    """

    ticker: str
    at_ns: int
    bids: tuple[tuple[str, str], ...]
    asks: tuple[tuple[str, str], ...]
    snapshot_ns: int
    last_ns: int
    session: int
    sid: int
    seq_first: int
    seq_last: int
    n_first: int
    n_last: int
    deltas: int
    digest: str
    verified: bool
    reasons: tuple[str, ...]


async def book_at(storage: Storage, wanted: Wanted, ticker: str, at_ns: int, depth: int = 0) -> BookAt:
    """The book of `ticker` on the date of `wanted` when all records received up to `at_ns` are applied.

    Reads the ticker's snapshots and changes of the date up to that instant.

    Args:
        depth: levels a side, 0 = all; the digest is always of all.

    Raises:
        Rejected: "no-book": no snapshot of the ticker was received that date up to then.
        Malformed, Unavailable: as `reading.records`.
    """
    window = Window(0, at_ns + 1)
    snapshots = wanted._replace(kinds=("snapshot",), tickers=frozenset({ticker}), window=window)
    last: BookSnapshot | None = None
    async for batch in records(storage, snapshots):
        for record in batch:
            if isinstance(record, BookSnapshot):
                last = record
    if last is None:
        raise Rejected(
            "no-book",
            f"no snapshot of the book of {ticker} was received on {wanted.date} up to {iso_of(at_ns)}",
            mend=f"ssmd data inventory --date {wanted.date}",
        )
    book = _Fold(ticker)
    since = snapshots._replace(kinds=("snapshot", "book", "gap"), window=Window(last.ts_recv_ns, at_ns + 1))
    start = last.session, last.n, last.index
    async for batch in records(storage, since):
        book.apply([record for record in batch if (record.session, record.n, record.index) >= start])
    holes = await _open_gaps(storage, wanted, ticker, last.ts_recv_ns, at_ns)
    return book.told(at_ns, depth, holes)


async def _open_gaps(storage: Storage, wanted: Wanted, ticker: str, since_ns: int, at_ns: int) -> list[ArchivedGap]:
    """Gaps the journal knows between the snapshot and the instant: in-band they may come only after it."""
    manifest = await read_manifest(storage, raw_shelf(wanted.env, wanted.feed, wanted.date))
    return [
        gap
        for gap in (manifest.gaps if manifest else ())
        if gap.concerns(ticker) and gap.channel in {"", BOOK_CHANNEL} and since_ns <= gap.start_ns < at_ns
    ]


class _Fold:
    def __init__(self, ticker: str) -> None:
        self._ticker = ticker
        self._book = Book(ticker)
        self._first: BookSnapshot | None = None
        self._last: Record | None = None
        self._deltas = 0
        self._reasons: list[str] = []
        self._gaps: dict[str, str] = {}

    def apply(self, found: Sequence[Record]) -> None:
        for record in found:
            if isinstance(record, Gap):
                if record.state == "opened":
                    self._gaps[record.gap_id] = f"gap {record.gap_id} ({record.cause}) since {iso_of(record.start_ns)}"
                else:
                    self._gaps.pop(record.gap_id, None)
                continue
            if not isinstance(record, BookSnapshot | BookDelta):
                continue
            if isinstance(record, BookSnapshot):
                self._first, self._deltas, self._reasons, self._gaps = record, 0, [], {}
            else:
                self._deltas += 1
                if self._first is not None and (record.session, record.sid) != (self._first.session, self._first.sid):
                    self._reasons.append(f"change of session {record.session} on a snapshot of session {self._first.session}")
            self._reasons += [f"{finding.what}: {finding.detail}" for finding in self._book.apply(record)]
            self._last = record

    def told(self, at_ns: int, depth: int, holes: Sequence[ArchivedGap]) -> BookAt:
        first, last, book = self._first, self._last, self._book
        if first is None or last is None:
            raise AssertionError("a snapshot was found before")
        reasons = [*self._reasons, *self._gaps.values()]
        reasons += [
            f"gap {gap.gap_id} ({gap.cause}) since {iso_of(gap.start_ns)}"
            for gap in holes
            if gap.gap_id not in self._gaps and gap.start_ns >= first.ts_recv_ns
        ]
        bids, asks = (
            tuple((render(level.price, book.price_exponent), render(level.size, book.size_exponent)) for level in side)
            for side in book.levels(depth)
        )
        return BookAt(
            ticker=self._ticker, at_ns=at_ns, bids=bids, asks=asks,
            snapshot_ns=first.ts_recv_ns, last_ns=last.ts_recv_ns,
            session=last.session, sid=last.sid, seq_first=first.seq, seq_last=last.seq, n_first=first.n, n_last=last.n,
            deltas=self._deltas, digest=book.digest, verified=not reasons, reasons=tuple(dict.fromkeys(reasons)),
        )  # fmt: skip
