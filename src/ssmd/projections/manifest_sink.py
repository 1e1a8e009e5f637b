"""Writes manifests beside the segments they describe, whenever an event touched them.

Object storage takes no part in the projection's transaction: what is written is always rendered from the view, so that
writing again, or writing all that differ (`reconcile`), is the cure for anything that went wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ssmd.identifiers import decode_token
from ssmd.projections import manifests
from ssmd.projections.gaps import GapRow, gaps_prefixes, is_gap_key
from ssmd.projections.manifest import render
from ssmd.projections.manifests import Dates, Document, Shelf
from ssmd.projections.projection import row_key
from ssmd.projections.store import Changes, ReadableRows
from ssmd.projections.working_set import decode_row


class ManifestStore(Protocol):
    """As much of object storage as the sink needs."""

    async def put(self, key: str, data: bytes) -> None:
        """Write an object whole, in place of one there may be.

        Raises:
            Unavailable: no answer.
        """
        ...

    async def get(self, key: str) -> bytes | None:
        """The object's bytes, None = there is none.

        Raises:
            Unavailable: no answer.
        """
        ...


class ManifestSink:
    """Keeps manifest objects equal to the view `manifests`.

    Args:
        rows: where the view is.
        objects: where manifests go.
    """

    def __init__(self, rows: ReadableRows, objects: ManifestStore) -> None:
        self._rows = rows
        self._objects = objects
        self._pending: dict[tuple[str, str], set[str]] = {}
        self._writing = 0
        self.written = 0

    @property
    def pending(self) -> int:
        """Manifests that differ from the view, as far as is known; bounded by the documents there are."""
        return self._writing + sum(len(keys) for keys in self._pending.values())

    def note(self, changes: Changes) -> None:
        """Remember which manifests a commit of the view touched."""
        for key, value in changes.puts.items():
            if manifests.is_document_key(key):
                document = decode_row(value, Document)
                self._pending.setdefault((document.feed, document.date), set()).add(key)

    async def write_pending(self) -> int:
        """Write what `note` remembered; what fails stays remembered.

        Returns:
            how many were written.

        Raises:
            Unavailable: the view or object storage is away.
        """
        written = 0
        for feed, date in sorted(self._pending):
            keys = self._pending.pop((feed, date))
            self._writing = len(keys)
            try:
                for key, data in await self._rendered(feed, date, keys):
                    await self._objects.put(key, data)
                    written += 1
            except BaseException:
                # Cancelled or away: which of them are written is not worth knowing, writing twice does no harm.
                self._pending.setdefault((feed, date), set()).update(keys)
                raise
            finally:
                self._writing = 0
        self.written += written
        return written

    async def reconcile(self) -> int:
        """Compare every manifest with the view, and write those that are absent or differ.

        Returns:
            how many were written.

        Raises:
            Unavailable: the view or object storage is away.
        """
        written = 0
        page = await self._rows.read(manifests.NAME, prefixes=[f"{manifests.DATES}/"])
        for dates_key, value in page.rows.items():
            feed = decode_token(dates_key.rpartition("/")[2])
            for date in decode_row(value, Dates).dates:
                shelf_key = row_key(manifests.SHELF, feed, date)
                shelf = (await self._rows.read(manifests.NAME, keys=[shelf_key])).rows.get(shelf_key)
                if shelf is None:
                    continue
                keys = [manifests.document_key(key) for key in decode_row(shelf, Shelf).documents]
                for key, data in await self._rendered(feed, date, keys):
                    if await self._objects.get(key) != data:
                        await self._objects.put(key, data)
                        written += 1
        self.written += written
        return written

    async def _rendered(self, feed: str, date: str, keys: Iterable[str]) -> list[tuple[str, bytes]]:
        """(object key, bytes) of the documents at row `keys`, all of one date, as of one instant."""
        wanted = sorted(keys)
        page = await self._rows.read(manifests.NAME, keys=wanted, prefixes=gaps_prefixes(feed, date))
        gaps = [decode_row(value, GapRow) for key, value in page.rows.items() if is_gap_key(key)]
        documents = [decode_row(page.rows[key], Document) for key in wanted if key in page.rows]
        return [(document.key, render(document, gaps)) for document in documents]
