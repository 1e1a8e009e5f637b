"""The files of one segment, one a kind, from the pieces its blocks give: encoded, compressed, hashed, and their sidecars.

All of it blocks. Files follow from the pieces and their order alone, not from how they came in rounds, nor from where
this runs: in a thread of the archiver, or in the process beside it (`services.spool_process`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssmd.archive.segment import SegmentFacts, SegmentWriter
from ssmd.archive.segment_index import INDEXED_KINDS, IndexBuilder, digest_of
from ssmd.errors import Malformed
from ssmd.schemas.raw_line import BlockLines


class Piece(NamedTuple):
    """What one block gives to the file of one kind: `records` whole lines or messages, received between the two times."""

    kind: str
    content: bytes | BlockLines
    records: int
    ts_recv_first_ns: int
    ts_recv_last_ns: int

    @property
    def size_bytes(self) -> int:
        """How long the content is in the file, as far as that can be told without encoding it: where segments are cut."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.size_bytes

    def encode(self) -> bytes:
        """The content as it stands in the file."""
        return self.content if isinstance(self.content, bytes) else self.content.encode()


class FinishedFile(NamedTuple):
    """One file of a segment, whole, in the spool; and its sidecar, None = it has none, for the reason `no_sidecar` if any."""

    kind: str
    path: str
    facts: SegmentFacts
    sidecar: bytes | None
    no_sidecar: str


class _File:
    def __init__(self, kind: str, path: Path, level: int) -> None:
        self._kind = kind
        self.writer = SegmentWriter(path, level)
        self._index = IndexBuilder(kind) if kind in INDEXED_KINDS else None
        self._no_sidecar = ""

    def store(self, *, is_last: bool = False) -> None:
        contents = self.writer.take(is_last=is_last)
        if not contents and not is_last:
            return
        for content, stored in zip(contents, self.writer.store(contents), strict=True):
            if self._index is not None:
                try:
                    self._index.add(len(stored), digest_of(stored), content)
                except Malformed as error:
                    self._index, self._no_sidecar = None, error.message

    def finish(self) -> FinishedFile:
        self.store(is_last=True)
        facts, sidecar = self.writer.finish(), None
        if self._index is not None:
            try:
                sidecar = self._index.finish(facts.sha256)
            except Malformed as error:
                self._no_sidecar = error.message
        return FinishedFile(self._kind, str(self.writer.path), facts, sidecar, self._no_sidecar)


class SegmentFiles:
    """See the module.

    Args:
        stem: path in the spool without suffix, this segment's own.
        level: of zstd.
    """

    def __init__(self, stem: Path, level: int) -> None:
        self._stem = stem
        self._level = level
        self._files: dict[str, _File] = {}

    def write(self, pieces: Sequence[Piece]) -> None:
        """Add the next blocks' pieces, and store what fills whole frames.

        Raises:
            OSError: the spool cannot be written; the files are of no more use.
        """
        for piece in pieces:
            kind = piece.kind
            file = self._files.get(kind)
            if file is None:
                file = self._files[kind] = _File(kind, path_of(self._stem, kind), self._level)
            file.writer.add(piece.encode(), piece.records, piece.ts_recv_first_ns, piece.ts_recv_last_ns)
        for file in self._files.values():
            file.store()

    def finish(self) -> list[FinishedFile]:
        """The files, whole and closed, by kind.

        Raises:
            OSError: as `write`.
        """
        return [file.finish() for _, file in sorted(self._files.items())]

    def discard(self) -> None:
        """Close and remove the files. Safe to call twice."""
        for file in list(self._files.values()):  # a thread whose owner was cancelled may still be adding one
            file.writer.discard()


def path_of(stem: Path, kind: str) -> Path:
    """Of the file of one kind."""
    return stem.with_name(f"{stem.name}.{kind}")


def discard_all(stem: Path) -> None:
    """Remove the files of a segment whose writer is gone."""
    for leftover in stem.parent.glob(f"{stem.name}.*"):
        leftover.unlink(missing_ok=True)
