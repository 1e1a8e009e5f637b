"""Reading a tape from a position on, while its writer goes on appending."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ssmd.errors import Malformed
from ssmd.schemas.blocks import HEADER_BYTES, decode_header
from ssmd.streams.tape_files import TapeBlock, TapePosition, file_of, indexes

READ_BYTES: Final = 1 << 20
BEGINNING: Final = TapePosition(0, 0)


class TapeCursor:
    """Hands out whole blocks in order from `position` on.

    Args:
        position: where a block starts; a position in a pruned file moves to the first file there is.
    """

    def __init__(self, directory: Path, position: TapePosition = BEGINNING) -> None:
        self._directory = directory
        self.position = position
        self._file = -1

    def read(self, limit_bytes: int = READ_BYTES) -> list[TapeBlock]:
        """The next blocks, about `limit_bytes` of them at most but at least one; [] at the end of the tape.

        Raises:
            Malformed: no block where one must be.
        """
        if self._file < 0 and not self._open():
            return []
        while True:
            blocks = self._read(limit_bytes)
            if blocks or not self._advance():
                return blocks

    def _open(self) -> bool:
        found = indexes(self._directory)
        index = next((index for index in found if index >= self.position.file_index), None)
        if index is None:
            return False
        if index != self.position.file_index:
            self.position = TapePosition(index, 0)
        self._file = os.open(file_of(self._directory, index), os.O_RDONLY)
        return True

    def _advance(self) -> bool:
        """Go on to the next file, if there is one: then this one is complete."""
        if not file_of(self._directory, self.position.file_index + 1).exists():
            return False
        self.close()
        self.position = TapePosition(self.position.file_index + 1, 0)
        return self._open()

    def _read(self, limit_bytes: int) -> list[TapeBlock]:
        # No more than is there: a large buffer cut to a few bytes at each look leaves holes in the heap that add up.
        there = os.fstat(self._file).st_size - self.position.offset
        data = os.pread(self._file, min(limit_bytes, there), self.position.offset) if there > 0 else b""
        blocks: list[TapeBlock] = []
        at = 0
        while len(data) - at >= HEADER_BYTES:
            try:
                header = decode_header(data, at)
            except Malformed as error:
                name = file_of(self._directory, self.position.file_index).name
                raise Malformed(f"tape {name} byte {self.position.offset}: {error.message}") from error
            if len(data) - at < header.size_bytes:
                if not blocks and header.size_bytes > limit_bytes:
                    return self._read(header.size_bytes)
                break
            end = TapePosition(self.position.file_index, self.position.offset + header.size_bytes)
            blocks.append(TapeBlock(self.position, end, header, data[at : at + header.size_bytes]))
            self.position = end
            at += header.size_bytes
        return blocks

    def close(self) -> None:
        """Close the file; `read` opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
