"""Sidecars made again from the segments of a date: those that are absent, and those that are not what they should be."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from ssmd.archive.keys import Shelf
from ssmd.archive.reading import Wanted
from ssmd.archive.segment_index import INDEXED_KINDS, build, index_key
from ssmd.archive.shelf_manifest import ArchivedSegment, read_manifest, record_shelf
from ssmd.archive.storage import Storage
from ssmd.errors import Malformed

_VERIFY: Final = "ssmd data verify"


class Reindexed(NamedTuple):
    """Sidecars looked at, and keys of those written."""

    looked_at: int
    written: tuple[str, ...]


async def reindex(storage: Storage, wanted: Wanted) -> Reindexed:
    """Bring the sidecars of a date in order. A segment at a time is in memory.

    Raises:
        Malformed: a segment is absent or damaged: its sidecar cannot be made. Unavailable: the storage is away.
    """
    written: list[str] = []
    count = 0
    for kind in INDEXED_KINDS:
        shelf = record_shelf(wanted.env, wanted.feed, wanted.date, kind, wanted.mapper)
        manifest = await read_manifest(storage, shelf)
        for segment in manifest.segments if manifest else ():
            count += 1
            key = index_key(shelf.prefix + segment.name)
            data = await _sidecar(storage, shelf, segment, kind)
            if data is not None and await storage.get(key) != data:
                await storage.put(key, data)
                written.append(key)
    return Reindexed(count, tuple(written))


async def _sidecar(storage: Storage, shelf: Shelf, segment: ArchivedSegment, kind: str) -> bytes | None:
    key = shelf.prefix + segment.name
    stored = await storage.get(key)
    if stored is None or hashlib.sha256(stored).hexdigest() != segment.sha256:
        raise Malformed(f"{key} is not what was sealed: it gets no sidecar", mend=_VERIFY)
    return build(kind, segment.sha256, [stored])
