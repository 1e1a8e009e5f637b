"""View `quality`: what each day's data is worth, and how it is known.

partition/{feed}/{date}/{type}/{partition}   -> PartitionQuality   checks of stored objects, latest assessment
interval/... and set/...: `projections.intervals`
"""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.domain import archive, capture
from ssmd.projections.intervals import fold_interval
from ssmd.projections.projection import Projection, Rows, id_parts, row_key, row_prefix
from ssmd.streams.journal import RecordedEvent

NAME: Final = "quality"
_PARTITION: Final = "partition"


class PartitionQuality(msgspec.Struct, frozen=True):
    """One partition's stored objects. Times are those of the events, 0 = never.

    Attributes:
        verified_ns: when every object was last found to be as sealed; 0 again once one is damaged.
        damaged: key -> what is wrong, of those not repaired.
        score_ppm: of the latest assessment in millionths, None = it was never assessed; `rules`: their version.
    """

    feed: str
    date: str
    type: str
    partition: str
    verified_ns: int = 0
    objects: int = 0
    damaged: dict[str, str] = {}
    repaired: int = 0
    pruned: int = 0
    mapper: int = 0
    stream_troubles: int = 0
    score_ppm: int | None = None
    rules: int = 0
    reasons: tuple[str, ...] = ()
    assessed_ns: int = 0
    position: int = 0


def partitions_prefix(feed: str, date: str) -> str:
    """Prefix of a date's `PartitionQuality` rows."""
    return row_prefix(_PARTITION, feed, date)


def all_partitions_prefix(feed: str) -> str:
    """Rows of `PartitionQuality` of a feed, all dates."""
    return row_prefix(_PARTITION, feed)


def _fold(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    if isinstance(event, capture.IntervalAssessed):
        fold_interval(rows, recorded, event)
    elif recorded.envelope.aggregate == archive.AGGREGATE:
        feed, date, type_, partition = id_parts(recorded.envelope)
        key = row_key(_PARTITION, feed, date, type_, partition)
        before = rows.get(key, PartitionQuality) or PartitionQuality(feed, date, type_, partition)
        after = _evolve(before, event, recorded.envelope.ts_ns)
        if after is not None:
            rows.put(key, msgspec.structs.replace(after, position=recorded.position))


def _evolve(row: PartitionQuality, event: msgspec.Struct, ts_ns: int) -> PartitionQuality | None:
    """The row after an event that says something of quality; None for others."""
    replace = msgspec.structs.replace
    match event:
        case archive.Verified(objects=objects):
            return replace(row, verified_ns=ts_ns, objects=objects)
        case archive.Damaged(key=key, problem=problem):
            return replace(row, verified_ns=0, damaged=dict(sorted((row.damaged | {key: problem}).items())))
        case archive.Repaired(key=key):
            damaged = {name: problem for name, problem in row.damaged.items() if name != key}
            return replace(row, damaged=damaged, repaired=row.repaired + 1)
        case archive.Pruned(keys=keys):
            damaged = {name: problem for name, problem in row.damaged.items() if name not in keys}
            return replace(row, damaged=damaged, pruned=row.pruned + len(keys))
        case archive.Renormalized(mapper=mapper):
            return replace(row, mapper=mapper)
        case archive.StreamRegressed() | archive.StreamTruncated():
            return replace(row, stream_troubles=row.stream_troubles + 1)
        case archive.QualityAssessed(score_ppm=score_ppm, rules=rules, reasons=reasons):
            return replace(row, score_ppm=score_ppm, rules=rules, reasons=reasons, assessed_ns=ts_ns)
        case _:
            return None


QUALITY: Final = Projection(NAME, 3, frozenset({capture.AGGREGATE, archive.AGGREGATE}), _fold)
