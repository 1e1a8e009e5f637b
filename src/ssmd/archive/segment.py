"""Segment files: content in zstd frames of at most 1 MiB each, written to a spool file and hashed on the way.

The bytes follow from the content, from where `add` was called within it, and from the zstd level and library alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import zstandard

from ssmd.errors import Malformed

FRAME_BYTES_MAX: Final = 1 << 20
"""Content of one zstd frame. What is added in one piece is not split over frames unless it is larger than one."""


class SegmentFacts(NamedTuple):
    """What a finished segment file holds. Times are of its first and last entry, 0 = it has none."""

    size_bytes: int
    sha256: str
    content_bytes: int
    content_sha256: str
    records: int
    ts_recv_first_ns: int
    ts_recv_last_ns: int


class SegmentWriter:
    """Writes one segment file. `add` only collects; `store` does the work, on whichever thread; never both at once for
    the same frames: what `take` gave is gone from here until it is stored, in the order taken.
    """

    def __init__(self, path: Path, level: int) -> None:
        self._path = path
        self._level = level
        self._file: BinaryIO | None = None
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
        self._sha256 = hashlib.sha256()
        self._content_sha256 = hashlib.sha256()
        self._size_bytes = 0
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._frames: list[bytes] = []
        self._frames_bytes = 0
        self.content_bytes = 0
        self.records = 0
        self._ts_first_ns = 0
        self._ts_last_ns = 0

    @property
    def path(self) -> Path:
        return self._path

    @property
    def pending_bytes(self) -> int:
        """Content in whole frames that waits to be taken and stored."""
        return self._frames_bytes

    def add(self, content: bytes, records: int, ts_first_ns: int, ts_last_ns: int) -> None:
        """Collect the next piece: `records` whole lines or messages, received between the two times."""
        if not content:
            return
        self.content_bytes += len(content)
        if self._pieces_bytes + len(content) > FRAME_BYTES_MAX:
            self._close_frame()
        while len(content) > FRAME_BYTES_MAX:
            self._pieces = [content[:FRAME_BYTES_MAX]]
            self._close_frame()
            content = content[FRAME_BYTES_MAX:]
        self._pieces.append(content)
        self._pieces_bytes += len(content)
        self.records += records
        self._ts_first_ns = self._ts_first_ns or ts_first_ns
        self._ts_last_ns = max(ts_last_ns, self._ts_last_ns)

    def _close_frame(self) -> None:
        if self._pieces:
            frame = b"".join(self._pieces)
            self._frames.append(frame)
            self._frames_bytes += len(frame)
            self._pieces, self._pieces_bytes = [], 0

    def take(self, *, is_last: bool = False) -> list[bytes]:
        """The whole frames collected (`is_last`: and what remains), to be given to `store`."""
        if is_last:
            self._close_frame()
        frames, self._frames, self._frames_bytes = self._frames, [], 0
        return frames

    def store(self, frames: Iterable[bytes]) -> list[bytes]:
        """Compress, hash and write. Blocks.

        Returns:
            the frames as they are stored.

        Raises:
            OSError: the spool cannot be written.
        """
        if self._file is None:
            self._file = self._path.open("wb")
        # Each of these calls lets the loop's thread run, and waits some milliseconds to get its turn back: one hash and
        # one write a round, not a frame.
        content = list(frames)
        stored = [self._compressor.compress(frame) for frame in content]
        joined = b"".join(stored)
        self._content_sha256.update(b"".join(content))
        self._sha256.update(joined)
        self._file.write(joined)
        self._size_bytes += len(joined)
        return stored

    def finish(self) -> SegmentFacts:
        """Store what remains and close the file. Blocks.

        Raises:
            OSError: the spool cannot be written.
        """
        self.store(self.take(is_last=True))
        self.close()
        return SegmentFacts(
            self._size_bytes,
            self._sha256.hexdigest(),
            self.content_bytes,
            self._content_sha256.hexdigest(),
            self.records,
            self._ts_first_ns,
            self._ts_last_ns,
        )

    def close(self) -> None:
        """Close the file, finished or not. Safe to call twice."""
        if self._file is not None:
            self._file.close()

    def discard(self) -> None:
        """Close and remove the file."""
        with suppress(OSError):  # what it could not write is not wanted any more
            self.close()
        self._path.unlink(missing_ok=True)


def read_content(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The decompressed content of a segment given its stored bytes in pieces; each piece given back is at most a frame.

    Raises:
        Malformed: the bytes are damaged or end inside a frame.
    """
    decompressor = zstandard.ZstdDecompressor()
    stream = decompressor.decompressobj()
    started = False
    for piece in pieces:
        data = piece
        while data:
            try:
                content = stream.decompress(data)
            except zstandard.ZstdError as error:
                raise Malformed(f"a segment's zstd frame is damaged: {error}") from error
            started = True
            if content:
                yield content
            data = b""
            if stream.eof:
                data = stream.unused_data
                stream = decompressor.decompressobj()
                started = False
    if started:
        raise Malformed("a segment ends inside a zstd frame")


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their newlines, of content that comes in pieces; a last line without newline too."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def read_file(path: Path, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """The content of the segment in the file at `path`.

    Raises:
        Malformed: as `read_content`.
        OSError: the file cannot be read.
    """
    with path.open("rb") as source:
        yield from read_content(iter(lambda: source.read(chunk_bytes), b""))
