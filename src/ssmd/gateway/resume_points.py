"""Where reading the market stream again may begin, so that it gives the same blocks at the same sequences. Pure."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from ssmd.gateway.assembly import GiveUp, Position

POINTS_MAX: Final = 512
GIVE_UPS_MAX: Final = 4_096
SPACING: Final = 2_000
"""Stream messages between two points, at first."""


class ResumePoints:
    """Positions of the assembler, about evenly spaced over all that was read, and the holes it gave up.

    When there are too many points every second one goes, and those to come lie twice as far apart.
    """

    def __init__(self, points: list[Position] | None = None, give_ups: list[GiveUp] | None = None) -> None:
        self.points: list[Position] = points or []
        self.give_ups: list[GiveUp] = give_ups or []
        self._spacing = SPACING
        if len(self.points) > 1:
            self._spacing = max(SPACING, (self.points[-1].taken - self.points[0].taken) // len(self.points))

    def is_due(self, taken: int) -> bool:
        """Whether it is time for another point."""
        return not self.points or taken - self.points[-1].taken >= self._spacing

    def add(self, position: Position) -> None:
        self.points.append(position)
        if len(self.points) > POINTS_MAX:
            # The newest stays: most clients that come back were away for a moment.
            self.points = self.points[1::2]
            self._spacing *= 2

    def gave_up(self, give_up: GiveUp) -> None:
        self.give_ups.append(give_up)
        del self.give_ups[:-GIVE_UPS_MAX]

    def before(self, stream_seq: int, first_seq: int) -> Position | None:
        """The last point at or before `stream_seq` that a stream which begins at `first_seq` still holds all behind."""
        at = bisect_right(self.points, stream_seq, key=_taken)
        found = self.points[at - 1] if at else None
        return found if found is not None and found.after >= first_seq - 1 else None

    def give_up_behind(self, number: int) -> GiveUp | None:
        """The next one after the `number`-th; None = there is none."""
        at = bisect_right(self.give_ups, number, key=_number)
        return self.give_ups[at] if at < len(self.give_ups) else None

    def give_ups_before(self, first_seq: int) -> int:
        """Number of the last one that came before the message at `first_seq`; 0 = none."""
        return max((one.number for one in self.give_ups if one.taken < first_seq), default=0)

    def clear(self) -> None:
        """The stream is another one now."""
        self.points.clear()
        self.give_ups.clear()
        self._spacing = SPACING


def _taken(position: Position) -> int:
    return position.taken


def _number(give_up: GiveUp) -> int:
    return give_up.number
