"""View `manifests`: for every directory of the archive, the manifest that lies beside its segments.

    document/{object key}                    -> Document    all of the manifest but its gaps
    shelf/{feed}/{date}                      -> Shelf       which documents a date has, and how its partitions stand
    dates/{feed}                             -> Dates       the dates that have documents
    version/{feed}/{connection}              -> Version     the connector's latest version
    day/..., span/...                        -> GapRow      as in view `gaps`

A document's position is that of the last event that touched anything its manifest shows, its times are event times and
receive times: the same journal renders the same bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final

import msgspec

from ssmd.archive.keys import parse_segment
from ssmd.domain import archive, capture
from ssmd.projections.gaps import fold_gap
from ssmd.projections.projection import Projection, Rows, id_parts, row_key, row_prefix, utc_date
from ssmd.streams.journal import RecordedEvent

NAME: Final = "manifests"
_DOCUMENT: Final = "document"
SHELF: Final = "shelf"
DATES: Final = "dates"
_VERSION: Final = "version"
DOCUMENTS_PREFIX: Final = row_prefix(_DOCUMENT)


class Segment(msgspec.Struct, frozen=True, gc=False):
    """One object of the directory, and where it comes from in the stream. Fields as in `archive.SegmentFile`."""

    name: str
    partition: str
    incarnation: str
    first_seq: int
    last_seq: int
    record_count: int
    byte_size: int
    sha256: str
    content_bytes: int
    content_sha256: str
    ts_recv_first_ns: int
    ts_recv_last_ns: int


class Document(msgspec.Struct, frozen=True):
    """A manifest but for its gaps.

    Attributes:
        key: the manifest's object key.
        type: raw | normalized; kind: as in the files' seal.
        schema: definition of the records ("market:1"), mapper: version that made them; "" and 0 for raw.
        partitions: connection -> is its day complete; connector_versions: connection -> version, "" = not known.
        created_ns: time of the seal that put the first segment here.
        quality: connection -> score of its latest assessment in millionths; raw only.
    """

    key: str
    feed: str
    date: str
    type: str
    kind: str
    schema: str
    mapper: int
    partitions: dict[str, bool]
    connector_versions: dict[str, str]
    created_ns: int
    segments: tuple[Segment, ...] = ()
    config: str = ""
    position: int = 0
    pruned_segments: int = 0
    quality: dict[str, int] = {}


class Shelf(msgspec.Struct, frozen=True):
    """A date's documents (key -> type), and by type its partitions (connection -> is complete)."""

    documents: dict[str, str] = {}
    partitions: dict[str, dict[str, bool]] = {}


class Dates(msgspec.Struct, frozen=True):
    """Dates with documents, rising."""

    dates: tuple[str, ...] = ()


class Version(msgspec.Struct, frozen=True):
    """ssmd's version in the connector that last connected."""

    version: str


def document_key(object_key: str) -> str:
    """Row key of the `Document` of the manifest at `object_key`."""
    return row_key(_DOCUMENT, object_key)


def is_document_key(key: str) -> bool:
    """Whether the row at `key` is a `Document`."""
    return key.startswith(DOCUMENTS_PREFIX)


def _fold(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    if isinstance(event, capture.CaptureEvent):
        _fold_capture(rows, recorded, event)
    else:
        _fold_archive(rows, recorded, event)


def _fold_capture(rows: Rows, recorded: RecordedEvent, event: capture.CaptureEvent) -> None:
    feed, connection = id_parts(recorded.envelope)
    if isinstance(event, capture.Connected):
        rows.put(row_key(_VERSION, feed, connection), Version(event.version))
        _name_version(rows, recorded, feed, connection, utc_date(event.ts_recv_ns), event.version)
        return
    before, after = fold_gap(rows, recorded, event)
    if after is None:
        return
    dates = rows.get(row_key(DATES, feed), Dates) or Dates()
    first = utc_date(after.start_ns)
    last = "" if after.is_open or before is None or before.is_open else utc_date(max(before.end_ns, after.end_ns))
    until = len(dates.dates) if not last else bisect_right(dates.dates, last)
    # All dates the gap touches or touched before: while it is open, every later date shows it.
    for date in dates.dates[bisect_left(dates.dates, first) : until]:
        shelf = rows.get(row_key(SHELF, feed, date), Shelf) or Shelf()
        _touch(rows, recorded, shelf.documents)


def _name_version(rows: Rows, recorded: RecordedEvent, feed: str, connection: str, date: str, version: str) -> None:
    """Tell documents sealed before the connection's first event was journaled which version made them."""
    shelf = rows.get(row_key(SHELF, feed, date), Shelf) or Shelf()
    for key in shelf.documents:
        document = rows.get(document_key(key), Document)
        if document is not None and document.connector_versions.get(connection) == "":
            versions = document.connector_versions | {connection: version}
            rows.put(
                document_key(key),
                msgspec.structs.replace(document, connector_versions=versions, position=recorded.position),
            )


def _fold_archive(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    feed, date, type_, partition = id_parts(recorded.envelope)
    shelf_key = row_key(SHELF, feed, date)
    shelf = rows.get(shelf_key, Shelf) or Shelf()
    if isinstance(event, archive.SegmentSealed):
        touched: set[str] = set()
        for file in event.files:
            shelf_of_file = parse_segment(file.key).shelf
            key = shelf_of_file.manifest_key
            document = rows.get(document_key(key), Document) or Document(
                key=key,
                feed=feed,
                date=date,
                type=type_,
                kind=file.kind,
                schema=shelf_of_file.schema,
                mapper=shelf_of_file.mapper,
                partitions={},
                connector_versions={},
                created_ns=recorded.envelope.ts_ns,
            )
            rows.put(document_key(key), _with_segment(rows, document, partition, event, file))
            touched.add(key)
        missing = touched - shelf.documents.keys()
        if missing:
            shelf = Shelf(dict(sorted((shelf.documents | dict.fromkeys(missing, type_)).items())), shelf.partitions)
            _remember_date(rows, feed, date)
    else:
        touched = _fold_care(rows, shelf, event, type_, partition)
    standing = _standing(event)
    partitions = shelf.partitions.get(type_, {})
    if partition not in partitions or (standing is not None and partitions[partition] != standing):
        partitions = dict(sorted((partitions | {partition: bool(standing)}).items()))
        shelf = Shelf(shelf.documents, shelf.partitions | {type_: partitions})
        touched = {key for key, of_type in shelf.documents.items() if of_type == type_}
    rows.put(shelf_key, shelf)
    _touch(rows, recorded, touched, partitions)


def _fold_care(rows: Rows, shelf: Shelf, event: msgspec.Struct, type_: str, partition: str) -> set[str]:
    """What happened to stored segments: the manifests it changes, by key."""
    match event:
        case archive.Pruned(keys=keys):
            return _without(rows, keys)
        case archive.Repaired(key=key, file=file) if file is not None:
            return _replaced(rows, key, file)
        case archive.QualityAssessed(score_ppm=score_ppm):
            touched = {key for key, of_type in shelf.documents.items() if of_type == type_}
            for key in touched:
                document = rows.get(document_key(key), Document)
                if document is not None:
                    quality = dict(sorted((document.quality | {partition: score_ppm}).items()))
                    rows.put(document_key(key), msgspec.structs.replace(document, quality=quality))
            return touched
        case _:
            return set()


def _without(rows: Rows, keys: Iterable[str]) -> set[str]:
    by_manifest: dict[str, set[str]] = {}
    for key in keys:
        by_manifest.setdefault(parse_segment(key).shelf.manifest_key, set()).add(key.rpartition("/")[2])
    for key, names in by_manifest.items():
        document = rows.get(document_key(key), Document)
        if document is not None:
            left = tuple(one for one in document.segments if one.name not in names)
            gone = document.pruned_segments + len(document.segments) - len(left)
            rows.put(document_key(key), msgspec.structs.replace(document, segments=left, pruned_segments=gone))
    return set(by_manifest)


def _replaced(rows: Rows, key: str, file: archive.SegmentFile) -> set[str]:
    manifest_key, name = parse_segment(key).shelf.manifest_key, key.rpartition("/")[2]
    document = rows.get(document_key(manifest_key), Document)
    if document is None:
        return set()
    segments = tuple(_renewed(one, file) if one.name == name else one for one in document.segments)
    rows.put(document_key(manifest_key), msgspec.structs.replace(document, segments=segments))
    return {manifest_key}


def _renewed(segment: Segment, file: archive.SegmentFile) -> Segment:
    return msgspec.structs.replace(
        segment,
        name=file.key.rpartition("/")[2],
        record_count=file.records,
        byte_size=file.size_bytes,
        sha256=file.sha256,
        content_bytes=file.content_bytes,
        content_sha256=file.content_sha256,
        ts_recv_first_ns=file.ts_recv_first_ns,
        ts_recv_last_ns=file.ts_recv_last_ns,
    )


def _standing(event: msgspec.Struct) -> bool | None:
    """Whether the event says that its partition is complete; None = it says nothing of that."""
    match event:
        case archive.Completed():
            return True
        case archive.Reopened():
            return False
        case _:
            return None


def _with_segment(
    rows: Rows, document: Document, partition: str, sealed: archive.SegmentSealed, file: archive.SegmentFile
) -> Document:
    version = rows.get(row_key(_VERSION, document.feed, partition), Version)
    segment = Segment(
        name=file.key.rpartition("/")[2],
        partition=partition,
        incarnation=sealed.incarnation,
        first_seq=sealed.first_seq,
        last_seq=sealed.last_seq,
        record_count=file.records,
        byte_size=file.size_bytes,
        sha256=file.sha256,
        content_bytes=file.content_bytes,
        content_sha256=file.content_sha256,
        ts_recv_first_ns=file.ts_recv_first_ns,
        ts_recv_last_ns=file.ts_recv_last_ns,
    )
    versions = document.connector_versions | {partition: "" if version is None else version.version}
    return msgspec.structs.replace(
        document, segments=(*document.segments, segment), connector_versions=dict(sorted(versions.items()))
    )


def _remember_date(rows: Rows, feed: str, date: str) -> None:
    key = row_key(DATES, feed)
    dates = rows.get(key, Dates) or Dates()
    if date not in dates.dates:
        rows.put(key, Dates(tuple(sorted((*dates.dates, date)))))


def _touch(rows: Rows, recorded: RecordedEvent, keys: Iterable[str], partitions: dict[str, bool] | None = None) -> None:
    """Put the event's position, config and (if given) its day's partitions on documents."""
    for key in keys:
        document = rows.get(document_key(key), Document)
        if document is not None:
            rows.put(
                document_key(key),
                msgspec.structs.replace(
                    document,
                    partitions=document.partitions if partitions is None else partitions,
                    config=recorded.envelope.config or document.config,
                    position=recorded.position,
                ),
            )


MANIFESTS: Final = Projection(NAME, 2, frozenset({capture.AGGREGATE, archive.AGGREGATE}), _fold)
