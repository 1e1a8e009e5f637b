"""Puts the market stream's messages back into whole tape blocks, each once, in tape order per connection. Pure.

A block's messages are grouped by (kind, ticker), so only the whole block, sorted by (n, index), tells what happened
in which order: it is held until its mark is here. A publisher that had trouble publishes again from its last mark, so
places may repeat, and a missing part may come late: what follows it is held, up to a limit of time and messages; past
the limit it is released with the hole named.

What is released when follows from the messages alone, and from when a hole was given up (`GiveUp`): a second assembler
that begins at a `Position` of the first, and is told the same, releases the same blocks at the same sequences. So a
reader can go on in another process, or read a client's missed messages again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from ssmd.schemas.market_message import MARK_PART, Mark, Place, decode_mark
from ssmd.streams.transport import StreamMessage

HOLD_NS: Final = 5_000_000_000


class ReadyBlock(NamedTuple):
    """A block to apply.

    Attributes:
        stream_seq: sequence of the message that released it: of its mark, unless a missing part or block came later. It
            never falls from one block to the next, also between connections.
        mark: None where it never came.
        parts: its messages, in order of part.
        hole: what is missing in or before it, for people; "" = it follows the block before without a hole.
        since_ns: receive time of the block before; 0 = there was none.
    """

    connection: str
    stream_seq: int
    mark: Mark | None
    parts: list[StreamMessage]
    hole: str
    since_ns: int


class LinePosition(msgspec.Struct, frozen=True):
    """How far one connection is: everything up to (session, n). `is_loose`: what comes next is not compared with it."""

    session: int
    n: int
    recv_ns: int
    is_loose: bool


class Position(msgspec.Struct, frozen=True):
    """Where an assembler is.

    Attributes:
        after: reading on begins behind this sequence: before the oldest message that is held.
        taken: sequence of the last message taken; what it and those before it released has been released.
        give_ups: how often `give_up` has been called.
    """

    after: int
    taken: int
    lines: dict[str, LinePosition]
    give_ups: int


class GiveUp(msgspec.Struct, frozen=True):
    """After the message at `taken`, and before the next one, the front hole of `connection` was given up.

    `number`: counts them from 1.
    """

    number: int
    taken: int
    connection: str


class _Pending:
    __slots__ = ("mark", "mark_seq", "parts")

    def __init__(self) -> None:
        self.parts: dict[int, StreamMessage] = {}
        self.mark: Mark | None = None
        self.mark_seq = 0

    @property
    def missing(self) -> int:
        return -1 if self.mark is None else self.mark.parts - len(self.parts)

    @property
    def first_seq(self) -> int:
        """The lowest sequence of its messages."""
        seqs = [part.seq for part in self.parts.values()]
        return min([*seqs, self.mark_seq] if self.mark is not None else seqs)


class _Line:
    """One connection: the last place released, and the blocks held behind it by (session, first_n)."""

    __slots__ = ("held_since_ns", "is_loose", "last", "last_recv_ns", "pending")

    def __init__(self) -> None:
        self.last: tuple[int, int] | None = None
        self.last_recv_ns = 0
        self.is_loose = False
        self.pending: dict[tuple[int, int], _Pending] = {}
        self.held_since_ns: int | None = None


class BlockAssembler:
    """Holds incomplete blocks; the caller gives the monotonic time.

    Args:
        hold_ns: how long a hole may wait for its filling once something behind it is here.
        messages_max: messages held in all, at most; past it the oldest hole of the connection at hand is given up.
    """

    def __init__(self, *, hold_ns: int = HOLD_NS, messages_max: int = 50_000, begin: Position | None = None) -> None:
        self._hold_ns = hold_ns
        self._messages_max = messages_max
        self._lines: dict[str, _Line] = {}
        self.taken = 0
        """Sequence of the last message taken."""
        self.give_ups = 0
        self.held = 0
        self.duplicates = 0
        self.holes = 0
        if begin is not None:
            self.taken, self.give_ups = begin.taken, begin.give_ups
        for connection, at in ({} if begin is None else begin.lines).items():
            line = self._lines[connection] = _Line()
            line.last, line.last_recv_ns, line.is_loose = (at.session, at.n), at.recv_ns, at.is_loose

    @property
    def position(self) -> Position:
        """Where this assembler is now."""
        oldest = [pending.first_seq for line in self._lines.values() for pending in line.pending.values()]
        return Position(min(oldest, default=self.taken + 1) - 1, self.taken, dict(self.lines), self.give_ups)

    @property
    def lines(self) -> Mapping[str, LinePosition]:
        """How far each connection is that anything was released of."""
        return {
            name: LinePosition(*line.last, line.last_recv_ns, line.is_loose)
            for name, line in self._lines.items()
            if line.last is not None
        }

    def take(self, message: StreamMessage, place: Place, now_ns: int) -> list[ReadyBlock]:
        """Take one message; the blocks it made ready.

        Raises:
            Malformed: a mark that is none.
        """
        self.taken = max(self.taken, message.seq)
        line = self._lines.setdefault(place.connection, _Line())
        key = (place.session, place.first_n)
        if line.last is not None and key <= line.last:
            self.duplicates += 1
            return []
        mark = decode_mark(message.payload) if place.part == MARK_PART else None
        pending = line.pending.setdefault(key, _Pending())
        if mark is not None:
            if pending.mark is not None:
                self.duplicates += 1
                return []
            pending.mark, pending.mark_seq = mark, message.seq
        elif place.part in pending.parts:
            self.duplicates += 1
            return []
        else:
            pending.parts[place.part] = message
            self.held += 1
        ready = self._release(place.connection, line, now_ns)
        while self.held > self._messages_max and line.held_since_ns is not None:
            ready += self._give_up(place.connection, line, now_ns)
        return ready

    def overdue(self, now_ns: int) -> list[str]:
        """Connections whose front hole has waited for `hold_ns`: to be given up."""
        return [
            connection
            for connection, line in self._lines.items()
            if line.held_since_ns is not None and now_ns - line.held_since_ns >= self._hold_ns
        ]

    def give_up(self, connection: str, now_ns: int) -> list[ReadyBlock]:
        """Release the front block of `connection` as it is, and what it held up; nothing where none is held."""
        self.give_ups += 1
        line = self._lines.get(connection)
        return [] if line is None or not line.pending else self._give_up(connection, line, now_ns)

    @property
    def waiting(self) -> str:
        """The connections held up by a hole, for people; "" = none."""
        return ", ".join(sorted(name for name, line in self._lines.items() if line.held_since_ns is not None))

    def _release(self, connection: str, line: _Line, now_ns: int) -> list[ReadyBlock]:
        """All blocks at the front that are complete and follow on."""
        ready: list[ReadyBlock] = []
        while line.pending:
            key = min(line.pending)
            pending = line.pending[key]
            if not self._is_next(line, pending):
                if line.held_since_ns is None and (pending.mark is not None or len(line.pending) > 1):
                    line.held_since_ns = now_ns
                return ready
            hole = "" if line.last is None or line.is_loose else self._break(line, pending)
            ready.append(self._pop(connection, line, key, hole))
            line.held_since_ns = None
        return ready

    @staticmethod
    def _is_next(line: _Line, pending: _Pending) -> bool:
        mark = pending.mark
        if mark is None:
            return False
        if line.last is None:
            # Retention may have cut the first block in two: only its front may be missing.
            return all(part in pending.parts for part in range(min(pending.parts, default=mark.parts), mark.parts))
        previous = (mark.previous_session, mark.previous_n)
        return pending.missing <= 0 and (line.is_loose or previous in (line.last, (0, 0)))

    def _break(self, line: _Line, pending: _Pending) -> str:
        mark = pending.mark
        if mark is None or (mark.previous_session, mark.previous_n) == line.last or line.last is None:
            return ""
        self.holes += 1
        return f"a new tape begins after session {line.last[0]} n {line.last[1]}"

    def _give_up(self, connection: str, line: _Line, now_ns: int) -> list[ReadyBlock]:
        """Release the front block as it is, its hole named, and what follows it."""
        key = min(line.pending)
        pending = line.pending[key]
        if pending.mark is None:
            hole = f"block (session {key[0]}, n {key[1]}) has no mark"
        elif pending.missing > 0:
            hole = f"block (session {key[0]}, n {key[1]}) lacks {pending.missing} of {pending.mark.parts} messages"
        else:
            last = line.last or (0, 0)
            hole = (
                f"after session {last[0]} n {last[1]} comes a block behind "
                f"session {pending.mark.previous_session} n {pending.mark.previous_n}"
            )
        self.holes += 1
        line.held_since_ns = None
        block = self._pop(connection, line, key, hole)
        return [block, *self._release(connection, line, now_ns)]

    def _pop(self, connection: str, line: _Line, key: tuple[int, int], hole: str) -> ReadyBlock:
        pending = line.pending.pop(key)
        self.held -= len(pending.parts)
        parts = [pending.parts[part] for part in sorted(pending.parts)]
        since_ns = line.last_recv_ns
        if pending.mark is None:
            # How far the block went is unknown: whatever comes next is taken without comparing.
            line.last, line.is_loose = key, True
            return ReadyBlock(connection, self.taken, None, parts, hole, since_ns)
        line.last, line.is_loose = (key[0], pending.mark.last_n), False
        line.last_recv_ns = pending.mark.ts_recv_ns
        return ReadyBlock(connection, self.taken, pending.mark, parts, hole, since_ns)
