"""A ticker's book at an instant, from the archive: its last snapshot before, and the changes since, with what proves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ssmd.archive.reading import Wanted, Window, records
from ssmd.archive.segment_index import Group, Place
from ssmd.archive.shelf_manifest import ArchivedGap, raw_shelf, read_manifest
from ssmd.archive.storage import Storage
from ssmd.archive.ticker_reading import part_records, parts
from ssmd.archive.versions import resolved
from ssmd.clock import iso_of
from ssmd.errors import Rejected
from ssmd.exchanges.book import Book
from ssmd.schemas.decimals import render
from ssmd.schemas.records import WHOLE_CHANNEL, BookDelta, BookSnapshot, Gap, Record, Side, SizeMeaning

BOOK_CHANNEL: Final = "orderbook_delta"


class BookAt(msgspec.Struct, frozen=True):
    """A book as of `at_ns` (inclusive). Prices and sizes are exact decimal text; levels best first.

    Attributes:
        snapshot_ns: receive time of the snapshot it starts from; last_ns: of the last change.
        session, seq_first, seq_last: the subscription's sequence numbers it rests on, snapshot and last change.
        n_first, n_last: the tape entries they came from.
        deltas: changes applied to the snapshot.
        digest: SHA-256 of ticker and levels (`exchanges.book.Book.digest`).
        verified: no gap concerns it, no change is missing, and it is (now) neither crossed nor negative; else `reasons`.
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

    With the segments' sidecars some frames around the snapshot and the instant are read; without them, all in between.

    Args:
        depth: levels a side, 0 = all; the digest is always of all.

    Raises:
        Rejected: "no-book": no snapshot of the ticker was received that date up to then.
        Malformed, Unavailable: as `reading.records`.
    """
    window = Window(0, at_ns + 1)
    known = await resolved(storage, wanted)
    of_ticker = known._replace(tickers=frozenset({ticker}), window=window)
    last = await _last_snapshot(storage, of_ticker, ticker)
    if last is None:
        raise Rejected(
            "no-book",
            f"no snapshot of the book of {ticker} was received on {wanted.date} up to {iso_of(at_ns)}",
            mend=f"ssmd data inventory --date {wanted.date}",
        )
    since = of_ticker._replace(window=Window(last.ts_recv_ns, at_ns + 1))
    book = await _summed(storage, since, ticker, last) or await _folded(storage, since, ticker, last)
    holes = await _open_gaps(storage, wanted, ticker, last.ts_recv_ns, at_ns)
    return book.told(at_ns, depth, holes)


def _place(record: Record) -> Place:
    return Place(record.ts_recv_ns, record.session, record.n, record.index, record.sid, record.seq)


async def _last_snapshot(storage: Storage, wanted: Wanted, ticker: str) -> BookSnapshot | None:
    """The last one in the window of `wanted`; of each segment only the frames that can hold it are read."""
    last: BookSnapshot | None = None
    found = await parts(storage, wanted, "snapshot", ticker)
    for part in sorted(found, key=lambda part: part.ts_max_ns, reverse=True):
        if last is not None and part.ts_max_ns < last.ts_recv_ns:
            break
        async for batch in part_records(storage, part, "snapshot", ticker):
            for record in batch:
                is_in = isinstance(record, BookSnapshot) and record.ts_recv_ns < wanted.window.end_ns
                if is_in and (last is None or _place(record) > _place(last)):
                    last = record  # type: ignore[assignment]  # is_in says that it is one
    return last


async def _summed(storage: Storage, since: Wanted, ticker: str, snapshot: BookSnapshot) -> _Fold | None:
    """The book by adding up, which needs no order; None = there are changes that have to be folded in order."""
    book = _Fold(ticker)
    book.apply([snapshot])
    for part in await parts(storage, since, "book", ticker):
        group = part.group
        if group is not None and group.sums is not None and _is_whole(group, since.window, snapshot):
            book.add(group)
            continue
        async for batch in part_records(storage, part, "book", ticker):
            wanted = [record for record in batch if _is_since(record, since.window, snapshot)]
            if any(not isinstance(record, BookDelta) or record.meaning != SizeMeaning.CHANGE for record in wanted):
                return None
            book.apply(wanted)
    gaps: list[Record] = []
    for name in dict.fromkeys((ticker, WHOLE_CHANNEL)):
        for part in await parts(storage, since, "gap", name):
            async for batch in part_records(storage, part, "gap", name):
                gaps += [record for record in batch if _is_since(record, since.window, snapshot)]
    book.apply(sorted(gaps, key=_place))
    return book


def _is_since(record: Record, window: Window, snapshot: BookSnapshot) -> bool:
    start, end = window
    place = record.session, record.n, record.index
    return start <= record.ts_recv_ns < end and place > (snapshot.session, snapshot.n, snapshot.index)


def _is_whole(group: Group, window: Window, snapshot: BookSnapshot) -> bool:
    """Whether all of the group's records are in: they are of one session, in order."""
    first = group.first.session, group.first.n, group.first.index
    is_in_time = window.start_ns <= group.ts_min_ns and group.ts_max_ns < window.end_ns
    return is_in_time and first > (snapshot.session, snapshot.n, snapshot.index)


async def _folded(storage: Storage, since: Wanted, ticker: str, snapshot: BookSnapshot) -> _Fold:
    """The book by applying every record in order."""
    book = _Fold(ticker)
    book.apply([snapshot])
    async for batch in records(storage, since._replace(kinds=("book", "gap"))):
        book.apply([record for record in batch if _is_since(record, since.window, snapshot)])
    return book


async def _open_gaps(storage: Storage, wanted: Wanted, ticker: str, since_ns: int, at_ns: int) -> list[ArchivedGap]:
    """Gaps the journal knows between the snapshot and the instant: in-band they may come only after it."""
    manifest = await read_manifest(storage, raw_shelf(wanted.env, wanted.feed, wanted.date))
    return [
        gap
        for gap in (manifest.gaps if manifest else ())
        if gap.concerns(ticker) and gap.channel in {"", BOOK_CHANNEL} and since_ns <= gap.start_ns < at_ns
    ]


class _Fold:
    """A book and what is known of how it came about. Changes of sizes may come in any order, all else in the order received."""

    def __init__(self, ticker: str) -> None:
        self._ticker = ticker
        self._book = Book(ticker)
        self._first: BookSnapshot | None = None
        self._last: Place | None = None
        self._deltas = 0
        self._others: set[int] = set()
        self._reasons: list[str] = []
        self._gaps: dict[str, str] = {}
        self._sums: dict[tuple[int, ...], int] = {}

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
                self._first = record
            else:
                self._note(_place(record), 1)
            for finding in self._book.apply(record):
                if finding.what == "unknown-side":
                    self._reasons.append(f"{finding.what}: {finding.detail}")
            self._last = max(self._last or _place(record), _place(record))

    def add(self, group: Group) -> None:
        """Apply a whole group of changes by its sums."""
        last = group.last
        for *where, size in group.sums or ():
            place = tuple(where)
            self._sums[place] = self._sums.get(place, 0) + size
        self._note(last, group.records)
        self._last = max(self._last or last, last)

    def _apply_sums(self) -> None:
        sums, self._sums = self._sums, {}
        header = (self._ticker, 0, 0, 0, 0, 0, 0, 0)
        for (price_exponent, size_exponent, side, price), size in sums.items():
            change = BookDelta("", *header, price_exponent, size_exponent, price, size, Side(side), SizeMeaning.CHANGE)
            self._book.apply(change)

    def _note(self, place: Place, count: int) -> None:
        self._deltas += count
        first = self._first
        if first is not None and (place.session, place.sid) != (first.session, first.sid):
            self._others.add(place.session)

    def _findings(self) -> list[str]:
        """What speaks against the book as it stands."""
        book, found = self._book, list(self._reasons)
        if self._first is not None:
            found += [f"change of session {one} on a snapshot of session {self._first.session}" for one in sorted(self._others)]
        for name, side in zip(("bid", "ask"), book.levels_kept(), strict=True):
            for price, size in sorted(side):
                if size < 0:
                    at, amount = render(price, book.price_exponent), render(size, book.size_exponent)
                    found.append(f"negative-level: {name} {at} has size {amount}")
        bid, ask = book.best_bid, book.best_ask
        if bid is not None and ask is not None and bid.price >= ask.price:
            at, over = render(bid.price, book.price_exponent), render(ask.price, book.price_exponent)
            found.append(f"crossed: best bid {at} is not below best ask {over}")
        return found

    def told(self, at_ns: int, depth: int, holes: Sequence[ArchivedGap]) -> BookAt:
        self._apply_sums()
        first, last, book = self._first, self._last, self._book
        if first is None or last is None:
            raise AssertionError("a snapshot was found before")
        reasons = [*self._findings(), *self._gaps.values()]
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
