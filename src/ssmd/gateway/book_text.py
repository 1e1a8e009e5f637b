"""Books as decimal text, made once for as long as the book stays the same: most questions are about few books."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from ssmd.gateway.messages import Levels, levels

if TYPE_CHECKING:
    from ssmd.gateway.market import BookPlace, Market

BOOKS_MAX: Final = 256


class _Text(NamedTuple):
    at: BookPlace | None
    bids: Levels
    asks: Levels


class BookTexts:
    """The levels of the books asked for last, at most `BOOKS_MAX` of them."""

    def __init__(self, books_max: int = BOOKS_MAX) -> None:
        self._books_max = books_max
        self._held: OrderedDict[str, _Text] = OrderedDict()

    def sides(self, market: Market) -> tuple[Levels, Levels]:
        """(bids, asks), all levels, best first."""
        held = self._held.get(market.ticker)
        # Every change of a book leaves a place of its own: the same object means the same book.
        if held is not None and held.at is market.book_at:
            self._held.move_to_end(market.ticker)
            return held.bids, held.asks
        book = market.book
        bids, asks = (levels(side, book.price_exponent, book.size_exponent) for side in book.levels())
        self._held[market.ticker] = _Text(market.book_at, bids, asks)
        self._held.move_to_end(market.ticker)
        if len(self._held) > self._books_max:
            self._held.popitem(last=False)
        return bids, asks

    def clear(self) -> None:
        """Forget all of them."""
        self._held.clear()
