"""The wall clock between two sessions, when no recorder watches it."""

from __future__ import annotations

from ssmd.clock import Clock
from ssmd.schemas.control import ClockStepped
from ssmd.streams.recorder import STEP_NS, Recorder


class ClockBetween:
    """`begin` right after a session's first entry, `end` right after its last one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ns: int | None = None

    def begin(self, recorder: Recorder) -> None:
        """Record a step that came since the session before, if there was one."""
        offset_ns = self._clock.now_ns() - self._clock.monotonic_ns()
        if self._offset_ns is not None and abs(offset_ns - self._offset_ns) > STEP_NS:
            recorder.fact(ClockStepped(offset_ns - self._offset_ns))

    def end(self) -> None:
        """From now on nobody watches."""
        self._offset_ns = self._clock.now_ns() - self._clock.monotonic_ns()
