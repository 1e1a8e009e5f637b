"""Order books of the past, from the archive; an instant the archive does not reach yet is told, never passed over."""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.archive.reading import Wanted
from ssmd.archive.shelf_manifest import read_manifest, record_shelf
from ssmd.archive.storage import Storage
from ssmd.archive.versions import resolved
from ssmd.clock import DayCalendar, iso_of
from ssmd.errors import Rejected
from ssmd.transforms.book_at import BookAt, book_at

_KINDS: Final = ("trade", "book", "snapshot", "quote")


class PastBooks:
    """Books of one feed's archive, of the day (in the archive's time zone) that an instant is in."""

    def __init__(self, storage: Storage, env: str, feed: str, calendar: DayCalendar) -> None:
        self._storage = storage
        self._env = env
        self._feed = feed
        self._calendar = calendar

    async def book(self, ticker: str, at_ns: int) -> BookAt:
        """The book with everything received up to `at_ns` (inclusive), all levels.

        Raises:
            Rejected: "not-archived": the archive ends before; "no-book": it has no snapshot of that day up to then.
            Malformed, Unavailable: the archive is damaged, or away.
        """
        date, _ = self._calendar.day_of(at_ns)
        wanted = await resolved(self._storage, Wanted(self._env, self._feed, date))
        ends_ns = await self._open_ends(wanted)
        if ends_ns and at_ns > max(ends_ns.values()):
            upto = f"what came up to {iso_of(max(ends_ns.values()))}" if any(ends_ns.values()) else "nothing"
            raise Rejected(
                "not-archived",
                f"of {date} the archive has {upto} so far, not {iso_of(at_ns)}",
                mend="ask again after the next segment is sealed, or leave out `at` for the book now",
            )
        found = await book_at(self._storage, wanted, ticker, at_ns)
        # Which partition a ticker is in the manifests do not say: one that ends before may hold what is missing here.
        short = [f"partition {name} is archived up to {iso_of(end)}" for name, end in ends_ns.items() if end < at_ns]
        return msgspec.structs.replace(found, verified=found.verified and not short, reasons=(*found.reasons, *short))

    async def _open_ends(self, wanted: Wanted) -> dict[str, int]:
        """Receive time of the last record sealed of each partition that is not complete; a complete one has everything."""
        ends_ns: dict[str, int] = {}
        found = False
        for mapper in wanted.versions.mappers if wanted.versions else ():
            for kind in _KINDS:
                shelf = record_shelf(self._env, self._feed, wanted.date, kind, mapper)
                manifest = await read_manifest(self._storage, shelf)
                if manifest is None:
                    continue
                found = True
                for segment in manifest.segments:
                    if manifest.partitions.get(segment.partition) != "complete":
                        ends_ns[segment.partition] = max(ends_ns.get(segment.partition, 0), segment.ts_recv_last_ns)
        return ends_ns if found else {"": 0}
