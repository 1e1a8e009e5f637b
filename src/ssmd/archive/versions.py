"""Which segments of a date's records are read: the current ones, or those of one version of the mapper.

A date may hold records that several versions made: a connector was renewed during the day, or the day was made anew
(`archive.Renormalized`), when the new segments of a partition take the place of all its others, which stay. What took
whose place stands in the manifests of the records; from which journal position on that holds, in the manifest of the raw
lines, which is written after them. So a reader has the old records or the new ones, of all kinds, never a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from ssmd.archive.keys import Shelf
from ssmd.archive.shelf_manifest import (
    KINDS,
    ArchivedSegment,
    ShelfManifest,
    decode_manifest,
    raw_shelf,
    read_manifest,
    record_shelf,
)
from ssmd.archive.storage import Storage
from ssmd.errors import Rejected, Unavailable

NEVER_NS: Final = 1 << 63
CURRENT: Final = 0
UNTOLD_MAPPERS: Final = (1, 2)
"""Versions that manifests may hold which do not tell versions."""


class Window(NamedTuple):
    """Receive times from `start_ns` (inclusive) to `end_ns` (exclusive)."""

    start_ns: int = 0
    end_ns: int = NEVER_NS

    def touches(self, segment: ArchivedSegment) -> bool:
        return segment.ts_recv_first_ns < self.end_ns and segment.ts_recv_last_ns >= self.start_ns


ALL_DAY: Final = Window()


class Versions(NamedTuple):
    """Versions that made records of a date, and by partition the journal position of its latest renormalization."""

    mappers: tuple[int, ...]
    renormalized: Mapping[str, int]


class Wanted(NamedTuple):
    """Which records. `tickers` empty = all; gaps of a whole channel come with any ticker.

    Attributes:
        mapper: those that this version made, current or not; 0 = the current ones.
        versions: what `resolved` found.
        keeps_duplicates: give trades both as captured and as backfilled (`archive.duplicates`).
    """

    env: str
    feed: str
    date: str
    mapper: int = CURRENT
    kinds: tuple[str, ...] = KINDS
    tickers: frozenset[str] = frozenset()
    window: Window = ALL_DAY
    versions: Versions | None = None
    keeps_duplicates: bool = False


class Placed(NamedTuple):
    """A segment, and the shelf it stands on."""

    shelf: Shelf
    segment: ArchivedSegment

    @property
    def key(self) -> str:
        return self.shelf.prefix + self.segment.name


def placed_of(shelf: Shelf, manifest: ShelfManifest | None) -> list[Placed]:
    """All segments of a shelf; raw lines have one version only."""
    return [Placed(shelf, segment) for segment in manifest.segments] if manifest else []


async def resolved(storage: Storage, wanted: Wanted) -> Wanted:
    """`wanted` with its versions: what is read with it is of one state of the archive.

    Raises:
        Rejected: "no-such-version".
        Malformed: the manifest of the raw lines cannot be read. Unavailable: the storage is away.
    """
    if wanted.versions is not None:
        return wanted
    key = raw_shelf(wanted.env, wanted.feed, wanted.date).manifest_key
    data = await storage.get(key)
    raw = None if data is None else decode_manifest(data, key)
    told = () if raw is None else raw.mapper_versions
    if told and wanted.mapper and wanted.mapper not in told:
        raise Rejected(
            "no-such-version",
            f"of {wanted.date} there are no records that mapper {wanted.mapper} made",
            mend=f"--mapper {' or '.join(map(str, told))}",
        )
    mappers = (wanted.mapper,) if wanted.mapper else told or UNTOLD_MAPPERS
    return wanted._replace(versions=Versions(mappers, {} if raw is None else raw.renormalized))


async def record_segments(storage: Storage, wanted: Wanted, kind: str) -> list[Placed]:
    """The segments of one kind that `wanted` means, whatever its window.

    Raises:
        Rejected: "unknown-kind", "no-such-version".
        Malformed: a manifest is missing, or cannot be read.
        Unavailable: the storage is away, or a manifest is behind the renormalization it should show.
    """
    known = await resolved(storage, wanted)
    mappers, renormalized = known.versions or Versions((), {})
    found: list[Placed] = []
    for mapper in mappers:
        shelf = record_shelf(wanted.env, wanted.feed, wanted.date, kind, mapper)
        manifest = await read_manifest(storage, shelf)
        for segment in manifest.segments if manifest else ():
            position = renormalized.get(segment.partition, 0)
            if manifest is not None and manifest.journal_position < position:
                raise Unavailable(
                    f"{shelf.manifest_key} is of journal position {manifest.journal_position}, "
                    f"the records of {segment.partition} were made anew at {position}",
                    mend="read again once the projector has written it",
                )
            if _is_wanted(segment, wanted.mapper, position):
                found.append(Placed(shelf, segment))
    return found


def _is_wanted(segment: ArchivedSegment, mapper: int, position: int) -> bool:
    if segment.made_at > position:
        return False
    is_superseded = 0 < segment.superseded_at <= position
    return not is_superseded or mapper not in {CURRENT, segment.superseded_by}
