"""Puts the market stream's messages back into whole tape blocks, each once, in tape order per connection. Pure.

A block's messages are grouped by (kind, ticker), so only the whole block, sorted by (n, index), tells what happened
in which order: it is held until its mark is here. A publisher that had trouble publishes again from its last mark, so
places may repeat, and a missing part may come late: what follows it is held, up to a limit of time and messages; past
the limit it is released with the hole named.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ssmd.schemas.market_message import MARK_PART, Mark, Place, decode_mark
from ssmd.streams.transport import StreamMessage

HOLD_NS: Final = 5_000_000_000


class ReadyBlock(NamedTuple):
    """A block to apply.

    Attributes:
        stream_seq: sequence of its mark; of its last message where the mark never came.
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


class _Pending:
    __slots__ = ("mark", "mark_seq", "parts")

    def __init__(self) -> None:
        self.parts: dict[int, StreamMessage] = {}
        self.mark: Mark | None = None
        self.mark_seq = 0

    @property
    def missing(self) -> int:
        return -1 if self.mark is None else self.mark.parts - len(self.parts)


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

    def __init__(self, *, hold_ns: int = HOLD_NS, messages_max: int = 50_000) -> None:
        self._hold_ns = hold_ns
        self._messages_max = messages_max
        self._lines: dict[str, _Line] = {}
        self.held = 0
        self.duplicates = 0
        self.holes = 0

    def take(self, message: StreamMessage, place: Place, now_ns: int) -> list[ReadyBlock]:
        """Take one message; the blocks it made ready.

        Raises:
            Malformed: a mark that is none.
        """
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

    def overdue(self, now_ns: int) -> list[ReadyBlock]:
        """Blocks whose hole has waited for `hold_ns`."""
        ready: list[ReadyBlock] = []
        for connection, line in self._lines.items():
            while line.held_since_ns is not None and now_ns - line.held_since_ns >= self._hold_ns:
                ready += self._give_up(connection, line, now_ns)
        return ready

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
            return ReadyBlock(connection, max((part.seq for part in parts), default=0), None, parts, hole, since_ns)
        line.last, line.is_loose = (key[0], pending.mark.last_n), False
        line.last_recv_ns = pending.mark.ts_recv_ns
        return ReadyBlock(connection, pending.mark_seq, pending.mark, parts, hole, since_ns)
