"""View `inventory`: what of each day's data is stored for good.

partition/{feed}/{date}/{type}/{partition}   -> Partition
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ssmd.archive.keys import parse_segment
from ssmd.domain import archive
from ssmd.errors import Malformed
from ssmd.projections.projection import Projection, Rows, id_parts, row_key
from ssmd.streams.journal import RecordedEvent

NAME: Final = "inventory"
_PARTITION: Final = "partition"
SUPERSEDED: Final = "superseded"
"""Status of a line of what `Partition.older` holds."""


class Holding(msgspec.Struct, frozen=True):
    """What there is of one kind. Times are receive times of the first and the last record, 0 = none."""

    segments: int = 0
    records: int = 0
    size_bytes: int = 0
    content_bytes: int = 0
    ts_recv_first_ns: int = 0
    ts_recv_last_ns: int = 0


class Partition(msgspec.Struct, frozen=True):
    """One connection's data of a date and type. `kinds`: kind -> holding; `sessions`: session -> last n archived.

    `mapper`: the newest version that made any of its records, 0 = raw; `older`: kind -> what is stored besides, whose place
    records that were made anew took.

    `status` pruned = every segment was deleted on purpose, `pruned_segments` of `pruned_bytes`; `holds`: name -> reason.
    `reason`: what completed or reopened it, or why it was pruned. `config`: git commit of the registry at its latest event.
    """

    feed: str
    date: str
    type: str
    partition: str
    status: Literal["open", "complete", "pruned", "superseded"] = "open"
    reason: str = ""
    kinds: dict[str, Holding] = {}
    sessions: dict[str, int] = {}
    instance: str = ""
    epoch: int = 0
    opened_ns: int = 0
    completed_ns: int = 0
    config: str = ""
    position: int = 0
    pruned_segments: int = 0
    pruned_bytes: int = 0
    holds: dict[str, str] = {}
    mapper: int = 0
    older: dict[str, Holding] = {}


def partitions_prefix(feed: str) -> str:
    """Prefix of a feed's `Partition`s, by date."""
    return row_key(_PARTITION, feed) + "/"


def partitions_of_date_prefix(feed: str, date: str) -> str:
    """Prefix of the `Partition`s of one date."""
    return row_key(_PARTITION, feed, date) + "/"


def _fold(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    envelope = recorded.envelope
    parts = id_parts(envelope)
    feed, date, type_, name = parts
    key = row_key(_PARTITION, *parts)
    partition = rows.get(key, Partition) or Partition(feed, date, type_, name, opened_ns=envelope.ts_ns)
    partition = _evolve(partition, event, envelope.ts_ns)
    rows.put(key, msgspec.structs.replace(partition, config=envelope.config, position=recorded.position))


def _evolve(partition: Partition, event: msgspec.Struct, ts_ns: int) -> Partition:
    replace = msgspec.structs.replace
    match event:
        case archive.Opened(epoch=epoch, instance=instance):
            return replace(partition, epoch=epoch, instance=instance)
        case archive.SegmentSealed():
            return _sealed(partition, event)
        case archive.Renormalized():
            return _renormalized(partition, event)
        case archive.Completed(reason=reason):
            return replace(partition, status="complete", reason=reason, completed_ns=ts_ns)
        case archive.Reopened(reason=reason):
            return replace(partition, status="open", reason=reason, completed_ns=0)
        case archive.Pruned():
            return _pruned(partition, event)
        case archive.Held(name=name, reason=reason):
            return replace(partition, holds=dict(sorted((partition.holds | {name: reason}).items())))
        case archive.HoldReleased(name=name):
            return replace(partition, holds={one: why for one, why in partition.holds.items() if one != name})
        case _:
            return partition


def _sealed(partition: Partition, event: archive.SegmentSealed) -> Partition:
    kinds = dict(partition.kinds)
    for file in event.files:
        kinds[file.kind] = with_file(kinds.get(file.kind, Holding()), file)
    reached = dict(partition.sessions)
    for session in event.sessions:
        name = str(session.session)
        reached[name] = max(reached.get(name, 0), session.last_n)
    return msgspec.structs.replace(
        partition,
        kinds=dict(sorted(kinds.items())),
        mapper=max([partition.mapper, *map(_mapper_of, event.files)]),
        sessions=dict(sorted(reached.items(), key=lambda item: int(item[0]))),
    )


def _mapper_of(file: archive.SegmentFile) -> int:
    try:
        return parse_segment(file.key).shelf.mapper
    except Malformed:
        return 0  # `ssmd data verify` tells it


def _renormalized(partition: Partition, event: archive.Renormalized) -> Partition:
    older = dict(partition.older)
    for kind, holding in partition.kinds.items():
        older[kind] = together(older.get(kind, Holding()), holding)
    kinds: dict[str, Holding] = {}
    for file in event.files:
        kinds[file.kind] = with_file(kinds.get(file.kind, Holding()), file)
    return msgspec.structs.replace(
        partition, kinds=dict(sorted(kinds.items())), older=dict(sorted(older.items())), mapper=event.mapper
    )


def _pruned(partition: Partition, event: archive.Pruned) -> Partition:
    """Its kinds stay listed, empty, once all of it is gone: nothing is there, and that is no hole."""
    segments = partition.pruned_segments + len(event.keys)
    after = msgspec.structs.replace(partition, pruned_segments=segments, pruned_bytes=partition.pruned_bytes + event.size_bytes)
    if segments < sum(holding.segments for holding in (*partition.kinds.values(), *partition.older.values())):
        return after
    return msgspec.structs.replace(
        after,
        status="pruned",
        reason=event.reason,
        kinds={
            kind: Holding(ts_recv_first_ns=holding.ts_recv_first_ns, ts_recv_last_ns=holding.ts_recv_last_ns)
            for kind, holding in partition.kinds.items()
        },
        older={},
    )


def with_file(holding: Holding, file: archive.SegmentFile) -> Holding:
    """`holding` and one more segment."""
    starts = [ns for ns in (holding.ts_recv_first_ns, file.ts_recv_first_ns) if ns]
    return Holding(
        segments=holding.segments + 1,
        records=holding.records + file.records,
        size_bytes=holding.size_bytes + file.size_bytes,
        content_bytes=holding.content_bytes + file.content_bytes,
        ts_recv_first_ns=min(starts, default=0),
        ts_recv_last_ns=max(holding.ts_recv_last_ns, file.ts_recv_last_ns),
    )


def together(one: Holding, other: Holding) -> Holding:
    """Both."""
    starts = [ns for ns in (one.ts_recv_first_ns, other.ts_recv_first_ns) if ns]
    return Holding(
        one.segments + other.segments,
        one.records + other.records,
        one.size_bytes + other.size_bytes,
        one.content_bytes + other.content_bytes,
        min(starts, default=0),
        max(one.ts_recv_last_ns, other.ts_recv_last_ns),
    )


INVENTORY: Final = Projection(NAME, 3, frozenset({archive.AGGREGATE}), _fold)
