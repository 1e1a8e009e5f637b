"""A process beside an archiver that encodes, compresses and hashes: half of the archiver's work, on another core.

    archiver: read, check, order, collect 4 MiB --socket--> this: lines, zstd, SHA-256, sidecar --> files in the spool

It is started for a segment that outgrows one round (`services.open_segment`), so an archiver with little to do has none,
and it knows nothing but the spool: what is sealed, where and when is the archiver's. The archiver's socket is the only tie:
when it closes, however the archiver ended, this ends. When this ends, its segments are of no more use, as if the spool
could not be written: they are read again from the stream. A round is sent while the one before it is being written, and
no further one: that bounds memory and is the backpressure.

Messages are MessagePack behind their length (u32, little endian). All calls block; they are made in threads.
"""

from __future__ import annotations

import errno
import itertools
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from ssmd.archive.segment_files import FinishedFile, Piece, SegmentFiles, discard_all
from ssmd.errors import Unavailable

ANSWER_S: Final = 120
"""A round takes some 30 ms. Whoever does not answer for so long does not work any more."""
END_S: Final = 10.0
_LENGTH: Final = struct.Struct("<I")
_TIMEVAL: Final = struct.Struct("@ll")


class _Open(msgspec.Struct, array_like=True, tag=0):
    segment: int
    stem: str
    level: int


class _Write(msgspec.Struct, array_like=True, tag=1):
    segment: int
    pieces: Sequence[Piece]


class _Finish(msgspec.Struct, array_like=True, tag=2):
    segment: int


class _Discard(msgspec.Struct, array_like=True, tag=3):
    segment: int


class _Done(msgspec.Struct, array_like=True, tag=1):
    files: Sequence[FinishedFile] = ()


class _Failed(msgspec.Struct, array_like=True, tag=2):
    number: int
    reason: str


_Request = _Open | _Write | _Finish | _Discard
_ENCODER: Final = msgspec.msgpack.Encoder()
_REQUESTS: Final = msgspec.msgpack.Decoder(_Request)
_ANSWERS: Final[msgspec.msgpack.Decoder[_Done | _Failed]] = msgspec.msgpack.Decoder(_Done | _Failed)


class SpoolProcess:
    """The archiver's end. Starts the process when it is first needed, and again after it was lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._owed = 0
        self._numbers = itertools.count(1)

    def open(self, stem: Path, level: int) -> RemoteFiles:
        """The files of a segment, written there. Starts nothing yet, and waits for nobody."""
        return RemoteFiles(self, next(self._numbers), stem, level)

    def ask(self, request: _Request, *, is_answer_wanted: bool) -> Sequence[FinishedFile]:
        """Send a request; what it gives when its answer is wanted, else nothing: answers may be one request behind.

        Raises:
            OSError: the spool cannot be written.
            Unavailable: the process is gone.
        """
        with self._lock:
            answer = _Done()
            try:
                connection = self._socket or self._start()
                _send(connection, _ENCODER.encode(request))
                self._owed += 1
                while self._owed > (0 if is_answer_wanted else 1):
                    answer = self._take_answer(connection)
            except (ConnectionError, TimeoutError, BlockingIOError, msgspec.DecodeError) as error:
                self._end()
                raise Unavailable(f"the process that writes the spool is gone: {error or type(error).__name__}") from error
            return answer.files

    def _take_answer(self, connection: socket.socket) -> _Done:
        data = _receive(connection)
        if data is None:
            raise ConnectionResetError(errno.ECONNRESET, "it ended")
        self._owed -= 1
        answer = _ANSWERS.decode(data)
        if isinstance(answer, _Failed):
            raise OSError(answer.number, answer.reason)
        return answer

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            # The kernel's own deadlines: a socket with one of Python's sends in hundreds of small steps.
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                ours.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(ANSWER_S, 0))
            number = theirs.fileno()
            command = [sys.executable, "-P", "-m", "ssmd.services.spool_process", str(number)]
            try:
                self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(number,))  # noqa: S603 - all ours
            except OSError as error:
                ours.close()
                raise Unavailable(f"the process that writes the spool cannot be started: {error.strerror}") from error
        self._socket, self._owed = ours, 0
        return ours

    def _end(self) -> None:
        connection, self._socket = self._socket, None
        child, self._child = self._child, None
        if connection is not None:
            connection.close()
        if child is not None:
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                with suppress(subprocess.TimeoutExpired):  # its disk holds it; it has no socket any more
                    child.wait(END_S)

    def close(self) -> None:
        """End the process, if there is one. It may be asked again, and starts again."""
        with self._lock:
            self._end()


class RemoteFiles:
    """As `SegmentFiles`, of files that the process writes."""

    def __init__(self, process: SpoolProcess, segment: int, stem: Path, level: int) -> None:
        self._process = process
        self._segment = segment
        self._stem = stem
        self._level = level
        self._is_open = False

    def write(self, pieces: Sequence[Piece]) -> None:
        """Hand over the next pieces; returns when those before them are written.

        Raises:
            OSError: the spool cannot be written; the files are of no more use.
            Unavailable: the process is gone, and the files with it.
        """
        if not self._is_open:
            self._process.ask(_Open(self._segment, str(self._stem), self._level), is_answer_wanted=False)
            self._is_open = True
        self._process.ask(_Write(self._segment, pieces), is_answer_wanted=False)

    def finish(self) -> list[FinishedFile]:
        """The files, whole and closed, by kind.

        Raises:
            OSError, Unavailable: as `write`.
        """
        return list(self._process.ask(_Finish(self._segment), is_answer_wanted=True))

    def discard(self) -> None:
        """Close and remove the files. Safe to call twice."""
        if self._is_open:
            # A process that is gone, or another one than that which opened them, leaves them to us.
            with suppress(OSError, Unavailable):
                self._process.ask(_Discard(self._segment), is_answer_wanted=True)
            self._is_open = False
        discard_all(self._stem)


def _send(connection: socket.socket, data: bytes) -> None:
    left = memoryview(_LENGTH.pack(len(data)) + data)
    while left:
        left = left[connection.send(left) :]


def _receive(connection: socket.socket) -> bytearray | None:
    """The next message; None when the other end is closed."""
    head = _take(connection, _LENGTH.size)
    return None if head is None else _take(connection, _LENGTH.unpack(head)[0])


def _take(connection: socket.socket, size_bytes: int) -> bytearray | None:
    data = bytearray(size_bytes)
    left = memoryview(data)
    while left:
        # Fewer than asked for come when a process is stopped and goes on, and when a machine wakes up.
        count = connection.recv_into(left, len(left), socket.MSG_WAITALL)
        if not count:
            return None
        left = left[count:]
    return data


def serve(connection: socket.socket) -> None:
    """Do what is asked until the other end closes."""
    segments: dict[int, SegmentFiles] = {}
    while (data := _receive(connection)) is not None:
        request = _REQUESTS.decode(data)
        try:
            answer = _answer(request, segments)
        except OSError as error:
            # Its files are of no more use. Who reads this answer may be another segment: this one must not go on.
            if files := segments.pop(request.segment, None):
                files.discard()
            answer = _Failed(error.errno or errno.EIO, error.strerror or str(error))
        _send(connection, _ENCODER.encode(answer))


def _answer(request: _Request, segments: dict[int, SegmentFiles]) -> _Done | _Failed:
    match request:
        case _Open(segment, stem, level):
            segments[segment] = SegmentFiles(Path(stem), level)
        case _Discard(segment):
            if files := segments.pop(segment, None):
                files.discard()
        case _Write(segment) | _Finish(segment) if segment not in segments:
            return _Failed(errno.ESTALE, f"segment {segment} was not begun by this process, or could not be written before")
        case _Write(segment, pieces):
            segments[segment].write(pieces)
        case _Finish(segment):
            return _Done(segments[segment].finish())
    return _Done()


def main(arguments: Sequence[str]) -> int:
    """The process. Its socket says when to end, not a signal that went to all of a terminal or a pod."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(arguments[0])) as connection:
        try:
            serve(connection)
        except ConnectionError:
            return 0  # the archiver is gone
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
