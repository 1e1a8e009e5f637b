"""A day's score out of what was measured: exact, with its formula beside it. Rules of version RULES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

RULES: Final = 2
"""2: a count proves nothing behind its last frame."""
PPM: Final = 1_000_000
FORMULA: Final = (
    "score = (60 coverage + 15 sequence + 10 records + 5 books + 10 trades) / 100, each part 0 to 1; a part that was not"
    " run is left out above and below"
)


class Part(msgspec.Struct, frozen=True):
    """One part of the score. `ppm` in millionths, rounded down, None = not run; `how`: its formula with its numbers."""

    name: str
    weight: int
    ppm: int | None
    how: str


def share(good: int, all_of: int) -> int:
    """What is good, of all, in millionths, rounded down and held to 0..1; nothing of nothing is all."""
    return PPM if all_of <= 0 else min(max(good * PPM // all_of, 0), PPM)


def score_of(parts: Sequence[Part]) -> int:
    """The score in millionths, rounded down. A day without any part is worth 0."""
    weights = sum(part.weight for part in parts if part.ppm is not None)
    return sum(part.weight * part.ppm for part in parts if part.ppm is not None) // weights if weights else 0


def coverage_part(verified: int, unverifiable: int, missing: int, repaired: int) -> Part:
    """Seconds that are proven, of all seconds of all tickers; what cannot be proven counts half."""
    total = verified + unverifiable + missing + repaired
    ppm = share(2 * (verified + repaired) + unverifiable, 2 * total) if total else 0
    seconds = [f"{nanoseconds // 10**9}" for nanoseconds in (verified, repaired, unverifiable, total)]
    how = (
        f"(verified {seconds[0]} s + repaired {seconds[1]} s + half of unverifiable {seconds[2]} s)"
        f" / {seconds[3]} s of all tickers"
    )
    return Part("coverage", 60, ppm, how)


def sequence_part(frames: int, missing: int, duplicates: int, late: int) -> Part:
    """Counted frames without those that are missing, came again or late. Not run where the venue counts nothing."""
    bad = missing + duplicates + late
    how = f"1 - (missing {missing} + duplicates {duplicates} + late {late}) / {frames + missing} counted frames"
    return Part("sequence", 15, share(frames + missing - bad, frames + missing) if frames else None, how)


def records_part(records: int, unmapped: int, negative: int, off_grid: int, duplicate_trades: int) -> Part:
    """Records without those that cannot be right."""
    bad = unmapped + negative + off_grid + duplicate_trades
    how = (
        f"1 - (unmapped {unmapped} + negative levels {negative} + off the grid {off_grid}"
        f" + trades twice {duplicate_trades}) / {records} records"
    )
    return Part("records", 10, share(records - bad, records) if records else None, how)


def books_part(covered_ns: int, crossed_ns: int) -> Part:
    """Time in which no book was crossed."""
    how = f"1 - crossed {crossed_ns // 1000} us / {covered_ns // 1000} us of covered books"
    return Part("books", 5, share(covered_ns - crossed_ns, covered_ns) if covered_ns else None, how)


def trades_part(matched: int, differing: int, missing: int, extra: int, *, is_run: bool, why_not: str = "") -> Part:
    """Trades that both we and the venue have, of all that either has; those of known gaps count in coverage."""
    total = matched + differing + missing + extra
    how = f"matched {matched} / (matched + differing {differing} + missing {missing} + extra {extra})"
    if not is_run:
        return Part("trades", 10, None, why_not)
    return Part("trades", 10, share(matched, total), how)
