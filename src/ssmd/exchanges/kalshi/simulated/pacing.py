"""When the steps of the model happen: evenly, or as a busy market was measured to.

The measured shape (a 15-minute BTC market of May 2026): half of the seconds have at most 100 messages, 99 % at most
371, the busiest 643; in the busy ones hundreds come within one millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Final, Literal

SECOND_NS: Final = 1_000_000_000
BURST_NS: Final = 1_000_000
MEDIAN: Final = 100
P99: Final = 371
PEAK: Final = 643
"""Messages a second of one market: half of the seconds, 99 % of them, the busiest."""

Shape = Literal["even", "measured"]

_QUANTILES: Final = ((0, 20), (500_000, MEDIAN), (990_000, P99), (1_000_000, PEAK))
_BURSTING: Final = 250
"""A second with more messages than this has a burst, which is half of them."""


def even(start_ns: int, rate: int) -> Iterator[int]:
    """Times of steps 1, 2, ..: step k is at start + k / rate seconds."""
    step = 0
    while True:
        step += 1
        yield start_ns + step * SECOND_NS // rate


def measured(start_ns: int, scale_ppm: int, random: Random) -> Iterator[int]:
    """Times of steps 1, 2, .. with the measured shape; never decreasing.

    Args:
        scale_ppm: steps for each message of the measured market, in millionths.
        random: this iterator's own.
    """
    second_ns, left_ppm = start_ns, 0
    while True:
        figure = messages(random.randrange(1_000_000))
        left_ppm += figure * scale_ppm
        count, left_ppm = divmod(left_ppm, 1_000_000)
        burst = count // 2 if figure > _BURSTING else 0
        burst_ns = random.randrange(SECOND_NS - BURST_NS)
        spread = count - burst
        at = [(index * 2 + 1) * SECOND_NS // (2 * spread) for index in range(spread)]
        at += [burst_ns + index * BURST_NS // burst for index in range(burst)]
        for offset in sorted(at):
            yield second_ns + offset
        second_ns += SECOND_NS


def messages(quantile_ppm: int) -> int:
    """Messages in a second at this quantile (millionths, 0 to 1,000,000), between the measured points in a line."""
    for (low, least), (high, most) in pairwise(_QUANTILES):
        if quantile_ppm <= high:
            return least + (most - least) * (quantile_ppm - low) // (high - low)
    return PEAK
