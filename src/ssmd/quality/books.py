"""What a sound book never shows: a best bid that is not below the best ask, a level of negative size."""

from __future__ import annotations

from typing import Final

from ssmd.exchanges.book import Book
from ssmd.schemas.records import BookDelta, BookSnapshot

CROSSED_NS_MAX: Final = 1_000_000_000
"""A trade that sweeps levels arrives as several changes, so that a book is crossed for an instant. Longer is a fault."""


class BookWatch:
    """One ticker's book, from snapshot to hole. Durations are of receive times.

    Attributes:
        crossed: how often it became crossed (or locked); crossed_ns: for how long in all; crossed_long: how often for
            longer than CROSSED_NS_MAX; crossed_longest_ns: the longest.
        negative: changes that left a level below zero.
        unanchored: changes that came before any snapshot and mean nothing.
    """

    __slots__ = (
        "_book",
        "_since",
        "_ticker",
        "crossed",
        "crossed_long",
        "crossed_longest_ns",
        "crossed_ns",
        "negative",
        "unanchored",
    )

    def __init__(self, ticker: str) -> None:
        self._ticker = ticker
        self._book: Book | None = None
        self._since = 0
        self.crossed = 0
        self.crossed_ns = 0
        self.crossed_long = 0
        self.crossed_longest_ns = 0
        self.negative = 0
        self.unanchored = 0

    def apply(self, record: BookSnapshot | BookDelta) -> None:
        """Take the ticker's next record."""
        book = self._book
        if book is None:
            if isinstance(record, BookDelta):
                self.unanchored += 1
                return
            book = self._book = Book(self._ticker)
        found = book.apply(record)
        if found:
            self.negative += sum(1 for finding in found if finding.what == "negative-level")
        if self._since:
            bid, ask = book.best_bid, book.best_ask
            if bid is None or ask is None or bid.price < ask.price:
                self._uncross(record.ts_recv_ns)
        elif found and any(finding.what == "crossed" for finding in found):
            self.crossed += 1
            self._since = record.ts_recv_ns

    def _uncross(self, ts_ns: int) -> None:
        length_ns = max(ts_ns - self._since, 0)
        self._since = 0
        self.crossed_ns += length_ns
        self.crossed_long += length_ns > CROSSED_NS_MAX
        self.crossed_longest_ns = max(self.crossed_longest_ns, length_ns)

    def lose(self, ts_ns: int) -> None:
        """From here the book is not known, until its next snapshot."""
        if self._since:
            self._uncross(ts_ns)
        self._book = None
