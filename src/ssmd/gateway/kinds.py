"""What a subscription asks for: kinds of messages as bits, and tickers or the beginnings of tickers. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ssmd.gateway.interests import is_pattern, matches
from ssmd.schemas.records import WHOLE_CHANNEL

KINDS: Final = ("trade", "book", "quote", "status", "gap")
"""What a client can ask for; `book` brings snapshots and deltas."""

BIT_OF_KIND: Final = {"trade": 1, "book": 2, "snapshot": 2, "quote": 4, "status": 8, "gap": 16}


def bits_of(kinds: Iterable[str]) -> int:
    bits = 0
    for kind in kinds:
        bits |= BIT_OF_KIND[kind]
    return bits


class Wanted(NamedTuple):
    """What one subscription asks for, by ticker ("*" = all) and bits of kinds."""

    tickers: frozenset[str]
    bits: int

    @classmethod
    def of(cls, tickers: Iterable[str], kinds: Iterable[str]) -> Wanted:
        return cls(frozenset(tickers), bits_of(kinds))

    def takes(self, ticker: str, bit: int) -> bool:
        """A hole of a whole channel concerns whoever asked for gaps of any ticker."""
        if not self.bits & bit:
            return False
        return ticker in self.tickers or ticker == WHOLE_CHANNEL or any(matches(one, ticker) for one in self.patterns)

    @property
    def patterns(self) -> tuple[str, ...]:
        return tuple(one for one in self.tickers if is_pattern(one))
