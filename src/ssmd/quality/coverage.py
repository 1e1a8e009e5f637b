"""What is known of one ticker at each instant of a day: verified, unverifiable, missing, repaired, or not captured.

It is what the mapper assesses as it goes (`capture.interval-assessed`, docs/decisions/0013-intervals.md); here is how it is
shown. Intervals are half open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

Verdict = Literal["verified", "unverifiable", "missing", "repaired"]
VERDICTS: Final[tuple[Verdict, ...]] = ("verified", "unverifiable", "missing", "repaired")


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
