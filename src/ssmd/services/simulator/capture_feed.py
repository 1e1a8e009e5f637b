"""Plays a capture: each recorded connection goes verbatim to one accepted WebSocket connection.

Theory of operation. Recorded connections stand in a queue. An accepted handshake takes the first one; its first
`subscribe` starts the frames, spaced as recorded divided by the speed, or as fast as the client reads. At the end the
connection is closed with 1000 and the next handshake gets the next one. When none is left handshakes get 503
`capture_exhausted`; while the last ones are still being played, 503 `capture_busy`. Nothing is acknowledged: the
recording has its own acks.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from ssmd.errors import SsmdError
from ssmd.exchanges.kalshi.simulated.subscriptions import ERRORS
from ssmd.exchanges.kalshi.simulated.wire import frame as error_frame
from ssmd.services.simulator.capture_file import CapturedFrame, Span, frames, spans
from ssmd.services.simulator.capture_listing import CaptureListing
from ssmd.services.simulator.connection import Connection

_BATCH = 512
_SID = re.compile(rb'"sid":(\d+)')
_SEQ = re.compile(rb'"seq":(\d+)')


class _Part:
    """What is left of one recorded connection: from line `line` on; `done` frames of it were sent."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.line = span.first
        self.done = 0
        self.last_payload = b""
        self.muted = False


class CaptureFeed:
    """A `Feed` from a file. `prepare` reads it once, whole, before anything is served."""

    def __init__(self, path: Path, speed: int, on_drop: str) -> None:
        self._path = path
        self._speed = speed
        self._on_drop = on_drop
        self.listing = CaptureListing()
        self._queue: deque[_Part] = deque()
        self._playing: dict[Connection, _Part] = {}
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self._failure: asyncio.Future[None] | None = None
        self._finished: list[Span] = []
        self._total = 0
        self._running = asyncio.Event()
        self._running.set()

    async def prepare(self) -> None:
        """Check every line and learn connections and markets.

        Raises:
            Malformed: a line does not fit; names file and line.
            Misconfigured: the file cannot be read.
        """
        self._failure = asyncio.get_running_loop().create_future()
        found = await asyncio.to_thread(self._scan)
        self._queue.extend(_Part(span) for span in found)
        self._total = sum(span.frames for span in found)

    def _scan(self) -> list[Span]:
        for item in spans(self._path):
            if isinstance(item, list):
                return item
            self.listing.add(item)
        raise AssertionError("spans ends with its list")

    @property
    def done(self) -> bool:
        """Every recorded connection has been played, and its client is gone."""
        return not self._queue and not self._playing

    def refusal(self) -> bytes:
        """Body of the 503 for the next handshake, b"" when there is something to play."""
        if self._queue:
            return b""
        code, message = ("capture_exhausted", "every connection of the capture has been played")
        if self._playing:
            code, message = ("capture_busy", "every connection left in the capture is being played")
        return msgspec.json.encode({"error": {"code": code, "message": message}})

    def attach(self, connection: Connection) -> None:
        """Give the connection its part; `refusal` was empty."""
        self._playing[connection] = self._queue.popleft()

    def command(self, connection: Connection, text: bytes) -> None:
        """The first `subscribe` starts the frames; everything else is passed over."""
        if connection in self._tasks or connection not in self._playing:
            return
        try:
            command = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            return
        if isinstance(command, dict) and command.get("cmd") == "subscribe":
            task = asyncio.create_task(self._play(connection, self._playing[connection]), name=f"play-{connection.number}")
            self._tasks[connection] = task
            task.add_done_callback(self._played)

    def terminal(self, connection: Connection, code: int) -> list[bytes]:
        """A terminal error on the sid of the last frame; this connection gets nothing more."""
        part = self._playing.get(connection)
        if part is None:
            return []
        part.muted = True
        sid, seq = _SID.search(part.last_payload), _SEQ.search(part.last_payload)
        body = msgspec.json.encode({"code": code, "msg": ERRORS[code]})
        return [error_frame("error", int(sid[1]) if sid else 1, int(seq[1]) + 1 if seq else 0, body)]

    def detach(self, connection: Connection) -> None:
        """Put back what was not played, as `on_drop` says."""
        part = self._playing.pop(connection, None)
        task = self._tasks.pop(connection, None)
        if task is not None:
            task.cancel()
        if part is None:
            return
        if part.done >= part.span.frames or (self._on_drop == "next" and part.done):
            self._finished.append(part.span)
            return
        if self._on_drop == "restart":
            part.line, part.done = part.span.first, 0
        part.muted = False
        self._queue.appendleft(part)

    def status(self) -> dict[str, object]:
        """Figures for the status page."""
        return {
            "mode": "capture",
            "capture": str(self._path),
            "done": self.done,
            "frames_total": self._total,
            "connections_left": len(self._queue),
            "connections_playing": len(self._playing),
            "connections_played": [
                {"conn": span.connection[0], "session": span.connection[1], "frames": span.frames} for span in self._finished
            ],
        }

    def pause(self, *, paused: bool) -> None:
        """Hold the frames back, or go on with them; their pace begins anew then."""
        if paused:
            self._running.clear()
        else:
            self._running.set()

    async def run(self) -> None:
        """Until cancelled; raises what made playing impossible (the file changed under us)."""
        assert self._failure is not None  # noqa: S101 - prepare came first
        try:
            await self._failure
        finally:
            for task in list(self._tasks.values()):
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _played(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._failure is None or self._failure.done():
            return
        error = task.exception()
        if error is not None:
            self._failure.set_exception(error)

    async def _play(self, connection: Connection, part: _Part) -> None:
        source = (found for found in frames(self._path, part.line) if found.connection == part.span.connection)
        loop = asyncio.get_running_loop()
        started: tuple[float, int] | None = None
        while part.done < part.span.frames:
            if not self._running.is_set():
                await self._running.wait()
                started = None
            batch = await asyncio.to_thread(_take, source, min(_BATCH, part.span.frames - part.done))
            if not batch:
                raise SsmdError(f"capture {self._path} became shorter while it was played")
            if started is None:
                started = (loop.time(), batch[0].ts_recv_ns)
            if not await self._play_batch(connection, part, batch, started):
                return
            # At full speed the socket alone sets the pace: let the loop turn.
            await asyncio.sleep(0)
        if await connection.writable():
            connection.close(1000, "")

    async def _play_batch(
        self, connection: Connection, part: _Part, batch: list[CapturedFrame], started: tuple[float, int]
    ) -> bool:
        """Send `batch` at the pace; False when the connection takes no more."""
        position = 0
        while position < len(batch):
            due = len(batch)
            if self._speed:
                due, wait_s = self._due(batch, position, started, asyncio.get_running_loop().time())
                if due == position:
                    await asyncio.sleep(wait_s)
                    continue
            if not await connection.writable() or part.muted:
                return False
            position += self._send(connection, part, batch[position:due])
            if not connection.open or part.muted:
                return False
        return True

    def _due(self, batch: list[CapturedFrame], position: int, started: tuple[float, int], now: float) -> tuple[int, float]:
        """End of the frames that are due now, and the wait until the next one."""
        reached_ns = started[1] + int((now - started[0]) * 1e9) * self._speed
        end = position
        while end < len(batch) and batch[end].ts_recv_ns <= reached_ns:
            end += 1
        wait_ns = batch[end].ts_recv_ns - reached_ns if end < len(batch) else 0
        return end, max(wait_ns / 1e9 / self._speed, 0.0005)

    def _send(self, connection: Connection, part: _Part, batch: list[CapturedFrame]) -> int:
        """Hand frames over; how many were taken. `part` then stands after the last of them."""
        taken = 0
        while taken < len(batch) and connection.open:
            single = connection.careful or any(item.binary for item in batch)
            run = batch[taken : taken + 1] if single else batch[taken:]
            if run[0].binary:
                connection.deliver_binary(run[0].payload)
                count = 1
            else:
                part.last_payload = run[-1].payload
                count = connection.deliver([item.payload for item in run])
            taken += count
            part.done += count
            if not count or part.muted:
                break
        if taken:
            part.line = batch[taken - 1].line + 1
        return taken


def _take(source: Iterator[CapturedFrame], count: int) -> list[CapturedFrame]:
    return list(islice(source, count))
