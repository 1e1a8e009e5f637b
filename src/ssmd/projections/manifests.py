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

from ssmd.archive.keys import parse_manifest, parse_segment
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


class Segment(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One object of the directory, and where it comes from in the stream. Fields as in `archive.SegmentFile`.

    Where records were made anew (`archive.Renormalized`): `made_at` is the journal position of the event that put this
    object there; `superseded_at`, `superseded_by` that of the event that put others in its place, and their mapper. 0 = none.
    """

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
    made_at: int = 0
    superseded_at: int = 0
    superseded_by: int = 0


class Document(msgspec.Struct, frozen=True):
    """A manifest but for its gaps.

    Attributes:
        key: the manifest's object key.
        type: raw | normalized; kind: as in the files' seal.
        schema: definition of the records ("market:1"), mapper: version that made them; "" and 0 for raw.
        partitions: connection -> is its day complete; connector_versions: connection -> version, "" = not known.
        created_ns: time of the seal that put the first segment here.
        quality: connection -> score of its latest assessment in millionths; raw only.
        mappers: versions of the mapper that made records of the date; renormalized: connection -> journal position of the
            latest `archive.Renormalized`; both raw only: one manifest says what is current of all kinds.
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
    mappers: tuple[int, ...] = ()
    renormalized: dict[str, int] = {}


class Shelf(msgspec.Struct, frozen=True):
    """A date's documents (key -> type), and by type its partitions (connection -> is complete).

    `mappers`, `renormalized`: as the raw `Document` has them.
    """

    documents: dict[str, str] = {}
    partitions: dict[str, dict[str, bool]] = {}
    mappers: tuple[int, ...] = ()
    renormalized: dict[str, int] = {}


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
    replace = msgspec.structs.replace
    shelf_key = row_key(SHELF, feed, date)
    shelf = rows.get(shelf_key, Shelf) or Shelf()
    if isinstance(event, archive.SegmentSealed):
        touched = _sealed(rows, recorded, event)
    elif isinstance(event, archive.Renormalized):
        touched = _renormalized(rows, recorded, event, shelf)
        shelf = replace(shelf, renormalized=dict(sorted((shelf.renormalized | {partition: recorded.position}).items())))
    else:
        touched = _fold_care(rows, shelf, event, type_, partition)
    missing = touched - shelf.documents.keys()
    if missing:
        shelf = replace(shelf, documents=dict(sorted((shelf.documents | dict.fromkeys(missing, type_)).items())))
        _remember_date(rows, feed, date)
    shelf = replace(shelf, mappers=_mappers(shelf.mappers, touched))
    standing = _standing(event)
    partitions = shelf.partitions.get(type_, {})
    if partition not in partitions or (standing is not None and partitions[partition] != standing):
        partitions = dict(sorted((partitions | {partition: bool(standing)}).items()))
        shelf = replace(shelf, partitions=shelf.partitions | {type_: partitions})
        touched = {key for key, of_type in shelf.documents.items() if of_type == type_}
    rows.put(shelf_key, shelf)
    _touch(rows, recorded, touched, partitions)
    _tell_versions(rows, recorded, shelf)


def _mappers(known: tuple[int, ...], manifest_keys: Iterable[str]) -> tuple[int, ...]:
    return tuple(sorted({*known, *(parse_manifest(key).mapper for key in manifest_keys)} - {0}))


def _tell_versions(rows: Rows, recorded: RecordedEvent, shelf: Shelf) -> None:
    """Which versions of records there are, and which are current, on the manifest of the raw lines."""
    for key in (key for key, of_type in shelf.documents.items() if of_type == "raw"):
        document = rows.get(document_key(key), Document)
        if document is not None and (document.mappers, document.renormalized) != (shelf.mappers, shelf.renormalized):
            told = msgspec.structs.replace(document, mappers=shelf.mappers, renormalized=shelf.renormalized)
            rows.put(document_key(key), told)
            _touch(rows, recorded, [key])


def _sealed(rows: Rows, recorded: RecordedEvent, event: archive.SegmentSealed) -> set[str]:
    partition = id_parts(recorded.envelope)[3]
    touched: set[str] = set()
    for file in event.files:
        document = _document_of(rows, recorded, file)
        place = event.incarnation, event.first_seq, event.last_seq
        rows.put(document_key(document.key), _with_segment(rows, document, _segment(partition, place, file)))
        touched.add(document.key)
    return touched


def _renormalized(rows: Rows, recorded: RecordedEvent, event: archive.Renormalized, shelf: Shelf) -> set[str]:
    """Others take the place of all segments of the partition; of each the first event that did so is told."""
    partition = id_parts(recorded.envelope)[3]
    fresh = {file.key for file in event.files}
    touched: set[str] = set()
    for key in (key for key, of_type in shelf.documents.items() if of_type != "raw"):
        document = rows.get(document_key(key), Document)
        if document is None or all(one.partition != partition for one in document.segments):
            continue
        kept = (one for one in document.segments if key.removesuffix("manifest.json") + one.name not in fresh)
        segments = tuple(
            msgspec.structs.replace(one, superseded_at=recorded.position, superseded_by=event.mapper)
            if one.partition == partition and not one.superseded_at
            else one
            for one in kept
        )
        rows.put(document_key(key), msgspec.structs.replace(document, segments=segments))
        touched.add(key)
    for file in event.files:
        document = _document_of(rows, recorded, file)
        name = parse_segment(file.key)
        segment = _segment(partition, (name.incarnation, name.first_seq, name.last_seq), file, made_at=recorded.position)
        rows.put(document_key(document.key), _with_segment(rows, document, segment))
        touched.add(document.key)
    return touched


def _document_of(rows: Rows, recorded: RecordedEvent, file: archive.SegmentFile) -> Document:
    shelf = parse_segment(file.key).shelf
    feed, date, type_, _ = id_parts(recorded.envelope)
    key = shelf.manifest_key
    return rows.get(document_key(key), Document) or Document(
        key=key,
        feed=feed,
        date=date,
        type=type_,
        kind=file.kind,
        schema=shelf.schema,
        mapper=shelf.mapper,
        partitions={},
        connector_versions={},
        created_ns=recorded.envelope.ts_ns,
    )


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


def _segment(partition: str, place: tuple[str, int, int], file: archive.SegmentFile, *, made_at: int = 0) -> Segment:
    """`place`: incarnation, first and last sequence."""
    incarnation, first_seq, last_seq = place
    return Segment(
        name=file.key.rpartition("/")[2],
        partition=partition,
        incarnation=incarnation,
        first_seq=first_seq,
        last_seq=last_seq,
        record_count=file.records,
        byte_size=file.size_bytes,
        sha256=file.sha256,
        content_bytes=file.content_bytes,
        content_sha256=file.content_sha256,
        ts_recv_first_ns=file.ts_recv_first_ns,
        ts_recv_last_ns=file.ts_recv_last_ns,
        made_at=made_at,
    )


def _with_segment(rows: Rows, document: Document, segment: Segment) -> Document:
    version = rows.get(row_key(_VERSION, document.feed, segment.partition), Version)
    versions = document.connector_versions | {segment.partition: "" if version is None else version.version}
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


MANIFESTS: Final = Projection(NAME, 3, frozenset({capture.AGGREGATE, archive.AGGREGATE}), _fold)
