"""Clients that asked for the same things share one interest, so that what a block brings them is put together once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Generic, NamedTuple, TypeVar

ClientT = TypeVar("ClientT")

ALL_TICKERS: Final = "*"


class Piece(NamedTuple):
    """One encoded message for subscribers; `bit` is its kind's."""

    text: str
    ticker: str
    bit: int


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

    def join(self, client: ClientT, masks: dict[str, int]) -> None:
        """`client` wants `masks` from now on, and is in no other interest."""
        if not masks:
            return
        key = frozenset(masks.items())
        interest = self._by_key.get(key)
        if interest is None:
            interest = self._by_key[key] = Interest(dict(masks))
            for ticker, mask in masks.items():
                self._by_ticker.setdefault(ticker, {})[interest] = mask
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

    def in_kind(self, bit: int) -> Iterator[Interest[ClientT]]:
        """Interests that want kind `bit` of any ticker."""
        return (interest for interest in self._by_key.values() if interest.any_mask & bit)

    def wanting(self, ticker: str, bit: int) -> Iterable[Interest[ClientT]]:
        """Interests that want kind `bit` of `ticker`, each once."""
        named = self._by_ticker.get(ticker)
        everything = self._by_ticker.get(ALL_TICKERS)
        found = [interest for interest, mask in named.items() if mask & bit] if named else []
        if everything:
            found += [
                interest for interest, mask in everything.items() if mask & bit and not (named and named.get(interest, 0) & bit)
            ]
        return found
