"""A process beside an archiver that encodes, compresses and hashes: half of the archiver's work, on another core.

    archiver: read, check, order, collect --socket--> this: lines, zstd, SHA-256, sidecar --> files in the spool

It is started for a segment that outgrows one round (`services.open_segment`), so an archiver with little to do has none,
and it knows nothing but the spool: what is sealed, where and when is the archiver's. The archiver's socket is the only tie:
when it closes, however the archiver ended, this ends. When this ends, its segments are of no more use, as if the spool
could not be written: they are read again from the stream. So many rounds as `ROUNDS_MAX` are on their way or being
written, and no more: that bounds memory and is the backpressure.

Messages are MessagePack behind their length (u32, little endian). The archiver's end is its loop's: a thread that waits for
the socket would have to wait for its turn with the loop too, up to 5 ms each time.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import msgspec

from ssmd.archive.segment_files import FinishedFile, Piece, SegmentFiles, discard_all
from ssmd.errors import Unavailable

ANSWER_S: Final = 120
"""A round takes some 3 ms. Whoever does not answer for so long does not work any more."""
END_S: Final = 10.0
ROUNDS_MAX: Final = 16
_ROOM_BYTES: Final = 4 << 20
_LENGTH: Final = struct.Struct("<I")


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


class _Channel(asyncio.Protocol):
    """The archiver's end of the socket. Each request is answered, in order.

    Attributes:
        lost: why there will be no more answers, "" while there will.
    """

    def __init__(self) -> None:
        self.lost = ""
        self._transport: asyncio.WriteTransport | None = None
        self._owed: deque[asyncio.Future[Sequence[FinishedFile]]] = deque()
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                break
            answer = _ANSWERS.decode(memoryview(self._received)[_LENGTH.size : end].tobytes())
            del self._received[:end]
            owed = self._owed.popleft()
            if isinstance(answer, _Done):
                owed.set_result(answer.files)
            else:
                _fail(owed, OSError(answer.number, answer.reason))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(str(exc or "") or "it ended")

    async def send(self, data: bytes) -> asyncio.Future[Sequence[FinishedFile]]:
        """Send a request when there is room; what will be its answer."""
        while len(self._owed) >= ROUNDS_MAX and not self.lost:
            await self.wait(self._owed[0])
        answer: asyncio.Future[Sequence[FinishedFile]] = asyncio.get_running_loop().create_future()
        if self.lost or self._transport is None:
            _fail(answer, _gone(self.lost))
        else:
            self._owed.append(answer)
            self._transport.write(_LENGTH.pack(len(data)))
            self._transport.write(data)
        return answer

    async def wait(self, answer: asyncio.Future[Sequence[FinishedFile]]) -> None:
        """Until `answer` is there, or will not come."""
        done, _ = await asyncio.wait([answer], timeout=ANSWER_S)
        if not done:
            self.lose(f"no answer within {ANSWER_S} s")

    def lose(self, reason: str) -> None:
        """Close the socket; whatever is owed will not come."""
        self.lost = self.lost or reason
        if self._transport is not None:
            self._transport.abort()
        while self._owed:
            _fail(self._owed.popleft(), _gone(self.lost))


def _fail(answer: asyncio.Future[Sequence[FinishedFile]], error: Exception) -> None:
    answer.set_exception(error)
    answer.exception()  # nobody may come for it: a segment that is discarded


def _gone(reason: str) -> Unavailable:
    return Unavailable(f"the process that writes the spool is gone: {reason}")


class SpoolProcess:
    """The archiver's end. Starts the process when it is first needed, and again after it was lost."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: _Channel | None = None
        self._lock = asyncio.Lock()
        self._numbers = itertools.count(1)

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and is not known to be lost."""
        return self._channel is not None and not self._channel.lost

    def open(self, stem: Path, level: int) -> RemoteFiles:
        """The files of a segment, written there. Starts nothing yet, and waits for nobody."""
        return RemoteFiles(self, next(self._numbers), stem, level)

    async def send(self, request: _Request) -> asyncio.Future[Sequence[FinishedFile]]:
        """Send a request when there is room; what will be its answer. It fails with OSError or Unavailable, as `RemoteFiles`.

        Raises:
            Unavailable: the process cannot be started.
        """
        async with self._lock:
            channel = self._channel
            if channel is None or channel.lost:
                await self._end()
                channel = self._channel = await self._start()
        return await channel.send(_ENCODER.encode(request))

    async def answer(self, owed: asyncio.Future[Sequence[FinishedFile]]) -> Sequence[FinishedFile]:
        """What `send` told will come.

        Raises:
            OSError: the spool cannot be written.
            Unavailable: the process is gone.
        """
        if self._channel is not None:
            await self._channel.wait(owed)
        return await owed

    async def forget(self, segment: int) -> None:
        """Return when no process writes the segment's files any more. They may be left: remove them."""
        with suppress(OSError, Unavailable):
            if self.is_running:
                await self.answer(await self.send(_Discard(segment)))
        if not self.is_running:
            await self.close()

    async def _start(self) -> _Channel:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                number = theirs.fileno()
                command = [sys.executable, "-P", "-m", "ssmd.services.spool_process", str(number)]
                # Some milliseconds, once: in a thread, a cancelled archiver would not know its process.
                self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(number,))  # noqa: ASYNC220, S603 - all ours
            ours.setblocking(False)
            _, channel = await asyncio.get_running_loop().create_connection(_Channel, sock=ours)
        except OSError as error:
            ours.close()
            raise Unavailable(f"the process that writes the spool cannot be started: {error.strerror}") from error
        except BaseException:
            ours.close()
            raise
        return channel

    async def _end(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.lose("closed")
        if self._child is not None:
            await asyncio.to_thread(_reap, self._child)
            self._child = None

    async def close(self) -> None:
        """End the process, if there is one. It may be asked again, and starts again."""
        async with self._lock:
            await self._end()


def _reap(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        with suppress(subprocess.TimeoutExpired):  # its disk holds it; it has no socket any more
            child.wait(END_S)


class RemoteFiles:
    """As `SegmentFiles`, of files that the process writes."""

    def __init__(self, process: SpoolProcess, segment: int, stem: Path, level: int) -> None:
        self._process = process
        self._segment = segment
        self._stem = stem
        self._level = level
        self._is_open = False
        self._owed: deque[asyncio.Future[Sequence[FinishedFile]]] = deque()

    async def write(self, pieces: Sequence[Piece]) -> None:
        """Hand over the next pieces; returns when they have been sent, for they are written later.

        Raises:
            OSError: what was handed over before cannot be written; the files are of no more use.
            Unavailable: the process is gone, and the files with it.
        """
        while self._owed and self._owed[0].done():
            self._owed.popleft().result()
        if not self._is_open:
            self._owed.append(await self._process.send(_Open(self._segment, str(self._stem), self._level)))
            self._is_open = True
        self._owed.append(await self._process.send(_Write(self._segment, pieces)))

    async def finish(self) -> list[FinishedFile]:
        """The files, whole and closed, by kind.

        Raises:
            OSError, Unavailable: as `write`.
        """
        self._owed.append(await self._process.send(_Finish(self._segment)))
        files: Sequence[FinishedFile] = ()
        while self._owed:
            files = await self._process.answer(self._owed.popleft())
        return list(files)

    async def discard(self) -> None:
        """Close and remove the files. Safe to call twice."""
        if self._is_open:
            await self._process.forget(self._segment)
            self._is_open = False
        await asyncio.to_thread(discard_all, self._stem)


def _send(connection: socket.socket, data: bytes) -> None:
    left = memoryview(_LENGTH.pack(len(data)) + data)
    while left:
        left = left[connection.send(left) :]


def _receive(connection: socket.socket, room: bytearray) -> memoryview | None:
    """The next message, in `room`, which grows to hold it; None when the other end is closed."""
    if not _fill(connection, memoryview(room)[: _LENGTH.size]):
        return None
    size_bytes = _LENGTH.unpack_from(room)[0]
    if len(room) < size_bytes:
        room.extend(bytes(size_bytes - len(room)))
    data = memoryview(room)[:size_bytes]
    return data if _fill(connection, data) else None


def _fill(connection: socket.socket, left: memoryview) -> bool:
    while left:
        # Fewer than asked for come when a process is stopped and goes on, and when a machine wakes up.
        count = connection.recv_into(left, len(left), socket.MSG_WAITALL)
        if not count:
            return False
        left = left[count:]
    return True


def serve(connection: socket.socket) -> None:
    """Do what is asked until the other end closes."""
    segments: dict[int, SegmentFiles] = {}
    room = bytearray(_ROOM_BYTES)  # one for all messages: a fresh one each costs more than to fill it
    while (data := _receive(connection, room)) is not None:
        request = _REQUESTS.decode(data)
        data.release()  # else it cannot grow
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
