"""The tape on disk: a directory of files of whole blocks, chained by digests across files.

    {directory}/{index:010}.tape     blocks, back to back; index rises by 1 per file
    {directory}/lock                 held by the one writer
    {directory}/boot                 in which run of the machine it was last opened
    {directory}/torn-{index:010}-{offset}.bytes   a torn tail that a writer's start has cut off

A file is immutable once the next one exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.errors import Malformed
from ssmd.schemas.blocks import HEADER_BYTES, Block, BlockHeader, decode_block, decode_header

_NAME: Final = re.compile(r"(\d{10})\.tape")
READ_BYTES: Final = 4 << 20


class TapePosition(NamedTuple):
    """A place on a tape: the byte `offset` in file `file_index`; a block starts there, or the next one will."""

    file_index: int
    offset: int


class TapeBlock(NamedTuple):
    """One block as it lies on the tape. `data` is its bytes, `end` the position behind it."""

    position: TapePosition
    end: TapePosition
    header: BlockHeader
    data: bytes

    def decode(self) -> Block:
        """The verified block.

        Raises:
            Malformed: with what does not fit.
        """
        return decode_block(self.data)


class Damage(NamedTuple):
    """Where a tape is not what was written, and why."""

    position: TapePosition
    reason: str


def file_of(directory: Path, index: int) -> Path:
    """Path of the file with that index."""
    return directory / f"{index:010}.tape"


def indexes(directory: Path) -> list[int]:
    """Indexes of the files there are, rising."""
    if not directory.is_dir():
        return []
    return sorted(int(match.group(1)) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name)))


def size_bytes(directory: Path) -> int:
    """Bytes in all files of the tape."""
    return sum(file_of(directory, index).stat().st_size for index in indexes(directory))


def first_header(path: Path) -> BlockHeader | None:
    """The header of a file's first block; None = the file is empty, or gone.

    Raises:
        Malformed: no block starts there.
    """
    try:
        with path.open("rb") as file:
            data = file.read(HEADER_BYTES)
    except FileNotFoundError:
        return None
    return decode_header(data) if data else None


def read_file(path: Path, index: int, offset: int = 0) -> Iterator[TapeBlock]:
    """The blocks of one file from `offset` on, headers decoded, entries not yet verified.

    Ends at the file's end. Reads the file in pieces, so that memory stays flat.

    Raises:
        Malformed: bytes that are no whole block; its message names the file and the byte.
    """
    with path.open("rb") as file:
        file.seek(offset)
        held, at = b"", offset
        while True:
            piece = file.read(READ_BYTES)
            held += piece
            start = 0
            while len(held) - start >= HEADER_BYTES:
                try:
                    header = decode_header(held, start)
                except Malformed as error:
                    raise Malformed(f"{path.name} byte {at}: {error.message}") from error
                if len(held) - start < header.size_bytes:
                    break
                data = held[start : start + header.size_bytes]
                start += header.size_bytes
                yield TapeBlock(TapePosition(index, at), TapePosition(index, at + header.size_bytes), header, data)
                at += header.size_bytes
            held = held[start:]
            if not piece:
                break
        if held:
            raise Malformed(f"{path.name} byte {at}: {len(held)} bytes are no whole block")


def verify(directory: Path) -> Iterator[TapeBlock | Damage]:
    """Every block in order, or the damage found instead: digest, chain, numbering, torn bytes.

    After a damage within a file the rest of that file is passed over: block boundaries are unknown there.
    """
    previous: TapeBlock | None = None
    for index in indexes(directory):
        at = TapePosition(index, 0)
        if previous is not None and index != previous.position.file_index + 1:
            yield Damage(at, f"files between {previous.position.file_index:010} and {index:010} are missing")
            previous = None
        try:
            for block in read_file(file_of(directory, index), index):
                at = block.position
                reason = _broken(block, previous)
                if reason:
                    yield Damage(block.position, reason)
                else:
                    yield block
                previous = block
                at = block.end
        except Malformed as error:
            yield Damage(at, error.message)
            previous = None


def _broken(block: TapeBlock, previous: TapeBlock | None) -> str:
    try:
        block.decode()
    except Malformed as error:
        return error.message
    if previous is None:
        return ""
    header, before = block.header, previous.header
    if header.previous_digest != before.digest:
        return f"block of session {header.session} at n {header.first_n} does not follow the block before it"
    if header.session == before.session and header.first_n != before.last_n + 1:
        return f"session {header.session} goes on at n {header.first_n}, expected {before.last_n + 1}"
    if header.session < before.session:
        return f"session {header.session} follows session {before.session}"
    return ""
