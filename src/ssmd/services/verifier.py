"""Whether every archived object is there and is what was sealed: storage beside journal beside manifests.

The journal says what should be stored (seals and renormalizations, without what was pruned); every such object is read
and hashed. Manifests are held against the same list. What stands in the archive's directories and is in no seal is told
too, once the journal has been asked again: an archiver uploads before it seals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from ssmd.archive.keys import Shelf, parse_manifest, parse_segment
from ssmd.archive.segment_index import build, segment_key_of
from ssmd.archive.shelf_manifest import ShelfManifest, decode_manifest
from ssmd.archive.storage import Storage
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Malformed, Rejected, Unavailable
from ssmd.identifiers import encode_token
from ssmd.streams.journal import Journal, PoisonEvent

Problem = Literal[
    "missing",  # sealed, and not there
    "truncated",  # shorter than sealed
    "longer",  # longer than sealed
    "flipped",  # as long as sealed, with other bytes
    "swapped",  # the bytes of another sealed object
    "extra",  # there, and never sealed
    "pruned-but-there",  # deleted by the journal's word, and still there
    "manifest-missing",
    "manifest-differs",
    "sidecar-differs",
    "unreadable",  # the storage or the journal could not tell
]
_UNTOLD: Final = frozenset({"unreadable"})
_TYPES: Final = ("raw", "normalized")


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be. Hashes are "" where there is none."""

    key: str
    problem: Problem
    detail: str
    expected_sha256: str = ""
    found_sha256: str = ""


class Verification(msgspec.Struct, frozen=True):
    """What a check came to. `findings` by key; `position`: the journal's, up to which seals were considered."""

    objects: int
    size_bytes: int
    manifests: int
    position: int
    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        return not self.findings

    @property
    def is_certain(self) -> bool:
        """False = something could not be told, so that clean or damaged is not the whole answer."""
        return not any(finding.problem in _UNTOLD for finding in self.findings)


class Scope(msgspec.Struct, frozen=True):
    """What is looked at. `date` "" = all dates."""

    env: str
    feed: str
    date: str = ""

    def prefixes(self) -> list[str]:
        """Beginnings of all keys in scope (and of some that are not)."""
        env, feed = encode_token(self.env), encode_token(self.feed)
        if self.date:
            return [Shelf("raw", self.env, self.feed, self.date).prefix, f"normalized/{env}/{feed}/"]
        return [f"{data_type}/{env}/{feed}/" for data_type in _TYPES]

    def has(self, shelf: Shelf) -> bool:
        return (shelf.env, shelf.feed) == (self.env, self.feed) and self.date in {"", shelf.date}


class _Sealed:
    """What the journal says of the scope's objects."""

    def __init__(self) -> None:
        self.position = 0
        self.files: dict[str, archive.SegmentFile] = {}
        self.pruned: set[str] = set()
        self.replaced: set[str] = set()
        self.superseded: dict[str, int] = {}
        self._partitions: dict[tuple[str, ...], set[str]] = {}
        self.findings: list[Finding] = []

    async def read(self, journal: Journal, scope: Scope) -> None:
        """Take in what is new."""
        async for batch in journal.replay(after=self.position, filters=[archive.AGGREGATE]):
            for recorded in batch:
                self.position = recorded.position
                if isinstance(recorded, PoisonEvent):
                    self.findings.append(Finding(recorded.subject, "unreadable", f"journal: {recorded.reason}"))
                    continue
                feed, date = recorded.envelope.aggregate_key.parts[:2]
                if feed != scope.feed or scope.date not in {"", date}:
                    continue
                try:
                    event = CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data)
                except Malformed as error:
                    place = f"journal position {recorded.position}"
                    self.findings.append(Finding(place, "unreadable", error.message))
                    continue
                self._apply(recorded.envelope.aggregate_key.parts, event)

    def _apply(self, parts: tuple[str, ...], event: object) -> None:
        of_partition = self._partitions.setdefault(parts, set())
        if isinstance(event, archive.Renormalized):
            for key in of_partition:
                self.superseded.setdefault(key, event.mapper)
        if isinstance(event, archive.SegmentSealed | archive.Renormalized):
            for file in event.files:
                self.files[file.key] = file
                self.pruned.discard(file.key)
                self.superseded.pop(file.key, None)
                of_partition.add(file.key)
        elif isinstance(event, archive.Repaired) and event.file is not None:
            # The damaged object may stay where it is: nobody reads it any more.
            if self.files.pop(event.key, None) is not None:
                self.replaced.add(event.key)
            self.files[event.file.key] = event.file
            of_partition.add(event.file.key)
            if event.key in self.superseded:
                self.superseded[event.file.key] = self.superseded.pop(event.key)
        elif isinstance(event, archive.Pruned):
            for key in event.keys:
                self.files.pop(key, None)
                self.pruned.add(key)


async def verify(
    storage: Storage, journal: Journal, scope: Scope, progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Read and hash everything in `scope`; see the module.

    Args:
        progress: told (objects read, objects to read).

    Raises:
        Unavailable: the journal, or the storage as a whole, is away.
    """
    stored = await _stored(storage, scope)
    sealed = _Sealed()
    await sealed.read(journal, scope)
    findings: list[Finding] = []
    by_hash = {file.sha256: file.key for file in sealed.files.values()}
    size_bytes = 0
    for number, key in enumerate(sorted(sealed.files), 1):
        file = sealed.files[key]
        finding = await _check_object(storage, file, by_hash)
        if finding is not None:
            findings.append(finding)
        size_bytes += file.size_bytes
        if progress is not None:
            progress(number, len(sealed.files))
    manifests = await _check_manifests(storage, scope, sealed, stored, findings)
    await sealed.read(journal, scope)
    known = sealed.files.keys() | sealed.replaced
    for key in (key for key in stored if not key.endswith("/manifest.json") and key not in known):
        finding = await _check_sidecar(storage, key, sealed) if segment_key_of(key) in known else _stranger(key, sealed)
        findings += [finding] if finding else []
    findings += sealed.findings
    findings.sort(key=lambda finding: (finding.key, finding.problem))
    return Verification(len(sealed.files), size_bytes, manifests, sealed.position, tuple(findings))


def _stranger(key: str, sealed: _Sealed) -> Finding:
    if (segment_key_of(key) or key) in sealed.pruned:
        return Finding(key, "pruned-but-there", "the journal says that it was deleted")
    return Finding(key, "extra", "no seal names it")


async def _stored(storage: Storage, scope: Scope) -> list[str]:
    """Keys of the scope's segments and manifests, and of what has no business there."""
    found = []
    for prefix in scope.prefixes():
        async for key in storage.list(prefix):
            try:
                is_manifest = key.endswith("/manifest.json")
                shelf = parse_manifest(key) if is_manifest else parse_segment(segment_key_of(key) or key).shelf
            except Malformed:
                if not scope.date or f"/{scope.date.replace('-', '/')}/" in key:
                    found.append(key)
                continue
            if scope.has(shelf):
                found.append(key)
    return found


async def _check_object(storage: Storage, file: archive.SegmentFile, by_hash: dict[str, str]) -> Finding | None:
    state, size = hashlib.sha256(), 0
    try:
        async for piece in storage.read(file.key):
            state.update(piece)
            size += len(piece)
    except Rejected as error:
        if error.rule != "no-such-object":
            return Finding(file.key, "unreadable", error.message, file.sha256)
        return Finding(file.key, "missing", f"{file.size_bytes} bytes were sealed", file.sha256)
    except Unavailable as error:
        return Finding(file.key, "unreadable", error.message, file.sha256)
    found = state.hexdigest()
    if (found, size) == (file.sha256, file.size_bytes):
        return None
    if found in by_hash and found != file.sha256:
        return Finding(file.key, "swapped", f"holds the bytes of {by_hash[found]}", file.sha256, found)
    problem: Problem = "flipped"
    if size != file.size_bytes:
        problem = "truncated" if size < file.size_bytes else "longer"
    return Finding(file.key, problem, f"{size} bytes, {file.size_bytes} were sealed", file.sha256, found)


async def _check_sidecar(storage: Storage, key: str, sealed: _Sealed) -> Finding | None:
    """Whether a sidecar is the one its sealed segment gives. One that is absent is no damage: reading is slower."""
    file = sealed.files.get(segment_key_of(key))
    if file is None:
        return None  # of a segment that was replaced: nobody reads either
    found, data = await storage.get(key), await storage.get(file.key)
    if found is None or data is None or _sha256(data) != file.sha256:
        return None  # a damaged segment is told of itself
    wanted = build(file.kind, file.sha256, [data])
    if found == wanted:
        return None
    detail = f"not what {file.key} gives: delete it, and reading is slower; ssmd data index makes it again"
    return Finding(key, "sidecar-differs", detail, _sha256(wanted or b""), _sha256(found))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def _check_manifests(
    storage: Storage, scope: Scope, sealed: _Sealed, stored: Iterable[str], findings: list[Finding]
) -> int:
    """Hold every manifest against the seals; how many there should be."""
    wanted: dict[str, dict[str, archive.SegmentFile]] = {}
    for file in sealed.files.values():
        try:
            shelf = parse_segment(file.key).shelf
        except Malformed as error:
            findings.append(Finding(file.key, "unreadable", f"sealed under no segment's key: {error.message}", file.sha256))
            continue
        wanted.setdefault(shelf.manifest_key, {})[file.key] = file
    for key in (key for key in stored if key.endswith("/manifest.json")):
        wanted.setdefault(key, {})
    for key, of_shelf in sorted(wanted.items()):
        data = await storage.get(key)
        if data is None:
            findings.append(Finding(key, "manifest-missing", f"{len(of_shelf)} segments are sealed there"))
            continue
        try:
            manifest = decode_manifest(data, key)
        except Malformed as error:
            findings.append(Finding(key, "manifest-differs", error.message))
            continue
        detail = _difference(manifest, key.removesuffix("manifest.json"), of_shelf, sealed.superseded)
        if not detail and manifest.feed != scope.feed:
            detail = f"it is of feed {manifest.feed}"
        if detail:
            findings.append(Finding(key, "manifest-differs", detail))
    return len(wanted)


def _difference(manifest: ShelfManifest, prefix: str, files: dict[str, archive.SegmentFile], superseded: dict[str, int]) -> str:
    """What a manifest says otherwise than the seals, "" = nothing. `superseded`: keys, and the mapper of what came instead."""
    named = {prefix + segment.name: segment for segment in manifest.segments}
    absent, foreign = sorted(files.keys() - named.keys()), sorted(named.keys() - files.keys())
    if absent:
        return f"{len(absent)} sealed segments are not in it, {absent[0]} is one"
    if foreign:
        return f"{len(foreign)} segments in it were never sealed, {foreign[0]} is one"
    for key, segment in named.items():
        file = files[key]
        told = (segment.byte_size, segment.sha256, segment.content_bytes, segment.content_sha256, segment.record_count)
        is_told = told == (file.size_bytes, file.sha256, file.content_bytes, file.content_sha256, file.records)
        if not is_told or segment.superseded_by != superseded.get(key, 0):
            return f"of {key} it says {told}, sealed was otherwise"
    own = [file for key, file in files.items() if superseded.get(key, 0) != (manifest.mapper_version or -1)]
    totals = sum(file.records for file in own), sum(file.size_bytes for file in own)
    if (manifest.record_count, manifest.byte_size) != totals:
        return f"it says {manifest.record_count} records in {manifest.byte_size} bytes, sealed are {totals[0]} in {totals[1]}"
    return ""
