"""Whether a venue's counted frames are all there: one count per subscription (`sid`), from 1, by 1.

The venue's numbers are the only proof of completeness there is. A count is proven from its acknowledgement on; one whose
beginning is not in the archive proves nothing about what came before its first frame.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

import msgspec

HOLES_MAX: Final = 10_000
"""Holes of one count remembered; frames late for one beyond them count as duplicates."""


class SequenceProof(msgspec.Struct, frozen=True):
    """What is known of one count.

    Attributes:
        is_begun: its acknowledgement is archived, so that its first frame must be number 1.
        frames: counted frames that came in order; first_seq, last_seq: of them, 0 = there is none.
        missing: numbers that never came; duplicates: numbers that came again; late: numbers that came behind a higher
            one (they are not missing).
    """

    session: int
    sid: int
    channel: str
    is_begun: bool
    frames: int
    first_seq: int
    last_seq: int
    missing: int
    duplicates: int
    late: int

    @property
    def is_proven(self) -> bool:
        """Whether absence of holes can be told from it at all."""
        return self.is_begun and self.frames > 0


class SequenceCount:
    """The frames of one `sid` of a session, as they come."""

    __slots__ = ("_holes", "channel", "duplicates", "first_seq", "frames", "is_begun", "last_seq", "late", "missing")

    def __init__(self) -> None:
        self.channel = ""
        self.is_begun = False
        self.frames = 0
        self.first_seq = 0
        self.last_seq = 0
        self.missing = 0
        self.duplicates = 0
        self.late = 0
        self._holes: list[tuple[int, int]] = []

    def begin(self) -> None:
        """The subscription was acknowledged. Data that overtook the acknowledgement goes on counting."""
        self.is_begun = True

    def observe(self, seq: int) -> None:
        """Take the next frame's number (> 0)."""
        last = self.last_seq
        if seq == last + 1 or (not last and not self.is_begun):
            self.first_seq = self.first_seq or seq
            self.last_seq = seq
            self.frames += 1
        elif seq > last:
            self.missing += seq - last - 1
            if len(self._holes) < HOLES_MAX:
                self._holes.append((last + 1, seq - 1))
            self.first_seq = self.first_seq or seq
            self.last_seq = seq
            self.frames += 1
        elif self._fills(seq):
            self.late += 1
            self.missing -= 1
        else:
            self.duplicates += 1

    def _fills(self, seq: int) -> bool:
        at = bisect_right(self._holes, (seq, 1 << 63)) - 1
        if at < 0 or not self._holes[at][0] <= seq <= self._holes[at][1]:
            return False
        low, high = self._holes.pop(at)
        self._holes[at:at] = [hole for hole in ((low, seq - 1), (seq + 1, high)) if hole[0] <= hole[1]]
        return True

    def proof(self, session: int, sid: int) -> SequenceProof:
        """What has come."""
        return SequenceProof(
            session, sid, self.channel, self.is_begun, self.frames, self.first_seq, self.last_seq,
            self.missing, self.duplicates, self.late,
        )  # fmt: skip
