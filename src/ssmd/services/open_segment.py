"""A segment being written: where the archivers' loop meets the files' blocking work.

One thread job per segment at a time compresses, hashes and writes what was collected before, while the loop collects
on: at most two rounds of `SPILL_BYTES` are held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ssmd.archive.continuity import Unit
from ssmd.archive.segment import FRAME_BYTES_MAX, SegmentFacts, SegmentWriter
from ssmd.errors import Unavailable

SPILL_BYTES: Final = 4 * FRAME_BYTES_MAX


class Piece(NamedTuple):
    """What one block gives to the file of one kind: `records` whole lines or messages, received between the two times."""

    kind: str
    content: bytes
    records: int
    ts_recv_first_ns: int
    ts_recv_last_ns: int


class FinishedFile(NamedTuple):
    """One file of a segment, whole, in the spool."""

    kind: str
    path: Path
    facts: SegmentFacts


class OpenSegment:
    """The files, one a kind, of a range of stream messages of one connection and day.

    Args:
        stem: path in the spool without suffix, this segment's own.
        cut_after: stream sequence behind which the segment was planned to end; 0 = content decides.
        encoder: state of the intake for this segment.
    """

    def __init__(
        self, stem: Path, level: int, *, connection: str, date: str, first_seq: int, cut_after: int, encoder: Any
    ) -> None:
        self._stem = stem
        self._level = level
        self.connection = connection
        self.date = date
        self.first_seq = first_seq
        self.last_seq = first_seq
        self.cut_after = cut_after
        self.encoder = encoder
        self.message_id = ""
        self.sessions: dict[int, int] = {}
        self.content_bytes = 0
        self.touched_ns = 0
        self.ts_recv_first_ns = 0
        self._writers: dict[str, SegmentWriter] = {}
        self._job: asyncio.Future[None] | None = None

    def add(self, unit: Unit[Any], pieces: Sequence[Piece]) -> None:
        """Collect what `unit` gives."""
        for kind, content, records, ts_first_ns, ts_last_ns in pieces:
            writer = self._writers.get(kind)
            if writer is None:
                writer = self._writers[kind] = SegmentWriter(self._stem.with_name(f"{self._stem.name}.{kind}"), self._level)
            writer.add(content, records, ts_first_ns, ts_last_ns)
            self.ts_recv_first_ns = min(self.ts_recv_first_ns or ts_first_ns, ts_first_ns)
            self.content_bytes += len(content)
        if unit.last_seq >= self.last_seq:
            self.last_seq, self.message_id = unit.last_seq, unit.message_id
        self.sessions[unit.session] = unit.last_n

    @property
    def wants_spill(self) -> bool:
        return sum(writer.pending_bytes for writer in self._writers.values()) >= SPILL_BYTES

    async def spill(self) -> None:
        """Hand what was collected to the thread, after what it is busy with.

        Raises:
            Unavailable: the spool cannot be written; the segment is of no more use.
        """
        await self._wait()
        taken = [(writer, writer.take()) for writer in self._writers.values() if writer.pending_bytes]
        self._job = asyncio.get_running_loop().run_in_executor(None, _store, taken)

    async def _wait(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            try:
                await asyncio.shield(job)
            except OSError as error:
                raise _no_spool(self._stem, error) from error
            except asyncio.CancelledError:
                self._job = job
                raise

    async def finish(self) -> list[FinishedFile]:
        """The files, whole and closed, by kind.

        Raises:
            Unavailable: the spool cannot be written; the segment is of no more use.
        """
        await self._wait()
        try:
            return await asyncio.to_thread(
                lambda: [FinishedFile(kind, writer.path, writer.finish()) for kind, writer in sorted(self._writers.items())]
            )
        except OSError as error:
            raise _no_spool(self._stem, error) from error

    async def discard(self) -> None:
        """Remove the files."""
        if self._job is not None:
            await asyncio.wait([self._job])
            if not self._job.cancelled():
                self._job.exception()  # whatever it was, the files are not wanted any more
            self._job = None
        for writer in self._writers.values():
            writer.discard()


def _store(taken: Sequence[tuple[SegmentWriter, list[bytes]]]) -> None:
    for writer, frames in taken:
        writer.store(frames)


def _no_spool(stem: Path, error: OSError) -> Unavailable:
    return Unavailable(f"spool {stem.parent}: {error.strerror or error}", mend="make room, or the directory writable")
