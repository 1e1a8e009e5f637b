"""How far our clock is from the venue's, from receive times and the venue's times of the same frames.

The shortest difference in a window is the offset plus the shortest time a frame took on its way (tens of milliseconds),
so it tells a clock that is off by more than that, or that moves. It is told as a fact when it has moved.
"""

from __future__ import annotations

from typing import Final

from ssmd.domain import capture
from ssmd.exchanges.kalshi.output import Output

WINDOW_NS: Final = 10_000_000_000
MOVED_NS: Final = 500_000_000
"""A difference to the offset told last (0 at the session's begin) that is news."""
STAND_NS: Final = 2_000_000_000
"""A shorter stand-still may be over when the step is told (within a second)."""
_UNKNOWN: Final = 1 << 62
_DISREGARDED: Final = -_UNKNOWN
"""In place of the shortest difference: this window tells nothing, whatever comes."""


class ClockOffset:
    """Of one session.

    Attributes:
        offset_ns: of the last window that told it, 0 = none has.
        least_ns: the shortest difference in this window.
        due_ns: when this window ends; the first one begins with the first frame.
    """

    __slots__ = ("due_ns", "least_ns", "offset_ns", "told_ns")

    def __init__(self) -> None:
        self.offset_ns = 0
        self.least_ns = _UNKNOWN
        self.due_ns = 0
        self.told_ns = 0

    def see(self, ts_recv_ns: int, ts_event_ns: int) -> None:
        """Take the two times of a frame; `ts_event_ns` 0 = the venue told none."""
        if ts_event_ns and ts_recv_ns - ts_event_ns < self.least_ns:
            self.least_ns = ts_recv_ns - ts_event_ns

    def judge(self, out: Output) -> None:
        """End the window if it is time, and tell an offset that has moved."""
        if out.ts_ns < self.due_ns:
            return
        least_ns, is_first = self.least_ns, not self.due_ns
        self.due_ns, self.least_ns = out.ts_ns + WINDOW_NS, _UNKNOWN
        if is_first or least_ns in {_UNKNOWN, _DISREGARDED}:
            return
        self.offset_ns = least_ns
        self._tell(out)

    def stepped(self, out: Output, step_ns: int) -> None:
        """Our clock was stepped. A step back makes the tape's times stand still, so no window ends until it has caught up:
        what was measured is taken to be off by that much. Other steps show in the next window.
        """
        if self.offset_ns and step_ns < -STAND_NS:
            self.offset_ns += step_ns
            self.least_ns = _DISREGARDED
            self._tell(out)

    def _tell(self, out: Output) -> None:
        if abs(self.offset_ns - self.told_ns) > MOVED_NS:
            out.facts.append(capture.ClockOffset(*out.place, self.offset_ns, self.told_ns))
            self.told_ns = self.offset_ns
