"""How a partition's records stand, for those that would make them anew: a pure fold of its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ssmd.archive.keys import parse_segment
from ssmd.domain import archive

_END_DAY: Final = "ssmd day end"


class RecordStanding(msgspec.Struct, frozen=True):
    """The records of a partition, and the raw lines they would be made from.

    Attributes:
        current: key -> file of what readers get; sealed: files sealed so far.
        reached, raw_reached: session -> last entry, of the records and of the raw lines.
    """

    partition: str
    current: Mapping[str, archive.SegmentFile] = {}
    sealed: int = 0
    is_complete: bool = False
    is_raw_complete: bool = False
    is_pruned: bool = False
    is_raw_pruned: bool = False
    reached: Mapping[int, int] = {}
    raw_reached: Mapping[int, int] = {}

    @property
    def mappers(self) -> tuple[int, ...]:
        """Versions that made the current records."""
        return tuple(sorted({parse_segment(key).shelf.mapper for key in self.current}))

    def why_not(self, mapper: int, date: str) -> str:
        """Why version `mapper` may not make the records anew, "" = it may."""
        newest = max(self.mappers, default=0)
        if newest > mapper:
            return f"mapper {newest} made its records, this ssmd has mapper {mapper}"
        if not self.current:
            return "its records were pruned" if self.is_pruned else ""
        if not self.is_complete or not self.is_raw_complete:
            return f"its day is open: {_END_DAY} --date {date}"
        if self.is_raw_pruned:
            return "its raw lines were pruned: nothing to make records from"
        for session, last_n in self.reached.items():
            if self.raw_reached.get(session, 0) < last_n:
                return (
                    f"its raw lines end at entry {self.raw_reached.get(session, 0)} of session {session}, records at {last_n}"
                )
        return ""

    def is_due(self, mapper: int) -> bool:
        """Whether an older version made any of its current records."""
        return any(one < mapper for one in self.mappers)


def with_record_event(held: RecordStanding, event: object) -> RecordStanding:
    """`held` after an event of the partition's normalized aggregate."""
    replace = msgspec.structs.replace
    match event:
        case archive.SegmentSealed(files=files):
            current = {**held.current, **{file.key: file for file in files}}
            reached = _reached(held.reached, event)
            return replace(held, current=current, sealed=held.sealed + len(files), is_pruned=False, reached=reached)
        case archive.Renormalized(files=files):
            return replace(held, current={file.key: file for file in files})
        case archive.Repaired(key=key, file=file) if file is not None and key in held.current:
            left = {name: one for name, one in held.current.items() if name != key}
            return replace(held, current={**left, file.key: file})
        case archive.Pruned(keys=keys):
            left = {name: one for name, one in held.current.items() if name not in set(keys)}
            return replace(held, current=left, is_pruned=held.is_pruned or len(left) < len(held.current))
        case archive.Completed():
            return replace(held, is_complete=True)
        case archive.Reopened():
            return replace(held, is_complete=False)
        case _:
            return held


def with_raw_event(held: RecordStanding, event: object) -> RecordStanding:
    """`held` after an event of the partition's raw aggregate."""
    replace = msgspec.structs.replace
    match event:
        case archive.SegmentSealed():
            return replace(held, raw_reached=_reached(held.raw_reached, event))
        case archive.Completed():
            return replace(held, is_raw_complete=True)
        case archive.Reopened():
            return replace(held, is_raw_complete=False)
        case archive.Pruned():
            return replace(held, is_raw_pruned=True)
        case _:
            return held


def _reached(before: Mapping[int, int], event: archive.SegmentSealed) -> dict[int, int]:
    after = dict(before)
    for one in event.sessions:
        after[one.session] = max(after.get(one.session, 0), one.last_n)
    return after
