"""One connection's blocks in their order: what is new, what is a repeat, what has to wait for what is missing.

Blocks of one connection come in order, but for a publisher that sent again after trouble. A block that does not follow
the last one is held for a while; when what is missing does not come, the hole is told and the block goes on: data are
kept, the loss is named.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar

HOLD_BYTES_MAX: Final = 16 << 20
PASSED_MAX: Final = 1000
"""Links remembered: more blocks than a power failure takes."""

Content = TypeVar("Content")


class Place(NamedTuple):
    """An entry of a connection; (0, 0) before all."""

    session: int
    n: int


NOWHERE: Final = Place(0, 0)


class Unit(NamedTuple, Generic[Content]):
    """A block as the archive sees it.

    Attributes:
        session, first_n, last_n: its entries.
        follows: the `link` of the block before it; None = there is none before it on this connection.
        link: names this block.
        date: the day it belongs to; day_mark: the day it says is over, "" = none.
        first_seq, last_seq: stream messages it came in.
        message_id: of the last of them.
        size_bytes: what holding it costs.
        content: what is archived of it.
    """

    connection: str
    session: int
    first_n: int
    last_n: int
    follows: Hashable
    link: Hashable
    date: str
    day_mark: str
    first_seq: int
    last_seq: int
    message_id: str
    size_bytes: int
    content: Content


class Continuity(Generic[Content]):
    """See the module.

    Args:
        reached: the last entry that is done with.
        link: the `link` of its block, None = not known.
    """

    def __init__(self, reached: Place = NOWHERE, link: Hashable = None) -> None:
        self.reached = reached
        self._link = link
        self._passed: deque[Hashable] = deque(maxlen=PASSED_MAX)
        self._held: dict[Place, Unit[Content]] = {}
        self._held_bytes = 0
        self.duplicates = 0
        self.chain_breaks = 0

    @property
    def is_holding(self) -> bool:
        return bool(self._held)

    @property
    def is_full(self) -> bool:
        """What is held has grown past its bound: `give_up` has to be called."""
        return self._held_bytes > HOLD_BYTES_MAX

    def offer(self, unit: Unit[Content]) -> list[Unit[Content]]:
        """Take the next block from the stream; the blocks that can go on now, in order."""
        if Place(unit.session, unit.last_n) <= self.reached:
            self.duplicates += 1
            return []
        place = Place(unit.session, unit.first_n)
        if not self.is_next(unit):
            if place not in self._held:
                self._held[place] = unit
                self._held_bytes += unit.size_bytes
            else:
                self.duplicates += 1
            return []
        return [self._accept(unit), *self._released()]

    def missing(self) -> str:
        """What is waited for, in words; "" = nothing."""
        if not self._held:
            return ""
        first = self._held[min(self._held)]
        if self.reached == NOWHERE:
            expected = "the first entry of the connection's first session"
        elif first.session == self.reached.session:
            expected = f"entry {self.reached.n + 1} of session {self.reached.session}"
        else:
            expected = f"what follows entry {self.reached.n} of session {self.reached.session}"
        return f"hole on {first.connection}: expected {expected}, got entry {first.first_n} of session {first.session}"

    def give_up(self) -> list[Unit[Content]]:
        """What is missing will not come: the blocks that go on without it, in order. Call again while `is_holding`."""
        if not self._held:
            return []
        unit = self._held.pop(min(self._held))
        self._held_bytes -= unit.size_bytes
        return [self._accept(unit), *self._released()]

    def forget_held(self) -> list[Unit[Content]]:
        """Let go of what waits, which will be offered again; what that was."""
        forgotten = list(self._held.values())
        self._held.clear()
        self._held_bytes = 0
        return forgotten

    def is_next(self, unit: Unit[Content]) -> bool:
        """Whether `unit` follows what is done with."""
        if self.reached == NOWHERE:
            return unit.first_n == 1 and unit.follows is None
        if unit.session == self.reached.session:
            return unit.first_n == self.reached.n + 1
        # A tape that lost its tail with the power goes on behind an entry that we are past: nothing lies between.
        is_linked = self._link is None or unit.follows == self._link or unit.follows in self._passed
        is_linked = is_linked or (isinstance(unit.follows, Place) and unit.follows <= self.reached)
        return unit.session > self.reached.session and unit.first_n == 1 and is_linked

    def _accept(self, unit: Unit[Content]) -> Unit[Content]:
        if self._link is not None and unit.session == self.reached.session and unit.follows != self._link:
            self.chain_breaks += 1
        self.reached = Place(unit.session, unit.last_n)
        self._link = unit.link
        self._passed.append(unit.link)
        return unit

    def _released(self) -> list[Unit[Content]]:
        released = []
        for place in sorted(self._held):
            unit = self._held[place]
            is_old = Place(unit.session, unit.last_n) <= self.reached
            if not is_old and not self.is_next(unit):
                break
            del self._held[place]
            self._held_bytes -= unit.size_bytes
            if not is_old:
                released.append(self._accept(unit))
        return released
