"""What a tape holds, session by session, and whether it is what was written: one pass over all its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ssmd.errors import Malformed
from ssmd.schemas.blocks import Block, EntryKind
from ssmd.schemas.control import Connected, DayMark, Disconnected, decode_fact
from ssmd.streams.tape_files import Damage, indexes, size_bytes, verify


class SessionSummary(msgspec.Struct):
    """One connection made.

    Attributes:
        first_n, last_n: its entries on the tape; first_n > 1 = what was before has been pruned or is damaged.
        frames, commands, facts: entries of each kind.
        cause: how it ended, "" = it has not, as far as the tape knows.
        days_marked: dates it said to be over.
    """

    session: int
    first_n: int
    last_n: int = 0
    blocks: int = 0
    size_bytes: int = 0
    frames: int = 0
    commands: int = 0
    facts: int = 0
    first_recv_ns: int = 0
    last_recv_ns: int = 0
    url: str = ""
    cause: str = ""
    days_marked: list[str] = []

    def add(self, block: Block, stored_bytes: int) -> None:
        """Count one more block."""
        self.last_n = block.last_n
        self.blocks += 1
        self.size_bytes += stored_bytes
        self.last_recv_ns = block.entries[-1].ts_recv_ns
        for entry in block.entries:
            if entry.kind == EntryKind.IN:
                self.frames += 1
            elif entry.kind == EntryKind.OUT:
                self.commands += 1
            else:
                self.facts += 1
                self._learn(entry.payload)

    def _learn(self, payload: bytes) -> None:
        try:
            fact = decode_fact(payload)
        except Malformed:
            return  # a later version's
        if isinstance(fact, Connected):
            self.url = fact.url
        elif isinstance(fact, Disconnected):
            self.cause = fact.cause
        elif isinstance(fact, DayMark):
            self.days_marked.append(fact.date)


class TapeDamage(msgspec.Struct, frozen=True):
    """A place where the tape is not what was written."""

    file: str
    offset: int
    reason: str


class TapeSummary(msgspec.Struct, frozen=True):
    """All of a tape. `torn`: files with bytes that starts have cut off its end."""

    directory: str
    files: int
    size_bytes: int
    blocks: int
    sessions: tuple[SessionSummary, ...]
    damages: tuple[TapeDamage, ...]
    torn: tuple[str, ...]


def summarize(directory: Path) -> TapeSummary:
    """Read all of the tape in `directory`, checking digests, chain and numbering. Memory: one file piece and the sessions.

    A tape that is being written may end in a block that is not whole yet; that is no damage.
    """
    sessions: dict[int, SessionSummary] = {}
    damages: list[TapeDamage] = []
    blocks = 0
    for found in _checked(directory):
        if isinstance(found, TapeDamage):
            damages.append(found)
            continue
        block, stored_bytes = found
        blocks += 1
        summary = sessions.get(block.session)
        if summary is None:
            first_ns = block.entries[0].ts_recv_ns
            summary = sessions[block.session] = SessionSummary(block.session, block.first_n, first_recv_ns=first_ns)
        summary.add(block, stored_bytes)
    torn = tuple(sorted(path.name for path in directory.glob("torn-*.bytes"))) if directory.is_dir() else ()
    files = len(indexes(directory))
    return TapeSummary(str(directory), files, size_bytes(directory), blocks, tuple(sessions.values()), tuple(damages), torn)


def _checked(directory: Path) -> Iterator[tuple[Block, int] | TapeDamage]:
    for found in verify(directory):
        if isinstance(found, Damage):
            yield TapeDamage(f"{found.position.file_index:010}.tape", found.position.offset, found.reason)
        else:
            yield found.decode(), len(found.data)
