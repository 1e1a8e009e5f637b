"""Clients that asked for the same things share one interest, so that what a block brings them is put together once.

What is asked for is a ticker, "*" for all, or the beginning of tickers with a "*" behind it (a series: "KXBTC15M-*").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

ClientT = TypeVar("ClientT")

ALL_TICKERS: Final = "*"


def is_pattern(asked: str) -> bool:
    """Whether it stands for more than one ticker."""
    return asked.endswith("*")


def matches(asked: str, ticker: str) -> bool:
    """Whether `ticker` is asked for by `asked`."""
    return asked == ticker or (asked.endswith("*") and ticker.startswith(asked[:-1]))


class Piece(NamedTuple):
    """One encoded message for subscribers; `bit` is its kind's."""

    text: str
    ticker: str
    bit: int


def wants(masks: Mapping[str, int], ticker: str, bit: int) -> bool:
    """Whether who asked for `masks` (ticker or pattern -> bits of kinds) wants kind `bit` of `ticker`."""
    return any(mask & bit and matches(asked, ticker) for asked, mask in masks.items())


def together(pieces: list[Piece]) -> tuple[str, tuple[str, ...]]:
    """The pieces as the inside of one frame, and the ticker of each."""
    return ",".join([piece.text for piece in pieces]), tuple([piece.ticker for piece in pieces])


class Interest(Generic[ClientT]):
    """`masks`: ticker (or "*") -> bits of the kinds wanted. `pieces`: what the block at hand has for these clients."""

    __slots__ = ("any_mask", "clients", "masks", "pieces")

    def __init__(self, masks: dict[str, int]) -> None:
        self.masks = masks
        self.any_mask = 0
        for mask in masks.values():
            self.any_mask |= mask
        self.clients: set[ClientT] = set()
        self.pieces: list[Piece] = []


class Interests(Generic[ClientT]):
    """All interests somebody has."""

    def __init__(self) -> None:
        self._by_key: dict[frozenset[tuple[str, int]], Interest[ClientT]] = {}
        self._by_ticker: dict[str, dict[Interest[ClientT], int]] = {}
        self._lengths: dict[int, int] = {}
        """Length of the beginnings asked for -> how many of them."""

    def join(self, client: ClientT, masks: dict[str, int]) -> None:
        """`client` wants `masks` from now on, and is in no other interest."""
        if not masks:
            return
        key = frozenset(masks.items())
        interest = self._by_key.get(key)
        if interest is None:
            interest = self._by_key[key] = Interest(dict(masks))
            for ticker, mask in masks.items():
                if ticker not in self._by_ticker:
                    self._by_ticker[ticker] = {}
                    self._count(ticker, 1)
                self._by_ticker[ticker][interest] = mask
        interest.clients.add(client)

    def leave(self, client: ClientT, masks: dict[str, int]) -> None:
        """`client` no longer wants `masks`; safe when it never did."""
        key = frozenset(masks.items())
        interest = self._by_key.get(key)
        if interest is None:
            return
        interest.clients.discard(client)
        if not interest.clients:
            del self._by_key[key]
            for ticker in masks:
                wanting = self._by_ticker[ticker]
                del wanting[interest]
                if not wanting:
                    del self._by_ticker[ticker]
                    self._count(ticker, -1)

    def _count(self, asked: str, by: int) -> None:
        if is_pattern(asked) and asked != ALL_TICKERS:
            length = len(asked) - 1
            self._lengths[length] = self._lengths.get(length, 0) + by
            if not self._lengths[length]:
                del self._lengths[length]

    def in_kind(self, bit: int) -> Iterator[Interest[ClientT]]:
        """Interests that want kind `bit` of any ticker."""
        return (interest for interest in self._by_key.values() if interest.any_mask & bit)

    def wanting(self, ticker: str, bit: int) -> Iterable[Interest[ClientT]]:
        """Interests that want kind `bit` of `ticker`, each once."""
        found: dict[Interest[ClientT], None] = {}
        by_ticker = self._by_ticker
        for asked in (ticker, *(f"{ticker[:length]}*" for length in self._lengths if length <= len(ticker)), ALL_TICKERS):
            wanting = by_ticker.get(asked)
            if wanting:
                for interest, mask in wanting.items():
                    if mask & bit:
                        found[interest] = None
        return found
