"""What may be deleted: partitions of old dates, complete, held by nobody. A pure function of the journal and the date."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date as calendar_date
from datetime import timedelta
from typing import Final

import msgspec

from ssmd.domain import archive

KEYS_PER_EVENT: Final = 1000
"""A partition of more segments is pruned in several events; each is a fact of its own."""


class PartitionFiles(msgspec.Struct, frozen=True):
    """One partition's files as the journal has them. `pruned`: keys deleted by its word; `holds`: name -> reason."""

    feed: str
    date: str
    type: str
    partition: str
    files: Mapping[str, archive.SegmentFile] = {}
    pruned: frozenset[str] = frozenset()
    holds: Mapping[str, str] = {}
    is_complete: bool = False

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """The aggregate's id."""
        return self.feed, self.date, self.type, self.partition

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


class Pruning(msgspec.Struct, frozen=True):
    """What is to become of one partition. `why_not` "" = it may be pruned."""

    date: str
    type: str
    partition: str
    segments: int
    size_bytes: int
    why_not: str = ""


def with_event(held: PartitionFiles, event: object) -> PartitionFiles:
    """`held` after an event of its aggregate."""
    replace = msgspec.structs.replace
    match event:
        case archive.SegmentSealed(files=files):
            return replace(held, files={**held.files, **{file.key: file for file in files}}, is_complete=False)
        case archive.Renormalized(files=files):
            return replace(held, files={**held.files, **{file.key: file for file in files}})
        case archive.Repaired(key=key, file=file) if file is not None:
            left = {name: one for name, one in held.files.items() if name != key}
            return replace(held, files={**left, file.key: file})
        case archive.Pruned(keys=keys):
            gone = frozenset(keys)
            left = {name: one for name, one in held.files.items() if name not in gone}
            return replace(held, files=left, pruned=held.pruned | gone)
        case archive.Completed():
            return replace(held, is_complete=True)
        case archive.Reopened():
            return replace(held, is_complete=False)
        case archive.Held(name=name, reason=reason):
            return replace(held, holds={**held.holds, name: reason})
        case archive.HoldReleased(name=name):
            return replace(held, holds={one: why for one, why in held.holds.items() if one != name})
        case _:
            return held


def last_date(today: str, days: int) -> str:
    """The newest date that is at least `days` days old."""
    return (calendar_date.fromisoformat(today) - timedelta(days=days)).isoformat()


def plan(held: PartitionFiles) -> Pruning:
    """Whether an old partition may be pruned, as far as the journal says."""
    why_not = ""
    if held.holds:
        name, reason = next(iter(sorted(held.holds.items())))
        why_not = f'hold "{name}": {reason}'
    elif not held.is_complete:
        why_not = f"it is open: ssmd day end --date {held.date}"
    return Pruning(held.date, held.type, held.partition, len(held.files), held.size_bytes, why_not)
