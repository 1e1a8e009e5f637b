"""Candles of one simulated market: a minute each, folded into hours and days when asked for. Integers only.

Bids and asks are sampled when the market's ticker is sent (at most once a second), prices are of its trades.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

MINUTE_S: Final = 60
INTERVALS: Final = (1, 60, 1440)
"""Minutes a candle may span."""
KEPT: Final = 50_000
"""Minutes of all markets together; the oldest are forgotten."""


class Spread:
    """First, lowest, highest and last of what was added."""

    __slots__ = ("close", "high", "low", "open")

    def __init__(self, value: int) -> None:
        self.open = self.low = self.high = self.close = value

    def add(self, value: int) -> None:
        self.low, self.high, self.close = min(self.low, value), max(self.high, value), value

    def join(self, later: Spread) -> None:
        """Go on with what came after."""
        self.low, self.high, self.close = min(self.low, later.low), max(self.high, later.high), later.close

    def copy(self) -> Spread:
        same = Spread(self.open)
        same.low, same.high, same.close = self.low, self.high, self.close
        return same


class Candle:
    """What happened up to `end_s` (Unix seconds, exclusive).

    `price` None = no trade; `previous` is the price before the minute, 0 = none. Prices are in 1/10,000 dollar;
    `volume` and `open_interest` in 1/100 contract; `paid` is the sum of price x size.
    """

    __slots__ = ("ask", "bid", "end_s", "open_interest", "paid", "previous", "price", "volume")

    def __init__(self, end_s: int, bid: int, ask: int, previous: int, open_interest: int) -> None:
        self.end_s = end_s
        self.bid, self.ask = Spread(bid), Spread(ask)
        self.price: Spread | None = None
        self.previous = previous
        self.volume = self.paid = 0
        self.open_interest = open_interest

    @property
    def mean(self) -> int:
        """Mean price weighted by size, rounded down; 0 without trades."""
        return self.paid // self.volume if self.volume else 0


class Ledger:
    """Which market has the oldest minutes, so that all together stay bounded."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._order: deque[list[Candle]] = deque()

    def began(self, minutes: list[Candle]) -> None:
        """A minute was appended to `minutes`."""
        self._order.append(minutes)
        if len(self._order) > self._kept:
            del self._order.popleft()[0]


class Candles:
    """The minutes of one market, oldest first."""

    __slots__ = ("_ledger", "_minutes")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._minutes: list[Candle] = []

    def quote(self, ts_s: int, bid: int, ask: int, last: int, open_interest: int) -> None:
        """Note best bid and ask."""
        candle = self._at(ts_s, bid, ask, last, open_interest)
        candle.bid.add(bid)
        candle.ask.add(ask)
        candle.open_interest = open_interest

    def trade(
        self, ts_s: int, price: int, size: int, quote: Callable[[], tuple[int, int]], before: int, open_interest: int
    ) -> None:
        """Note a trade; `quote` tells best bid and ask where the minute has none yet, `before` is the last price."""
        end_s = _end(ts_s, 1)
        if not self._minutes or self._minutes[-1].end_s != end_s:
            self._at(ts_s, *quote(), before, open_interest)
        candle = self._minutes[-1]
        if candle.price is None:
            candle.price = Spread(price)
        else:
            candle.price.add(price)
        candle.volume += size
        candle.paid += price * size

    def between(self, start_s: int, end_s: int, minutes: int) -> list[Candle]:
        """Candles of `minutes` whose end lies in [start_s, end_s], oldest first; minutes without any event have none."""
        return [candle for candle in fold(self._minutes, minutes) if start_s <= candle.end_s <= end_s]

    def _at(self, ts_s: int, bid: int, ask: int, last: int, open_interest: int) -> Candle:
        end_s = _end(ts_s, 1)
        if not self._minutes or self._minutes[-1].end_s != end_s:
            self._minutes.append(Candle(end_s, bid, ask, last, open_interest))
            self._ledger.began(self._minutes)
        return self._minutes[-1]


def fold(candles: Iterable[Candle], minutes: int) -> list[Candle]:
    """Minute candles as candles of `minutes`."""
    folded: list[Candle] = []
    for candle in candles:
        end_s = _end(candle.end_s - 1, minutes)
        if not folded or folded[-1].end_s != end_s:
            whole = Candle(end_s, 0, 0, candle.previous, 0)
            whole.bid, whole.ask = candle.bid.copy(), candle.ask.copy()
            folded.append(whole)
        else:
            whole = folded[-1]
            whole.bid.join(candle.bid)
            whole.ask.join(candle.ask)
        if candle.price is not None and whole.price is not None:
            whole.price.join(candle.price)
        elif candle.price is not None:
            whole.price = candle.price.copy()
        whole.volume += candle.volume
        whole.paid += candle.paid
        whole.open_interest = candle.open_interest
    return folded


def _end(ts_s: int, minutes: int) -> int:
    span_s = minutes * MINUTE_S
    return ts_s - ts_s % span_s + span_s
