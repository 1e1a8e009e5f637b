"""Whether the books that follow from a session's frames are possible: no level below zero, none crossed for long.

Sequence numbers prove that no frame was lost; they do not prove that the venue's own book was right. A book that cannot
be is told once and then left alone until its next snapshot. Prices off the market's grid are told, and change nothing.

A book is looked at from its snapshot on, and only at the usual exponents (1/10,000 dollar, 1/100 contract): a finer
number ends the look until the next snapshot. Crossed for a moment is normal: in the recordings of 2026-05 a taker's
order shows for up to 1 ms before the level it takes is gone.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.exchanges.kalshi.frames import UNREADABLE
from ssmd.schemas.decimals import Memo, render
from ssmd.schemas.records import BookSnapshot

CROSSED_NS: Final = 1_000_000_000
"""A book crossed for longer than this is wrong."""
ONE: Final = 10_000
_NO_ASK: Final = ONE + 1
_PRICES: Final = Memo(-4, (0, ONE))


class Broken(NamedTuple):
    """A book that cannot be. `since_ns`: its last snapshot, the last moment it was known to be right."""

    reason: str
    since_ns: int


class _Range(msgspec.Struct):
    start: str
    end: str
    step: str


class _Ranges(msgspec.Struct):
    price_ranges: list[_Range] = []


_RANGES: Final = msgspec.json.Decoder(_Ranges)
Grid = tuple[tuple[int, int, int], ...]
"""(start, end, step) in 1/10,000 dollar; a price of a range is start + k x step, both ends included."""


def grid_of(body: str) -> Grid:
    """The grid in the `price_ranges` of a lifecycle message's body; () where it has none that can be read."""
    try:
        ranges = [(_PRICES[one.start], _PRICES[one.end], _PRICES[one.step]) for one in _RANGES.decode(body).price_ranges]
    except UNREADABLE:
        return ()
    return tuple(ranges) if all(step > 0 for _, _, step in ranges) else ()


def is_on(grid: Grid, price: int) -> bool:
    """Whether `price` is a price of the grid; whole cents always are (a grid may change while a market trades)."""
    return price % 100 == 0 or any(start <= price <= end and (price - start) % step == 0 for start, end, step in grid)


class _Levels:
    __slots__ = ("asks", "best_ask", "best_bid", "bids", "crossed_ns", "since_ns")

    def __init__(self, bids: dict[int, int], asks: dict[int, int], since_ns: int) -> None:
        self.bids = bids
        self.asks = asks
        self.best_bid = max(bids, default=0)
        self.best_ask = min(asks, default=_NO_ASK)
        # Since when best bid and ask meet, 0 = they do not.
        self.crossed_ns = 0
        self.since_ns = since_ns

    def touch(self, price: int, is_bid: bool, is_gone: bool) -> None:
        """A level at `price` has come, or is gone."""
        if is_bid:
            if not is_gone:
                if price > self.best_bid:  # noqa: PLR1730 - see `BookChecks.change`
                    self.best_bid = price
            elif price == self.best_bid:
                self.best_bid = max(self.bids, default=0)
        elif not is_gone:
            if price < self.best_ask:  # noqa: PLR1730 - see `BookChecks.change`
                self.best_ask = price
        elif price == self.best_ask:
            self.best_ask = min(self.asks, default=_NO_ASK)

    # Checkpoints hold thousands of books: arrays pickle some ten times as fast as dicts of integers.
    def __getstate__(self) -> tuple[Any, ...]:
        sides = (self.bids, self.asks)
        return (*(array("q", [*side.keys(), *side.values()]) for side in sides), self.crossed_ns, self.since_ns)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        bids, asks, crossed_ns, since_ns = state
        sides = [dict(zip(side[: len(side) // 2], side[len(side) // 2 :], strict=True)) for side in (bids, asks)]
        self.__init__(sides[0], sides[1], since_ns)  # type: ignore[misc]  # it is the one way to make one
        self.crossed_ns = crossed_ns


class BookChecks:
    """The books of one session that are being looked at."""

    def __init__(self) -> None:
        self._books: dict[str, _Levels] = {}
        self._grids: dict[str, Grid] = {}

    def learn_grid(self, ticker: str, body: str) -> None:
        """A lifecycle message came; if it tells the grid of `ticker`, that holds from now on."""
        grid = grid_of(body)
        if grid:
            self._grids[ticker] = grid

    def forget(self, tickers: Iterable[str]) -> None:
        """Frames of these are missing: nothing follows from what is known."""
        for ticker in tickers:
            self._books.pop(ticker, None)

    def end(self, ticker: str) -> None:
        """The market is over."""
        self._books.pop(ticker, None)
        self._grids.pop(ticker, None)

    def replace(self, record: BookSnapshot) -> str:
        """Begin with a snapshot; a price that is off the grid, as text, "" = none is."""
        if record.price_exponent != -4 or record.size_exponent != -2:
            self._books.pop(record.ticker, None)
            return ""
        levels = _Levels(dict(record.bids), dict(record.asks), record.ts_recv_ns)
        if levels.best_bid >= levels.best_ask:
            levels.crossed_ns = record.ts_recv_ns
        self._books[record.ticker] = levels
        prices = (price for side in (record.bids, record.asks) for price, _ in side)
        return next((text for price in prices if (text := self.off_grid(record.ticker, price))), "")

    def off_grid(self, ticker: str, price: int) -> str:
        """What is wrong with a level at `price`, "" = nothing that is known."""
        grid = self._grids.get(ticker)
        if 0 < price < ONE and (grid is None or is_on(grid, price)):
            return ""
        return f"{ticker}: a level at {render(price, -4)}, which is not on the market's price grid"

    def change(self, ticker: str, is_bid: bool, price: int, change: int, ts_ns: int) -> Broken | str | None:
        """Take a delta: None = all is well, Broken = the book cannot be (it is forgotten), text = its price is off the grid.

        Called for nearly every frame: what is usual comes first, and a call less counts.
        """
        book = self._books.get(ticker)
        if book is None:
            return None
        side = book.bids if is_bid else book.asks
        held = side.get(price, 0)
        size = held + change
        if held and size > 0:
            side[price] = size
            return self._crossed(ticker, book, ts_ns) if book.crossed_ns else None
        if size < 0:
            del self._books[ticker]
            name = "bid" if is_bid else "ask"
            return Broken(f"{ticker}: {name} {render(price, -4)} falls to size {render(size, -2)}", book.since_ns)
        if size:
            side[price] = size
        else:
            side.pop(price, None)
        # A level came or went.
        book.touch(price, is_bid, not size)
        if book.best_bid >= book.best_ask or book.crossed_ns:
            return self._crossed(ticker, book, ts_ns)
        if size and (price % 100 or not 0 < price < ONE):
            return self.off_grid(ticker, price) or None
        return None

    def _crossed(self, ticker: str, book: _Levels, ts_ns: int) -> Broken | None:
        """Follow a book whose best prices meet, or have met."""
        if book.best_bid < book.best_ask:
            book.crossed_ns = 0
        elif not book.crossed_ns:
            book.crossed_ns = ts_ns
        elif ts_ns - book.crossed_ns > CROSSED_NS:
            del self._books[ticker]
            bid, ask = render(book.best_bid, -4), render(book.best_ask, -4)
            return Broken(f"{ticker}: best bid {bid} has met best ask {ask} for more than 1 s", book.since_ns)
        return None
