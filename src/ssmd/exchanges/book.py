"""The order book of one ticker, folded from `BookSnapshot` and `BookDelta` records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from ssmd.schemas.decimals import render, rescale
from ssmd.schemas.records import BookDelta, BookSnapshot, Side, SizeMeaning


class Level(NamedTuple):
    """Price and size at the book's exponents."""

    price: int
    size: int


class BookFinding(NamedTuple):
    """Something a sound book never shows: `what` is negative-level, crossed or unknown-side."""

    what: str
    detail: str


class Book:
    """Levels of both sides; values are mantissas at `price_exponent` and `size_exponent`.

    The exponents start at the first record's and become finer when a record's are finer; they never become coarser.
    A level is gone at size 0. A negative level is kept (later changes may mend it) but is not part of `levels`.
    """

    def __init__(self, ticker: str) -> None:
        self.ticker = ticker
        self.price_exponent = 0
        self.size_exponent = 0
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}
        self._best_bid: int | None = None
        self._best_ask: int | None = None
        # True while the cached best price of a side must be looked up again.
        self._is_bid_stale = False
        self._is_ask_stale = False
        self._was_crossed = False
        self._is_begun = False

    def apply(self, record: BookSnapshot | BookDelta) -> tuple[BookFinding, ...]:
        """Take the next record of this ticker. "crossed" is told once, when the book becomes so."""
        if not self._is_begun:
            self.price_exponent, self.size_exponent = record.price_exponent, record.size_exponent
            self._is_begun = True
        elif record.price_exponent != self.price_exponent or record.size_exponent != self.size_exponent:
            self._refine(min(record.price_exponent, self.price_exponent), min(record.size_exponent, self.size_exponent))
        found = self._replace(record) if isinstance(record, BookSnapshot) else self._change(record)
        return (*found, *self._crossed())

    def _change(self, record: BookDelta) -> tuple[BookFinding, ...]:
        price, size = record.price, record.size
        if record.price_exponent != self.price_exponent:
            price = rescale(price, record.price_exponent, self.price_exponent)
        if record.size_exponent != self.size_exponent:
            size = rescale(size, record.size_exponent, self.size_exponent)
        if record.side == Side.BID:
            side = self._bids
        elif record.side == Side.ASK:
            side = self._asks
        else:
            return (BookFinding("unknown-side", f"{self.ticker}: a delta at {price} has no side"),)
        if record.meaning == SizeMeaning.CHANGE:
            size += side.get(price, 0)
        if size == 0:
            side.pop(price, None)
        else:
            side[price] = size
        self._touch(record.side, price, size)
        return () if size >= 0 else (self._negative(record.side, price, size),)

    def _touch(self, side: Side, price: int, size: int) -> None:
        # Keeps the cached best price without a look at the other levels, except where the best one went away.
        if side == Side.BID:
            best = self._best_bid
            if size > 0 and (best is None or price > best):
                self._best_bid = price
            elif size <= 0 and price == best:
                self._is_bid_stale = True
        else:
            best = self._best_ask
            if size > 0 and (best is None or price < best):
                self._best_ask = price
            elif size <= 0 and price == best:
                self._is_ask_stale = True

    def _replace(self, record: BookSnapshot) -> tuple[BookFinding, ...]:
        self._bids = self._side(record, record.bids)
        self._asks = self._side(record, record.asks)
        self._is_bid_stale = self._is_ask_stale = True
        sides = ((Side.BID, self._bids), (Side.ASK, self._asks))
        return tuple(self._negative(side, price, size) for side, levels in sides for price, size in levels.items() if size < 0)

    def _side(self, record: BookSnapshot, levels: Iterable[tuple[int, int]]) -> dict[int, int]:
        price_factor = rescale(1, record.price_exponent, self.price_exponent)
        size_factor = rescale(1, record.size_exponent, self.size_exponent)
        return {price * price_factor: size * size_factor for price, size in levels if size}

    def _refine(self, price_exponent: int, size_exponent: int) -> None:
        price_factor = rescale(1, self.price_exponent, price_exponent)
        size_factor = rescale(1, self.size_exponent, size_exponent)
        self.price_exponent, self.size_exponent = price_exponent, size_exponent
        self._bids = {price * price_factor: size * size_factor for price, size in self._bids.items()}
        self._asks = {price * price_factor: size * size_factor for price, size in self._asks.items()}
        self._is_bid_stale = self._is_ask_stale = True

    def _negative(self, side: Side, price: int, size: int) -> BookFinding:
        at, amount = render(price, self.price_exponent), render(size, self.size_exponent)
        return BookFinding("negative-level", f"{self.ticker}: {side.name.lower()} {at} has size {amount}")

    def _crossed(self) -> tuple[BookFinding, ...]:
        bid, ask = self.best_bid, self.best_ask
        is_crossed = bid is not None and ask is not None and bid.price >= ask.price
        is_news = is_crossed and not self._was_crossed
        self._was_crossed = is_crossed
        if not is_news or bid is None or ask is None:
            return ()
        at, over = render(bid.price, self.price_exponent), render(ask.price, self.price_exponent)
        return (BookFinding("crossed", f"{self.ticker}: best bid {at} is not below best ask {over}"),)

    @property
    def best_bid(self) -> Level | None:
        """The highest bid, None without one."""
        if self._is_bid_stale:
            self._best_bid = max((price for price, size in self._bids.items() if size > 0), default=None)
            self._is_bid_stale = False
        return None if self._best_bid is None else Level(self._best_bid, self._bids[self._best_bid])

    @property
    def best_ask(self) -> Level | None:
        """The lowest ask, None without one."""
        if self._is_ask_stale:
            self._best_ask = min((price for price, size in self._asks.items() if size > 0), default=None)
            self._is_ask_stale = False
        return None if self._best_ask is None else Level(self._best_ask, self._asks[self._best_ask])

    def levels(self, depth: int = 0) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """(bids, asks), best first, at most `depth` a side (0 = all)."""
        bids = [Level(price, self._bids[price]) for price in sorted(self._bids, reverse=True) if self._bids[price] > 0]
        asks = [Level(price, self._asks[price]) for price in sorted(self._asks) if self._asks[price] > 0]
        return (tuple(bids[:depth]), tuple(asks[:depth])) if depth else (tuple(bids), tuple(asks))

    def levels_kept(self) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        """All (price, size) of (bids, asks), negative sizes included, in no order: a derived snapshot of them restores it."""
        return tuple(self._bids.items()), tuple(self._asks.items())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of ticker and levels, negative ones included; the same for equal values at any exponents."""
        state = hashlib.sha256(self.ticker.encode())
        for name, side in (("bid", self._bids), ("ask", self._asks)):
            for price in sorted(side):
                at, amount = render(price, self.price_exponent), render(side[price], self.size_exponent)
                state.update(f"\n{name} {_plain(at)} {_plain(amount)}".encode())
        return state.hexdigest()


def _plain(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
