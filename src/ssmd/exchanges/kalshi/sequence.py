"""Kalshi's sequence numbers: one count per subscription (`sid`), over data and acks alike, from 1, by 1."""

from __future__ import annotations


class Sequences:
    """The last `seq` of every `sid` of one connection."""

    __slots__ = ("_acknowledged", "_last")

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._acknowledged: set[int] = set()

    def begin(self, sid: int) -> None:
        """`sid` was acknowledged by `subscribed`: its first frame has seq 1.

        Until 2026-09-17 data could overtake the acknowledgement; numbers seen so before it go on counting.
        """
        if sid in self._acknowledged or sid not in self._last:
            self._last[sid] = 0
        self._acknowledged.add(sid)

    def end(self, sid: int) -> None:
        """`sid` is gone (unsubscribed, or ended by the venue)."""
        self._last.pop(sid, None)
        self._acknowledged.discard(sid)

    def last(self, sid: int) -> int:
        """The last number of `sid`, 0 = none came."""
        return self._last.get(sid, 0)

    def follows(self, sid: int, seq: int) -> bool:
        """Take the next frame of `sid` if it is in order; nothing changes if it is not, or is the first one."""
        last = self._last
        if last.get(sid) == seq - 1:
            last[sid] = seq
            return True
        return False

    def observe(self, sid: int, seq: int) -> int:
        """Take the next frame of `sid`.

        Returns:
            0: in order, or the first frame of a `sid` whose beginning was not seen (never a gap);
            k > 0: k frames are missing right before this one;
            k < 0: repeated or late, `-k` at or behind the last one; it changes nothing.
        """
        last = self._last.get(sid)
        if last is None or seq == last + 1:
            self._last[sid] = seq
            return 0
        if seq <= last:
            return seq - last - 1
        self._last[sid] = seq
        return seq - last - 1
