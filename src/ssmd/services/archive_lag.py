"""How near an archiver is to losing messages to the stream's retention: what is not read, not sealed, and how old."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ssmd.clock import Clock
from ssmd.errors import Unavailable
from ssmd.services.archive_positions import Sealed
from ssmd.services.open_segment import OpenSegment
from ssmd.streams.transport import StreamName, StreamState, Transport

LOOK_S: Final = 5.0
_NOTHING: Final = StreamState("", 0, 0, 0, 0)


class ArchiveLag:
    """Of one archiver. `look` is called often and asks the stream every `LOOK_S`."""

    def __init__(self, transport: Transport, stream: StreamName, clock: Clock, spool: Path) -> None:
        self._transport = transport
        self._stream = stream
        self._clock = clock
        self._spool = spool
        self._state = _NOTHING
        self._looked_ns = 0
        self._behind_since_ns = 0

    async def look(self, read_seq: int) -> None:
        """Ask the stream how long it is, if that is due; an archiver whose stream is away says so elsewhere."""
        now_ns = self._clock.monotonic_ns()
        if self._looked_ns and now_ns - self._looked_ns < LOOK_S * 1e9:
            return
        self._looked_ns = now_ns
        try:
            self._state = await self._transport.state(self._stream)
        except Unavailable:
            return
        if read_seq >= self._state.last_seq:
            self._behind_since_ns = 0
        elif not self._behind_since_ns:
            self._behind_since_ns = self._clock.now_ns()

    def stats(self, read_seq: int, segments: Iterable[OpenSegment], sealed: Iterable[Sealed]) -> dict[str, int | str]:
        """For `Health.stats`; ages by the wall clock, because what was received carries its times."""
        since = [one.ts_recv_first_ns for one in segments if one.ts_recv_first_ns]
        if self._behind_since_ns:
            since.append(self._behind_since_ns)
        last_seq = max(self._state.last_seq, read_seq)
        done = last_seq if not since else max((one.last_seq for one in sealed), default=0)
        return {
            "unsealed_age_ms": max(0, self._clock.now_ns() - min(since)) // 1_000_000 if since else 0,
            "unsealed_messages": max(0, last_seq - done),
            "unread_messages": max(0, last_seq - read_seq),
            "stream_messages": self._state.messages,
            "disk_free_bytes": shutil.disk_usage(self._spool).free if self._spool.is_dir() else 0,
        }
