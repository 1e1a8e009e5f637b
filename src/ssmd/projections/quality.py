"""View `quality`: what each day's data is worth, and how it is known.

partition/{feed}/{date}/{type}/{partition}   -> PartitionQuality   checks of stored objects, latest assessment
coverage/{feed}/{date}/{ticker}              -> Coverage           assessed intervals, expanded from ticker sets
set/{feed}/{connection}/{ticker set}         -> TickerSet          whom a digest stands for
"""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.domain import archive, capture
from ssmd.projections.projection import Projection, Rows, id_parts, row_key, row_prefix, utc_date
from ssmd.streams.journal import RecordedEvent

NAME: Final = "quality"
_PARTITION: Final = "partition"
_COVERAGE: Final = "coverage"
_SET: Final = "set"
_DAY_NS: Final = 86_400 * 1_000_000_000
_DAYS_MAX: Final = 4000
"""An interval longer than this is a mistake of its clock; only so many of its days are counted."""


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


class Coverage(msgspec.Struct, frozen=True, gc=False):
    """How much of a UTC date is known of one ticker: sums over its subscriptions' intervals, by verdict."""

    feed: str
    date: str
    ticker: str
    verified_ns: int = 0
    unverifiable_ns: int = 0
    missing_ns: int = 0
    repaired_ns: int = 0
    intervals: int = 0
    position: int = 0


class TickerSet(msgspec.Struct, frozen=True):
    """The tickers a digest stands for."""

    tickers: tuple[str, ...]


def partitions_prefix(feed: str, date: str) -> str:
    """Prefix of a date's `PartitionQuality` rows."""
    return row_prefix(_PARTITION, feed, date)


def all_partitions_prefix(feed: str) -> str:
    """Rows of `PartitionQuality` of a feed, all dates."""
    return row_prefix(_PARTITION, feed)


def coverage_prefix(feed: str, date: str) -> str:
    """Prefix of a date's `Coverage` rows, by ticker."""
    return row_prefix(_COVERAGE, feed, date)


def _fold(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    if isinstance(event, capture.IntervalAssessed):
        _fold_interval(rows, recorded, event)
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


def _fold_interval(rows: Rows, recorded: RecordedEvent, event: capture.IntervalAssessed) -> None:
    feed, connection = id_parts(recorded.envelope)
    tickers = event.tickers
    if event.ticker_set:
        set_key = row_key(_SET, feed, connection, event.ticker_set)
        if tickers:
            rows.put(set_key, TickerSet(tickers))
        else:
            known = rows.get(set_key, TickerSet)
            if known is None:
                raise ValueError(f"ticker set {event.ticker_set} of {feed}.{connection} was never named")
            tickers = known.tickers
    for date, span_ns in _spans(event.start_ns, event.end_ns):
        for ticker in tickers:
            key = row_key(_COVERAGE, feed, date, ticker)
            row = rows.get(key, Coverage) or Coverage(feed, date, ticker)
            name = f"{event.verdict}_ns"
            sums = {name: getattr(row, name) + span_ns}
            rows.put(key, msgspec.structs.replace(row, **sums, intervals=row.intervals + 1, position=recorded.position))


def _spans(start_ns: int, end_ns: int) -> list[tuple[str, int]]:
    """(UTC date, nanoseconds) of the interval, date by date."""
    spans: list[tuple[str, int]] = []
    while start_ns < end_ns and len(spans) < _DAYS_MAX:
        until = min(end_ns, (start_ns // _DAY_NS + 1) * _DAY_NS)
        spans.append((utc_date(start_ns), until - start_ns))
        start_ns = until
    return spans


QUALITY: Final = Projection(NAME, 2, frozenset({capture.AGGREGATE, archive.AGGREGATE}), _fold)
