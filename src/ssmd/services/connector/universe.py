"""Which markets are to be captured now: a selection, the venue's listing, and what the venue tells as it changes.

A market comes in when the venue announces it and goes when it is settled. The listing is read again now and then, and
when something was told that cannot be placed without it; a listing that cannot be had changes nothing. Markets are
never dropped because a listing does not show them: it may be seconds old, and a closed market has news until it settles.
Those that two listings in a row do not show are asked for by name, for their settlement may have been told while no
connection was there to hear it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from ssmd.errors import Unavailable
from ssmd.exchanges.adapter import ListingChange

COMES: Final = frozenset({"created", "activated"})
GOES: Final = frozenset({"settled"})
GONE_MAX: Final = 100_000
"""Settled markets remembered, so that a stale listing does not bring them back."""


class Listed(NamedTuple):
    """A market of the listing and its event."""

    ticker: str
    event: str


class Listing(Protocol):
    """Asks the venue. All raise Unavailable."""

    async def open_markets(self, *, series: str = "", event: str = "") -> Sequence[Listed]:
        """Open markets, of one series or event where one is named."""
        ...

    async def series_of(self, category: str) -> Sequence[str]:
        """The series of a category."""
        ...

    async def settled(self, tickers: Sequence[str]) -> Sequence[str]:
        """Those of `tickers` that have settled, or are unknown to the venue."""
        ...


def _every(_ticker: str) -> bool:
    return True


def _none(_ticker: str) -> bool:
    return False


class Selection(NamedTuple):
    """What is wanted: the union of what is named; nothing named = all markets.

    Attributes:
        takes: of those, the ones of this shard.
        is_apart: markets that "all" does not mean; they are wanted only where they are named.
        tickers_max: no more than so many.
    """

    tickers: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    takes: Callable[[str], bool] = _every
    is_apart: Callable[[str], bool] = _none
    tickers_max: int = 500_000

    @property
    def is_list(self) -> bool:
        """Nothing is looked up: exactly the tickers named."""
        return bool(self.tickers) and not (self.series or self.categories or self.events)

    @property
    def is_all(self) -> bool:
        """Every market."""
        return not (self.tickers or self.series or self.categories or self.events)


class Universe:
    """The markets of a `Selection`, as they come and go.

    Attributes:
        is_stale: the listing has to be read (again) soon.
    """

    def __init__(self, selection: Selection, listing: Listing) -> None:
        self._selection = selection
        self._listing = listing
        self._wanted: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        # Wanted, and not in the last listing.
        self._absent: frozenset[str] = frozenset()
        # Events wanted; markets announced before their event's series was known.
        self._events: set[str] = set(selection.events)
        self._series: set[str] = set(selection.series)
        # Those beyond `tickers_max` that the last listing shows, or the venue told since.
        self._beyond: set[str] = set()
        self.is_stale = not selection.is_list
        for ticker in selection.tickers:
            self._add(ticker)

    @property
    def is_followed(self) -> bool:
        """Whether it changes at all."""
        return not self._selection.is_list

    @property
    def tickers(self) -> tuple[str, ...]:
        """The markets wanted now, oldest first."""
        return tuple(self._wanted)

    @property
    def left_out(self) -> int:
        """Markets that came when there were `tickers_max` already."""
        return len(self._beyond)

    async def refresh(self) -> bool:
        """Read the listing; whether it brought news.

        Raises:
            Unavailable: it cannot be had; nothing has changed.
        """
        selection = self._selection
        if selection.is_list:
            return False
        series = dict.fromkeys(selection.series)
        for category in selection.categories:
            series.update(dict.fromkeys(await self._listing.series_of(category)))
        found: list[Listed] = []
        if selection.is_all:
            found += await self._listing.open_markets()
        for one in series:
            found += await self._listing.open_markets(series=one)
        for one in selection.events:
            found += await self._listing.open_markets(event=one)
        self._series = set(series)
        self.is_stale = False
        before = self._wanted.copy()
        self._beyond.clear()
        for ticker in selection.tickers:
            self._add(ticker)
        for listed in found:
            if not selection.is_all:
                self._events.add(listed.event)
            self._add(listed.ticker)
        await self._drop_settled(self._wanted.keys() - {listed.ticker for listed in found})
        return self._wanted.keys() != before.keys()

    async def _drop_settled(self, absent: AbstractSet[str]) -> None:
        """Drop those of `absent` that settled unheard. One that is new may not be in the listing yet: it is asked for later."""
        doubtful = sorted(self._absent & absent)
        self._absent = frozenset(absent)
        # What cannot be told now is asked with the next listing; the markets that came do not wait for it.
        with suppress(Unavailable):
            for ticker in await self._listing.settled(doubtful) if doubtful else ():
                self._drop(ticker)

    def take(self, changes: Iterable[ListingChange]) -> bool:
        """Follow what the venue told; whether the markets wanted have changed."""
        before = len(self._wanted), self.left_out
        has_lost = False
        for change in changes:
            if change.change == "event":
                if change.series in self._series:
                    self._events.add(change.event)
            elif change.change in GOES:
                has_lost |= change.ticker in self._wanted
                self._drop(change.ticker)
            elif change.change in COMES and change.ticker not in self._wanted:
                self._announced(change)
        return has_lost or (len(self._wanted), self.left_out) != before

    def _announced(self, change: ListingChange) -> None:
        if self._selection.is_all:
            if not self._selection.is_apart(change.ticker):
                self._add(change.ticker)
        elif change.event in self._events:
            self._add(change.ticker)
        elif self._series and change.change == "created":
            # Its event's series may be one of ours: the listing knows.
            self.is_stale = True

    def _add(self, ticker: str) -> None:
        if ticker in self._wanted or ticker in self._gone or not self._selection.takes(ticker):
            return
        if len(self._wanted) >= self._selection.tickers_max:
            self._beyond.add(ticker)
        else:
            self._wanted[ticker] = None

    def _drop(self, ticker: str) -> None:
        self._wanted.pop(ticker, None)
        self._beyond.discard(ticker)
        self._gone[ticker] = None
        if len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]
