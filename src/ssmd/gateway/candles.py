"""Trades by the minute: open, high, low, close, volume, exactly. Pure and bounded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from ssmd.schemas.decimals import rescale
from ssmd.schemas.records import Trade

MINUTE_NS: Final = 60_000_000_000
MINUTES_MAX: Final = 360
"""Minutes with trades kept per market."""


class Candle(msgspec.Struct, gc=False):
    """Trades of one stretch of time: mantissas at the ring's exponents."""

    start_ns: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int


class CandleRing(msgspec.Struct):
    """One market's newest minutes, oldest first. `dropped_ns`: start of the newest minute that is not kept any more."""

    price_exponent: int = 0
    size_exponent: int = 0
    candles: list[Candle] = []
    dropped_ns: int = 0

    def add(self, trade: Trade) -> None:
        """Count a trade, by the venue's time where it is known. One of a minute that is gone is not counted."""
        if not self.candles:
            self.price_exponent, self.size_exponent = trade.price_exponent, trade.size_exponent
        elif trade.price_exponent < self.price_exponent or trade.size_exponent < self.size_exponent:
            self._refine(min(trade.price_exponent, self.price_exponent), min(trade.size_exponent, self.size_exponent))
        price = rescale(trade.price, trade.price_exponent, self.price_exponent)
        size = rescale(trade.size, trade.size_exponent, self.size_exponent)
        at_ns = trade.ts_event_ns or trade.ts_recv_ns
        candle = self._candle(at_ns - at_ns % MINUTE_NS, price)
        if candle is not None:
            candle.high, candle.low = max(candle.high, price), min(candle.low, price)
            candle.close = price
            candle.volume += size
            candle.trades += 1

    def _candle(self, start_ns: int, price: int) -> Candle | None:
        held = self.candles
        at = len(held)
        while at and held[at - 1].start_ns > start_ns:
            at -= 1
        if at and held[at - 1].start_ns == start_ns:
            return held[at - 1]
        if start_ns <= self.dropped_ns:
            return None
        candle = Candle(start_ns, price, price, price, price, 0, 0)
        held.insert(at, candle)
        if len(held) > MINUTES_MAX:
            self.dropped_ns = held.pop(0).start_ns
        return candle

    def _refine(self, price_exponent: int, size_exponent: int) -> None:
        factor = rescale(1, self.price_exponent, price_exponent)
        size_factor = rescale(1, self.size_exponent, size_exponent)
        self.price_exponent, self.size_exponent = price_exponent, size_exponent
        for one in self.candles:
            one.open, one.high, one.low, one.close = (value * factor for value in (one.open, one.high, one.low, one.close))
            one.volume *= size_factor

    def by(self, width_ns: int) -> list[Candle]:
        """Candles of `width_ns` (whole minutes) that begin at its multiples, oldest first."""
        return _merged(self.candles, width_ns)


def _merged(candles: Iterable[Candle], width_ns: int) -> list[Candle]:
    found: list[Candle] = []
    for one in candles:
        start_ns = one.start_ns - one.start_ns % width_ns
        if not found or found[-1].start_ns != start_ns:
            found.append(msgspec.structs.replace(one, start_ns=start_ns))
            continue
        last = found[-1]
        last.high, last.low, last.close = max(last.high, one.high), min(last.low, one.low), one.close
        last.volume += one.volume
        last.trades += one.trades
    return found
