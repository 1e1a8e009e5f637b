"""Whether prices lie on the grid the venue says a market has. Exact: integers at the finest exponent of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ssmd.schemas.decimals import rescale


class GridRange(NamedTuple):
    """Prices from `start` to `end` (both inclusive) in steps of `step`, as mantissas at `exponent`; `step` > 0."""

    start: int
    end: int
    step: int
    exponent: int

    def has(self, price: int, exponent: int) -> bool:
        """Whether `price` (at `exponent`) is one of them."""
        finest = min(exponent, self.exponent)
        at = rescale(price, exponent, finest)
        start, end, step = (rescale(value, self.exponent, finest) for value in self[:3])
        return start <= at <= end and (at - start) % step == 0


class PriceCounts:
    """How often each price of one ticker occurred in trades and book levels."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[tuple[int, int], int] = {}

    def add(self, price: int, exponent: int) -> None:
        key = (price, exponent)
        self.counts[key] = self.counts.get(key, 0) + 1

    def off_grid(self, ranges: Iterable[GridRange]) -> dict[tuple[int, int], int]:
        """(price, exponent) -> occurrences, of those on none of `ranges`."""
        told = tuple(ranges)
        return {key: count for key, count in self.counts.items() if not any(one.has(*key) for one in told)}


Grids = Mapping[str, tuple[GridRange, ...]]
"""Ticker -> every grid it had on the day."""
