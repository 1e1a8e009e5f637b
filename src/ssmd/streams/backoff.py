"""How long to wait before trying again."""

from __future__ import annotations

from ssmd.identifiers import RandomBytes


def backoff_s(attempt: int, random: RandomBytes, *, first_s: float = 0.05, max_s: float = 5.0) -> float:
    """Seconds before attempt `attempt` (1 = the first repeat): doubling from `first_s`, at most `max_s`, half of it jitter."""
    ceiling = min(max_s, first_s * 2.0 ** min(attempt - 1, 20))
    return ceiling * (0.5 + int.from_bytes(random(2), "big") / 131072)
