"""What is known of one ticker at each instant of a day: verified, unverifiable, missing, repaired, or not captured.

A ticker is covered from the moment its data is whole (a book: from its snapshot on) until its session ends or a hole
opens. Covered time is verified where the venue's count of the subscription proves that nothing is absent: up to its last
counted frame. Else it is unverifiable. From a hole's last proven moment until its end the ticker is missing. Intervals are
half open. The same is told by the mapper as it goes (`capture.interval-assessed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple

Verdict = Literal["verified", "unverifiable", "missing", "repaired"]
VERDICTS: Final[tuple[Verdict, ...]] = ("verified", "unverifiable", "missing", "repaired")
"""Where intervals overlap, the later of these holds."""


class Span(NamedTuple):
    """An interval [start_ns, end_ns) of one verdict."""

    start_ns: int
    end_ns: int
    verdict: Verdict


class Repair(NamedTuple):
    """Part of a hole that was filled from elsewhere. `tickers` empty = for all it concerned."""

    gap_id: str
    start_ns: int
    end_ns: int
    tickers: frozenset[str]


class _Hole(NamedTuple):
    gap_id: str
    start_ns: int
    end_ns: int


class Timeline:
    """One ticker on one channel. Times of calls do not fall."""

    __slots__ = ("_covered", "_holes", "_open", "_since", "count")

    def __init__(self) -> None:
        self._covered: list[tuple[int, int, tuple[int, int]]] = []
        self._holes: list[_Hole] = []
        self._open: dict[str, int] = {}
        self._since = 0
        self.count: tuple[int, int] = (0, 0)

    @property
    def is_covered(self) -> bool:
        return self._since > 0

    @property
    def open_gaps(self) -> tuple[str, ...]:
        """Ids of the holes that have not ended."""
        return tuple(self._open)

    def begin(self, ts_ns: int, count: tuple[int, int]) -> None:
        """The ticker's data is whole from here; `count` (session, sid) is what would show a hole."""
        if count != self.count and self._since:
            self.end(ts_ns)
        self.count = count
        if not self._since and not self._open:
            self._since = ts_ns

    def end(self, ts_ns: int) -> None:
        """Nothing is received any more."""
        if self._since:
            if ts_ns > self._since:
                self._covered.append((self._since, ts_ns, self.count))
            self._since = 0

    def gap_opened(self, gap_id: str, start_ns: int) -> None:
        """A hole is there since `start_ns`, which may be in the past."""
        self._open[gap_id] = start_ns
        self.end(start_ns)

    def gap_closed(self, gap_id: str, start_ns: int, end_ns: int, count: tuple[int, int]) -> None:
        """The hole is over (its beginning may not have been seen)."""
        start_ns = self._open.pop(gap_id, start_ns)
        self._holes.append(_Hole(gap_id, start_ns, end_ns))
        if not self._open:
            self.begin(end_ns, count)

    def spans(
        self,
        start_ns: int,
        end_ns: int,
        proven_until_ns: Callable[[tuple[int, int]], int],
        repairs: Iterable[tuple[str, int, int]] = (),
    ) -> tuple[Span, ...]:
        """The verdicts within [start_ns, end_ns), in order, none overlapping, neighbours of one verdict joined.

        Args:
            proven_until_ns: up to when the count of (session, sid) proves completeness, 0 = it does not.
            repairs: (gap id, start, end) of what was filled.
        """
        found: list[tuple[int, int, Verdict]] = []
        covered = [*self._covered, *([(self._since, end_ns, self.count)] if self._since else ())]
        for low, high, count in covered:
            until_ns = min(max(low, proven_until_ns(count)), high)
            found += [(low, until_ns, "verified"), (until_ns, high, "unverifiable")]
        holes = [*self._holes, *(_Hole(gap_id, low, end_ns) for gap_id, low in self._open.items())]
        filled = [
            (max(low, hole.start_ns), min(high, hole.end_ns))
            for gap_id, low, high in repairs
            for hole in holes
            if hole.gap_id == gap_id
        ]
        found += [(hole.start_ns, hole.end_ns, "missing") for hole in holes]
        found += [(low, high, "repaired") for low, high in filled]
        return _painted(found, start_ns, end_ns)


def _painted(found: Sequence[tuple[int, int, Verdict]], start_ns: int, end_ns: int) -> tuple[Span, ...]:
    """`found` within the bounds, without overlap; neighbours of one verdict are joined."""
    clipped = [(max(low, start_ns), min(high, end_ns), verdict) for low, high, verdict in found]
    edges: list[tuple[int, int, Verdict]] = []
    for low, high, verdict in clipped:
        if low < high:
            edges += [(low, 1, verdict), (high, -1, verdict)]
    edges.sort(key=lambda edge: edge[0])
    spans: list[Span] = []
    active = dict.fromkeys(VERDICTS, 0)
    before = start_ns
    for ts_ns, step, verdict in edges:
        shown = next((one for one in reversed(VERDICTS) if active[one]), None)
        if shown is not None and ts_ns > before:
            last = spans[-1] if spans else None
            if last is not None and last.verdict == shown and last.end_ns == before:
                spans[-1] = Span(last.start_ns, ts_ns, shown)
            else:
                spans.append(Span(before, ts_ns, shown))
        active[verdict] += step
        before = ts_ns
    return tuple(spans)


def sums(spans: Iterable[Span]) -> dict[Verdict, int]:
    """Nanoseconds by verdict."""
    total = dict.fromkeys(VERDICTS, 0)
    for span in spans:
        total[span.verdict] += span.end_ns - span.start_ns
    return total


def verdict_at(spans: Sequence[Span], ts_ns: int) -> Verdict | None:
    """What holds at an instant; None = the ticker was not captured then."""
    at = _last_at(spans, ts_ns)
    return spans[at].verdict if at >= 0 and ts_ns < spans[at].end_ns else None


def _last_at(spans: Sequence[Span], ts_ns: int) -> int:
    """Index of the last span that starts at or before `ts_ns`, -1 = none does."""
    low, high = 0, len(spans)
    while low < high:
        middle = (low + high) // 2
        if spans[middle].start_ns <= ts_ns:
            low = middle + 1
        else:
            high = middle
    return low - 1
