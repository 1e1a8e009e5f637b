"""manifest.json as bytes: a pure rendering of a `manifests.Document` and the gaps of its date."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from ssmd.domain import archive
from ssmd.projections.gaps import GapRow
from ssmd.projections.inventory import Holding, with_file
from ssmd.projections.manifests import Document, Segment

FORMAT: Final = 1
"""Version of the manifest's layout; rises when a key changes its meaning."""


class ManifestGap(msgspec.Struct, frozen=True):
    """A gap as a manifest tells it. `end_ns` null = open; `tickers` empty = all of the channel (of the session)."""

    gap_id: str
    connection: str
    session: int
    cause: str
    evidence: str
    channel: str
    start_ns: int
    end_ns: int | None
    tickers: tuple[str, ...]


class Manifest(msgspec.Struct, frozen=True):
    """manifest.json. Times are UTC nanoseconds: `created_at` of the event, first and last as received.

    `quality_score`: of raw data, the worst connection's, decimal text from 0 to 1; null = not assessed yet.
    `schema_version`: "name:version" of the record definition, "" for raw.
    `journal_position`: of the last event that touched it.
    `record_count`, `byte_size`, first and last: of the segments that are this version's: not of those that the same mapper
    made anew. `mapper_versions`, `renormalized`: of raw data alone, as `manifests.Document` has them: what is current.
    """

    manifest_version: int
    feed: str
    date: str
    data_type: str
    kind: str
    schema_version: str
    mapper_version: int | None
    status: Literal["open", "complete"]
    record_count: int
    byte_size: int
    first_timestamp: int | None
    last_timestamp: int | None
    gaps: tuple[ManifestGap, ...]
    quality_score: str | None
    connector_version: str
    created_at: int
    partitions: dict[str, str]
    segments: tuple[Segment, ...]
    config_commit: str
    journal_position: int
    pruned_segments: int = 0
    mapper_versions: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET
    renormalized: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


_encoder: Final = msgspec.json.Encoder(order="sorted")


def render(document: Document, gaps: Iterable[GapRow]) -> bytes:
    """The manifest's bytes: JSON with sorted keys, indented, one newline at the end.

    Args:
        gaps: at least those that touch the document's date, in any order.
    """
    held, is_raw = Holding(), document.type == "raw"
    for segment in document.segments:
        if is_raw or segment.superseded_by != document.mapper:
            held = with_file(held, _file(document, segment))
    touching = sorted(
        (gap for gap in gaps if gap.touches(document.date)), key=lambda gap: (gap.start_ns, gap.connection, gap.gap_id)
    )
    manifest = Manifest(
        manifest_version=FORMAT,
        feed=document.feed,
        date=document.date,
        data_type=document.type,
        kind=document.kind,
        schema_version=document.schema,
        mapper_version=document.mapper or None,
        status="complete" if all(document.partitions.values()) else "open",
        record_count=held.records,
        byte_size=held.size_bytes,
        first_timestamp=held.ts_recv_first_ns or None,
        last_timestamp=held.ts_recv_last_ns or None,
        gaps=tuple(_manifest_gap(gap) for gap in touching),
        quality_score=_score(document),
        connector_version=", ".join(sorted({version for version in document.connector_versions.values() if version})),
        created_at=document.created_ns,
        partitions={name: "complete" if done else "open" for name, done in document.partitions.items()},
        segments=tuple(
            sorted(document.segments, key=lambda one: (one.partition, one.ts_recv_first_ns, one.incarnation, one.first_seq))
        ),
        config_commit=document.config,
        journal_position=document.position,
        pruned_segments=document.pruned_segments,
        mapper_versions=document.mappers if is_raw else msgspec.UNSET,
        renormalized=document.renormalized if is_raw else msgspec.UNSET,
    )
    return msgspec.json.format(_encoder.encode(manifest), indent=2) + b"\n"


def _score(document: Document) -> str | None:
    if not document.quality:
        return None
    worst = min(document.quality.values())
    return f"{worst // 1_000_000}.{worst % 1_000_000:06}"


def _file(document: Document, segment: Segment) -> archive.SegmentFile:
    return archive.SegmentFile(
        segment.name,
        document.kind,
        segment.byte_size,
        segment.sha256,
        segment.content_bytes,
        segment.content_sha256,
        segment.record_count,
        segment.ts_recv_first_ns,
        segment.ts_recv_last_ns,
    )


def _manifest_gap(gap: GapRow) -> ManifestGap:
    return ManifestGap(
        gap_id=gap.gap_id,
        connection=gap.connection,
        session=gap.session,
        cause=gap.cause,
        evidence=gap.evidence,
        channel=gap.channel,
        start_ns=gap.start_ns,
        end_ns=gap.end_ns or None,
        tickers=() if gap.is_whole else tuple(sorted(gap.tickers)),
    )
