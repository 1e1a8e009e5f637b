"""A segment being written: where the archivers' loop meets the files' blocking work.

A segment of less than `SPILL_BYTES` is written by a thread when it is sealed; one that grows beyond goes, in rounds of
`ROUND_BYTES`, to the process beside the archiver (`services.spool_process`), while the loop collects on. So does any later
one that fills a round, for the process is there. The files are the same. Held are the round collected and those that the
process has not written yet, of all segments `spool_process.ROUNDS_MAX` at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ssmd.archive.continuity import Unit
from ssmd.archive.segment import FRAME_BYTES_MAX
from ssmd.archive.segment_files import FinishedFile, Piece, SegmentFiles
from ssmd.errors import Unavailable
from ssmd.services.spool_process import RemoteFiles, SpoolProcess

SPILL_BYTES: Final = 2 * FRAME_BYTES_MAX
ROUND_BYTES: Final = FRAME_BYTES_MAX // 4
"""Little, so that neither process waits long for the other; rounds of 2 MiB were a few percent slower."""


class OpenSegment:
    """The files, one a kind, of a range of stream messages of one connection and day.

    Args:
        stem: path in the spool without suffix, this segment's own.
        cut_after: stream sequence behind which the segment was planned to end; 0 = content decides.
        encoder: state of the intake for this segment.
        process: writes what is more than one round.
    """

    def __init__(
        self,
        stem: Path,
        level: int,
        *,
        connection: str,
        date: str,
        first_seq: int,
        cut_after: int,
        encoder: Any,
        process: SpoolProcess,
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
        self._process = process
        self._files: SegmentFiles | None = None
        self._remote: RemoteFiles | None = None
        self._pieces: list[Piece] = []
        self._pieces_bytes = 0

    def add(self, unit: Unit[Any], pieces: Sequence[Piece]) -> None:
        """Collect what `unit` gives."""
        for piece in pieces:
            size = piece.size_bytes
            self._pieces_bytes += size
            self.content_bytes += size
            self.ts_recv_first_ns = min(self.ts_recv_first_ns or piece.ts_recv_first_ns, piece.ts_recv_first_ns)
        self._pieces += pieces
        if unit.last_seq >= self.last_seq:
            self.last_seq, self.message_id = unit.last_seq, unit.message_id
        self.sessions[unit.session] = unit.last_n

    @property
    def wants_spill(self) -> bool:
        return self._pieces_bytes >= (ROUND_BYTES if self._process.is_running else SPILL_BYTES)

    async def spill(self) -> None:
        """Hand what was collected to the process; waits while too much is on its way there.

        Raises:
            Unavailable: the spool cannot be written; the segment is of no more use.
        """
        self._remote = remote = self._remote or self._process.open(self._stem, self._level)
        pieces, self._pieces, self._pieces_bytes = self._pieces, [], 0
        try:
            await remote.write(pieces)
        except OSError as error:
            raise _no_spool(self._stem, error) from error

    async def finish(self) -> list[FinishedFile]:
        """The files, whole and closed, by kind.

        Raises:
            Unavailable: the spool cannot be written; the segment is of no more use.
        """
        try:
            if self._remote is not None:
                if self._pieces:
                    await self.spill()
                return await self._remote.finish()
            self._files = files = SegmentFiles(self._stem, self._level)
            return await asyncio.to_thread(_finish, files, self._pieces)
        except OSError as error:
            raise _no_spool(self._stem, error) from error

    async def discard(self) -> None:
        """Remove the files."""
        if self._remote is not None:
            await self._remote.discard()
        if self._files is not None:
            await asyncio.to_thread(self._files.discard)


def _finish(files: SegmentFiles, pieces: Sequence[Piece]) -> list[FinishedFile]:
    files.write(pieces)
    return files.finish()


def _no_spool(stem: Path, error: OSError) -> Unavailable:
    return Unavailable(f"spool {stem.parent}: {error.strerror or error}", mend="make room, or the directory writable")
