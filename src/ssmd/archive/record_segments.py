"""Segments of records that were made anew from raw lines: the same lines give the same objects, byte for byte.

All cuts follow from content. A segment ends behind the entry with which its content, of all kinds, reaches the size of a
segment; its incarnation is made of its content, its sequences are the ordinals of its entries among the raw lines of its
connection and date. So what a run that was killed left behind is what the next one makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.archive.keys import SegmentName
from ssmd.archive.segment import SegmentFacts, SegmentWriter
from ssmd.archive.shelf_manifest import record_shelf
from ssmd.domain import archive
from ssmd.schemas.codecs import RecordEncoder
from ssmd.schemas.records import KIND_OF, Record

PIECE_BYTES: Final = 64 << 10
INCARNATION_DIGITS: Final = 16


class Making(NamedTuple):
    """What is made: the records of a date by version `mapper`, in segments of about `segment_bytes` of content."""

    env: str
    feed: str
    date: str
    mapper: int
    level: int
    segment_bytes: int


class MadeSegment(NamedTuple):
    """A finished file in the spool, and what it is called when it is stored."""

    path: Path
    name: SegmentName
    facts: SegmentFacts

    def file(self, revision: int = 0) -> archive.SegmentFile:
        """As the journal tells it."""
        facts = self.facts
        return archive.SegmentFile(
            self.name._replace(revision=revision).key, self.name.shelf.kind, facts.size_bytes, facts.sha256,
            facts.content_bytes, facts.content_sha256, facts.records, facts.ts_recv_first_ns, facts.ts_recv_last_ns,
        )  # fmt: skip


class _Kind:
    """The open file of one kind, and the records that are not in it yet."""

    def __init__(self, path: Path, level: int) -> None:
        self.writer = SegmentWriter(path, level)
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._ts_first_ns = 0
        self._ts_last_ns = 0

    def add(self, data: bytes, ts_recv_ns: int) -> None:
        if not self._held:
            self._ts_first_ns = ts_recv_ns
        self._ts_last_ns = ts_recv_ns
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        self.writer.add(b"".join(self._held), len(self._held), self._ts_first_ns, self._ts_last_ns)
        self._held, self._held_bytes = [], 0
        self.writer.store(self.writer.take())


class PartitionWriter:
    """Writes one partition's segments into the spool. All of it blocks; `discard` removes the files.

    Args:
        stem: what its files' names in the spool begin with.
    """

    def __init__(self, making: Making, partition: str, spool: Path, stem: str) -> None:
        self._making = making
        self._partition = partition
        self._spool = spool
        self._stem = stem
        self._encode = RecordEncoder().encode
        self._kinds: dict[str, _Kind] = {}
        self._content_bytes = 0
        self._first = self._last = 0
        self._made: list[MadeSegment] = []

    def take(self, entries: Iterable[tuple[int, Sequence[Record]]]) -> None:
        """The next entries: their ordinals, and the records made of them, in order.

        Raises:
            OSError: the spool cannot be written.
        """
        for ordinal, records in entries:
            self._first = self._first or ordinal
            self._last = ordinal
            for record in records:
                kind = KIND_OF[record.__class__]
                open_file = self._kinds.get(kind)
                if open_file is None:
                    path = self._spool / f"{self._stem}-{len(self._made)}-{kind}"
                    open_file = self._kinds[kind] = _Kind(path, self._making.level)
                data = self._encode(record)
                open_file.add(data, record.ts_recv_ns)
                self._content_bytes += len(data)
            if self._content_bytes >= self._making.segment_bytes:
                self._cut()

    def _cut(self) -> None:
        finished: list[tuple[str, Path, SegmentFacts]] = []
        for kind, open_file in sorted(self._kinds.items()):
            open_file.flush()
            finished.append((kind, open_file.writer.path, open_file.writer.finish()))
        content = "".join(facts.content_sha256 for _, _, facts in finished)
        incarnation = hashlib.sha256(content.encode()).hexdigest()[:INCARNATION_DIGITS]
        making = self._making
        for kind, path, facts in finished:
            shelf = record_shelf(making.env, making.feed, making.date, kind, making.mapper)
            name = SegmentName(shelf, self._partition, incarnation, self._first, self._last)
            self._made.append(MadeSegment(path, name, facts))
        self._kinds = {}
        self._content_bytes = self._first = 0

    def finish(self) -> list[MadeSegment]:
        """Everything made, in order.

        Raises:
            OSError: the spool cannot be written.
        """
        if self._kinds:
            self._cut()
        return self._made

    def discard(self) -> None:
        """Close and remove the files."""
        for open_file in self._kinds.values():
            open_file.writer.discard()
        for made in self._made:
            made.path.unlink(missing_ok=True)


def stored_pieces(path: Path, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """The stored bytes of a file, in pieces. Raises OSError."""
    with path.open("rb") as source:
        yield from iter(lambda: source.read(chunk_bytes), b"")
