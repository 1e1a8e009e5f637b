"""One session's entries on their way to the tape: numbered, timed, gathered into blocks.

A block ends after `block_ns`, at `block_bytes`, and at the day boundary. Receive times never decrease within a session;
a wall clock that steps against the monotonic one is told as a fact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ssmd.clock import Clock
from ssmd.schemas.blocks import ENTRY_OVERHEAD_BYTES, EntryKind, pack_columns
from ssmd.schemas.control import AnyFact, ClockStepped, DayMark, encode_fact
from ssmd.streams.tape import TapeWriter
from ssmd.streams.tape_files import TapeBlock

_IN_KIND: Final = bytes([EntryKind.IN])
BLOCK_BYTES: Final = 256 << 10
STEP_NS: Final = 500_000_000
"""A wall clock that moved by more than this against the monotonic clock since the last block has stepped."""


class Recorder:
    """Writes one session.

    Args:
        session: its number; see `schemas.blocks`.
        day_of: the day (YYYY-MM-DD) a receive time belongs to, and the first nanosecond of the day after it.
        on_block: called with each block right after its write(2), in order.
        on_begin: called when the first entry of a block has been taken, so that the owner can time its end.
    """

    def __init__(
        self,
        tape: TapeWriter,
        session: int,
        clock: Clock,
        *,
        day_of: Callable[[int], tuple[str, int]],
        on_block: Callable[[TapeBlock], None],
        on_begin: Callable[[], None],
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.session = session
        self.last_n = 0
        self.last_ts_ns = session
        self.last_frame_ns = 0
        self._tape = tape
        self._clock = clock
        self._day_of = day_of
        self._on_block = on_block
        self._on_begin = on_begin
        self._block_bytes = block_bytes
        self._date, self._day_end_ns = day_of(session)
        # The entries gathered, in columns; nearly all are frames, so only what is none has its kind noted.
        self._times: list[int] = []
        self._payloads: list[bytes] = []
        self._others: dict[int, EntryKind] = {}
        self._room_bytes = block_bytes
        self._offset_ns = clock.now_ns() - clock.monotonic_ns()

    @property
    def is_gathering(self) -> bool:
        """Whether entries wait for their block to be written."""
        return bool(self._times)

    def resume(self, last_n: int, last_ts_ns: int, last_frame_ns: int, *, is_marked: bool = False) -> None:
        """Go on behind entry `last_n` of a session that another process began; before anything is recorded.

        Args:
            is_marked: that entry marks the end of its day.
        """
        self.last_n = last_n
        self.last_ts_ns = last_ts_ns + is_marked  # the mark carries its day's last nanosecond
        self.last_frame_ns = last_frame_ns
        self._date, self._day_end_ns = self._day_of(self.last_ts_ns)

    def frame(self, payload: bytes) -> None:
        """Take one payload of the venue; its receive time is now.

        The way of every frame, so it makes no call it can do without.
        """
        ts_ns = self._clock.now_ns()
        if ts_ns < self.last_ts_ns:  # noqa: PLR1730 - see above
            ts_ns = self.last_ts_ns
        room_bytes = self._room_bytes - len(payload) - ENTRY_OVERHEAD_BYTES
        times = self._times
        if not times or room_bytes < 0 or ts_ns >= self._day_end_ns:
            self._add(EntryKind.IN, ts_ns, payload)
            self.last_frame_ns = ts_ns
            return
        self._room_bytes = room_bytes
        times.append(ts_ns)
        self._payloads.append(payload)
        self.last_n += 1
        self.last_frame_ns = self.last_ts_ns = ts_ns

    def command(self, payload: bytes) -> None:
        """Take one command of ours, before it is sent."""
        self._add(EntryKind.OUT, max(self._clock.now_ns(), self.last_ts_ns), payload)

    def fact(self, fact: AnyFact) -> None:
        """Take one fact of ours."""
        self._add(EntryKind.CTL, max(self._clock.now_ns(), self.last_ts_ns), encode_fact(fact))

    def _add(self, kind: EntryKind, ts_ns: int, payload: bytes) -> None:
        if ts_ns >= self._day_end_ns:
            self._turn_day(ts_ns)
        self._take(kind, ts_ns, payload)

    def _take(self, kind: EntryKind, ts_ns: int, payload: bytes) -> None:
        size_bytes = ENTRY_OVERHEAD_BYTES + len(payload)
        if self._times and size_bytes > self._room_bytes:
            self.flush()
        if not self._times:
            self._on_begin()
        if kind != EntryKind.IN:
            self._others[len(self._times)] = kind
        self._times.append(ts_ns)
        self._payloads.append(payload)
        self._room_bytes -= size_bytes
        self.last_n += 1
        self.last_ts_ns = ts_ns

    def _turn_day(self, ts_ns: int) -> None:
        """Mark the day that is over as its last entry, in a block of that day; after a failure the next call goes on."""
        if self.last_ts_ns < self._day_end_ns:
            # The mark carries that day's last nanosecond, and no later entry one of that day.
            self._take(EntryKind.CTL, self._day_end_ns - 1, encode_fact(DayMark(self._date)))
            self.last_ts_ns = self._day_end_ns
        self.flush()
        self.last_ts_ns = ts_ns
        self._date, self._day_end_ns = self._day_of(ts_ns)

    def turn_day(self) -> None:
        """Mark the day now if the clock is past its end: for sessions in which nothing happens."""
        now_ns = self._clock.now_ns()
        if now_ns >= self._day_end_ns:
            self._turn_day(now_ns)

    def watch_clock(self) -> None:
        """Tell a step of the wall clock, measured against the monotonic clock since the last call."""
        offset_ns = self._clock.now_ns() - self._clock.monotonic_ns()
        step_ns = offset_ns - self._offset_ns
        if abs(step_ns) > STEP_NS:
            self.fact(ClockStepped(step_ns))
        self._offset_ns = offset_ns

    def flush(self) -> None:
        """Write the block that is being gathered, if any.

        Raises:
            Unavailable: the tape cannot be written; the entries stay here, for another try.
        """
        times = self._times
        if not times:
            return
        count = len(times)
        kinds = bytearray(_IN_KIND * count)
        for at, kind in self._others.items():
            kinds[at] = kind
        body = pack_columns(kinds, times, self._payloads)
        block = self._tape.append(self.session, self.last_n - count + 1, count, times[0], times[-1], body)
        times.clear()
        self._payloads.clear()
        self._others.clear()
        self._room_bytes = self._block_bytes
        self._on_block(block)
