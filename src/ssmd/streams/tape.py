"""The tape's one writer: append whole blocks, fsync in groups, roll files, cut a torn tail at the start.

`append` is one write(2): what it returned for survives the kill of any process at any instant. `sync` makes it survive
the loss of power; between two of them lies what a power failure may take.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.errors import Malformed, Misconfigured, Unavailable
from ssmd.schemas.blocks import NO_DIGEST, BlockHeader, EntryKind, encode_body
from ssmd.schemas.control import DayMark, Disconnected, decode_fact
from ssmd.streams.tape_files import TapeBlock, TapePosition, file_of, indexes, read_file, size_bytes

FILE_BYTES: Final = 64 << 20
BYTES_MAX: Final = 16 << 30


class TapeEnd(NamedTuple):
    """What the last session on a tape left behind; all zeros for an empty tape.

    `last_frame_ns` is the receive time of its last `in` entry, `is_closed` whether it ends in a `disconnected` fact,
    `is_marked` whether in a day-mark.
    """

    session: int = 0
    last_n: int = 0
    last_ts_ns: int = 0
    last_frame_ns: int = 0
    is_closed: bool = True
    closing: Disconnected | None = None
    is_marked: bool = False


class CutTail(NamedTuple):
    """Bytes behind the last whole block that a start has cut off, and where they are kept."""

    size_bytes: int
    kept_as: str


class TapeWriter:
    """Opens (and locks) a tape directory for appending.

    Args:
        directory: made if absent.
        file_bytes: a new file is begun when the current one would grow beyond this.
        bytes_max: `append` refuses beyond this many bytes in all files.
        boot: names the machine's present run; another one than at the last opening means that what was appended and
            not synced may be lost, though what is there is whole (`has_restarted`).

    Raises:
        Misconfigured: not writable, or another process holds the lock.
        Malformed: damage before the tail of the last file; `ssmd tape verify` tells more.
    """

    def __init__(
        self, directory: Path, *, file_bytes: int = FILE_BYTES, bytes_max: int = BYTES_MAX, boot: str | None = None
    ) -> None:
        self.directory = directory
        self._file_bytes = file_bytes
        self._bytes_max = bytes_max
        self._lock = _lock(directory)
        try:
            found = indexes(directory)
            self._index = found[-1] if found else 1
            self.cut, self._offset, last = _recover(directory, self._index)
            if last is None and len(found) > 1:
                last = _last_block(directory, found[-2])
            self._digest = last.header.digest if last else NO_DIGEST
            self.end = _end_of(directory, found, last)
            self._total_bytes = size_bytes(directory)
            self._boot = boot_id() if boot is None else boot
            self._is_boot_noted = _is_of_boot(directory, self._boot)
            self.has_restarted = not self._is_boot_noted
            self._file = os.open(file_of(directory, self._index), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except BaseException:
            os.close(self._lock)
            raise
        self._synced = True
        # A sync in its thread must not find the descriptor closed, or another file behind its number.
        self._file_change = threading.Lock()

    @property
    def position(self) -> TapePosition:
        """Where the next block will start."""
        return TapePosition(self._index, self._offset)

    @property
    def size_bytes(self) -> int:
        """Bytes in all files."""
        return self._total_bytes

    def append(self, session: int, first_n: int, count: int, first_ts_ns: int, last_ts_ns: int, body: bytes) -> TapeBlock:
        """Write one block of packed entries with one write(2).

        Raises:
            Unavailable: the disk or the tape's bound is full, or the device failed; nothing of the block is on the tape.
        """
        previous = self._digest
        data, digest = encode_body(session, first_n, count, first_ts_ns, last_ts_ns, previous, body)
        if self._total_bytes + len(data) > self._bytes_max:
            raise Unavailable(
                f"the tape in {self.directory} has reached its bound of {self._bytes_max} bytes",
                mend="let the archive catch up, or raise tape.bytes_max",
            )
        if self._offset and self._offset + len(data) > self._file_bytes:
            self._roll()
        self._write(data)
        start = self.position
        self._offset += len(data)
        self._total_bytes += len(data)
        self._digest = digest
        self._synced = False
        if not self._is_boot_noted:
            self._note_boot()
        header = BlockHeader(len(body), count, session, first_n, first_ts_ns, last_ts_ns, previous, digest)
        return TapeBlock(start, self.position, header, data)

    @contextmanager
    def unbounded(self) -> Generator[None]:
        """A block in which `bytes_max` does not count: for the few bytes by which a start ends the session of a killed process.

        Else a full tape could not be opened again, and what is on it never be handed on, which makes room.
        """
        bound, self._bytes_max = self._bytes_max, sys.maxsize
        try:
            yield
        finally:
            self._bytes_max = bound

    def _note_boot(self) -> None:
        """Only now: a start that wrote nothing has not told of the restart, and the next one has to."""
        with suppress(OSError):  # then the next block does it
            (self.directory / "boot").write_text(f"{self._boot}\n", encoding="ascii")
            self._is_boot_noted = True

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise Unavailable(f"cannot write the tape in {self.directory}: {error.strerror}") from error
        if written != len(data):
            os.ftruncate(self._file, self._offset)
            raise Unavailable(f"cannot write the tape in {self.directory}: {os.strerror(errno.ENOSPC)}")

    def _roll(self) -> None:
        try:
            os.fsync(self._file)
            fresh = os.open(file_of(self.directory, self._index + 1), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            _sync_directory(self.directory)
        except OSError as error:
            raise Unavailable(f"cannot begin a tape file in {self.directory}: {error.strerror}") from error
        with self._file_change:
            os.close(self._file)
            self._file, self._index, self._offset = fresh, self._index + 1, 0

    def sync(self) -> None:
        """Put on the device (fsync) what has been appended; may be called from another thread, which it blocks."""
        with self._file_change:
            if self._synced or self._file < 0:
                return
            self._synced = True
            try:
                os.fdatasync(self._file)
            except OSError as error:
                raise Unavailable(f"cannot sync the tape in {self.directory}: {error.strerror}") from error

    def prune(self, before: TapePosition) -> int:
        """Delete the files that lie wholly before `before`; never the current one. Returns bytes freed."""
        freed = 0
        for index in indexes(self.directory):
            if index >= min(before.file_index, self._index):
                break
            path = file_of(self.directory, index)
            freed += path.stat().st_size
            path.unlink()
        self._total_bytes -= freed
        return freed

    def close(self) -> None:
        """Sync, close, unlock. Safe to call twice."""
        if self._file < 0:
            return
        self.sync()
        os.close(self._file)
        os.close(self._lock)
        self._file = -1


def boot_id() -> str:
    """Names this run of the machine, "" where that cannot be told (then a restart of it is taken for a kill)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _is_of_boot(directory: Path, boot: str) -> bool:
    """Whether what the tape ends with was written in this run of the machine, `boot`."""
    path = directory / "boot"
    try:
        return path.read_text(encoding="ascii").strip() == boot
    except FileNotFoundError:
        with suppress(OSError):  # then the next start does it
            path.write_text(f"{boot}\n", encoding="ascii")
        return True


def _lock(directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise Misconfigured(
            f"cannot write to the tape directory {directory}: {error.strerror}", mend="make it writable, or move it"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise Misconfigured(
            f"another process writes the tape in {directory}", mend="stop the other connector, or name another connection"
        ) from error
    return handle


def _recover(directory: Path, index: int) -> tuple[CutTail | None, int, TapeBlock | None]:
    """Cut what is no whole, true block at the end of the last file: (what was cut, where the file ends now, last block).

    What an earlier start cut that wrote nothing behind it counts as cut now: nobody has told of it.
    """
    path = file_of(directory, index)
    if not path.exists():
        return None, 0, None
    last: TapeBlock | None = None
    good = 0
    try:
        for block in read_file(path, index):
            block.decode()
            if last is not None and block.header.previous_digest != last.header.digest:
                break
            last, good = block, block.end.offset
    except Malformed:
        pass
    torn = path.stat().st_size - good
    kept = directory / f"torn-{index:010}-{good}.bytes"
    try:
        if torn:
            _cut(path, good, kept)
        elif kept.exists():
            torn = kept.stat().st_size
    except OSError as error:
        raise Unavailable(f"cannot cut the torn end of {path}: {error.strerror}", mend="make room on its disk") from error
    return CutTail(torn, kept.name) if torn else None, good, last


def _cut(path: Path, end: int, kept: Path) -> None:
    """Move what is behind byte `end` of the file to `kept`, which is on the device before it is gone here."""
    with path.open("r+b") as file, kept.open("wb") as copy:
        file.seek(end)
        copy.write(file.read())
        copy.flush()
        os.fsync(copy.fileno())
        _sync_directory(path.parent)
        file.truncate(end)
        os.fsync(file.fileno())


def _last_block(directory: Path, index: int) -> TapeBlock | None:
    last = None
    for block in read_file(file_of(directory, index), index):
        last = block
    return last


def _end_of(directory: Path, found: list[int], last: TapeBlock | None) -> TapeEnd:
    if last is None:
        return TapeEnd()
    session = last.header.session
    last_frame_ns = 0
    closing: Disconnected | None = None
    is_marked = False
    for index in reversed(found):
        blocks = [block for block in read_file(file_of(directory, index), index) if block.header.session == session]
        for block in reversed(blocks):
            for entry in reversed(block.decode().entries):
                if entry.kind == EntryKind.CTL and entry.n == last.header.last_n:
                    fact = decode_fact(entry.payload)
                    closing = fact if isinstance(fact, Disconnected) else None
                    is_marked = isinstance(fact, DayMark)
                if entry.kind == EntryKind.IN:
                    last_frame_ns = entry.ts_recv_ns
                    break
            if last_frame_ns:
                break
        if last_frame_ns or not blocks:
            break
    return TapeEnd(session, last.header.last_n, last.header.last_ts_ns, last_frame_ns, closing is not None, closing, is_marked)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
