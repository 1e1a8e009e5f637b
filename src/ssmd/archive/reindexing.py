"""Sidecars made again from the segments of a date: those that are absent, and those that are not what they should be."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from ssmd.archive.segment_index import INDEXED_KINDS, build, index_key
from ssmd.archive.storage import Storage
from ssmd.archive.versions import Placed, Wanted, record_segments
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
        for one in await record_segments(storage, wanted, kind):
            count += 1
            key = index_key(one.key)
            data = await _sidecar(storage, one, kind)
            if data is not None and await storage.get(key) != data:
                await storage.put(key, data)
                written.append(key)
    return Reindexed(count, tuple(written))


async def _sidecar(storage: Storage, one: Placed, kind: str) -> bytes | None:
    key, segment = one.key, one.segment
    stored = await storage.get(key)
    if stored is None or hashlib.sha256(stored).hexdigest() != segment.sha256:
        raise Malformed(f"{key} is not what was sealed: it gets no sidecar", mend=_VERIFY)
    return build(kind, segment.sha256, [stored])
