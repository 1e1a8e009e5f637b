"""Which markets are wanted, as the listing and the venue's news say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ssmd.errors import Unavailable
from ssmd.exchanges.adapter import ListingChange
from ssmd.services.connector.universe import Listed, Selection, Universe


class Book:
    """A listing that a test writes."""

    def __init__(self) -> None:
        self.markets: dict[str, tuple[str, str]] = {}
        self.categories: dict[str, list[str]] = {}
        self.is_away = False
        self.done: set[str] = set()
        self.is_silent = False
        self.asked: list[tuple[str, ...]] = []

    async def open_markets(self, *, series: str = "", event: str = "") -> Sequence[Listed]:
        if self.is_away:
            raise Unavailable("away")
        return [
            Listed(ticker, of)
            for ticker, (of, within) in self.markets.items()
            if (not series or within == series) and (not event or of == event)
        ]

    async def series_of(self, category: str) -> Sequence[str]:
        return self.categories[category]

    async def settled(self, tickers: Sequence[str]) -> Sequence[str]:
        self.asked.append(tuple(tickers))
        if self.is_silent:
            raise Unavailable("no answer")
        return [ticker for ticker in tickers if ticker in self.done]


def made(selection: Selection) -> tuple[Universe, Book]:
    book = Book()
    book.markets = {"A-1": ("A", "SA"), "A-2": ("A", "SA"), "B-1": ("B", "SB"), "C-1": ("C", "SC")}
    book.categories = {"Crypto": ["SA", "SB"]}
    return Universe(selection, book), book


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(), ("A-1", "A-2", "B-1", "C-1")),
        (Selection(series=("SB",)), ("B-1",)),
        (Selection(categories=("Crypto",)), ("A-1", "A-2", "B-1")),
        (Selection(events=("A", "C")), ("A-1", "A-2", "C-1")),
        (Selection(tickers=("X",), events=("C",)), ("X", "C-1")),
        (Selection(tickers=("X", "A-1")), ("X", "A-1")),
        (Selection(takes=lambda ticker: ticker.endswith("1")), ("A-1", "B-1", "C-1")),
    ],
)
async def test_a_selection_of_the_listing(selection: Selection, wanted: tuple[str, ...]) -> None:
    universe, _ = made(selection)
    assert universe.is_stale is universe.is_followed is (wanted != ("X", "A-1"))
    await universe.refresh()
    assert (universe.tickers, universe.is_stale) == (wanted, False)


async def test_markets_come_when_announced_and_go_when_settled_and_no_stale_listing_brings_them_back() -> None:
    universe, book = made(Selection())
    await universe.refresh()
    assert universe.take([ListingChange("created", "D-1", "D", ""), ListingChange("settled", "A-1", "", "")])
    assert universe.tickers == ("A-2", "B-1", "C-1", "D-1")
    assert not universe.take([ListingChange("determined", "A-2", "", ""), ListingChange("created", "D-1", "D", "")])
    # The edge cache still shows the settled one and not yet the new one.
    await universe.refresh()
    assert universe.tickers == ("A-2", "B-1", "C-1", "D-1")
    book.markets.clear()
    await universe.refresh()
    assert universe.tickers == ("A-2", "B-1", "C-1", "D-1")


async def test_one_that_settled_unheard_goes_once_two_listings_do_not_show_it_and_the_venue_says_so() -> None:
    universe, book = made(Selection(tickers=("B-1",), series=("SA",)))
    assert await universe.refresh()
    universe.take([ListingChange("created", "A-3", "A", "")])
    del book.markets["A-1"], book.markets["A-2"]
    book.done = {"A-1"}
    assert not await universe.refresh()
    assert (universe.tickers, book.asked) == (("B-1", "A-1", "A-2", "A-3"), [("B-1",)])
    book.markets["A-3"] = ("A", "SA")
    assert await universe.refresh()  # A-2 is closed and will settle
    assert (universe.tickers, book.asked[1:]) == (("B-1", "A-2", "A-3"), [("A-1", "A-2", "B-1")])
    book.markets["A-1"] = ("A", "SA")  # an old answer
    assert not await universe.refresh()


async def test_those_that_came_do_not_wait_for_who_may_have_settled() -> None:
    universe, book = made(Selection())
    await universe.refresh()
    del book.markets["A-1"]
    await universe.refresh()
    book.markets["D-1"], book.done, book.is_silent = ("D", "SD"), {"A-1"}, True
    assert await universe.refresh()
    assert list(universe.tickers) == ["A-1", "A-2", "B-1", "C-1", "D-1"]
    book.is_silent = False
    assert await universe.refresh()
    assert list(universe.tickers) == ["A-2", "B-1", "C-1", "D-1"]


async def test_one_that_comes_as_another_goes_is_a_change() -> None:
    universe, _ = made(Selection(tickers_max=4))
    await universe.refresh()
    assert universe.take([ListingChange("settled", "A-1", "", ""), ListingChange("created", "D-1", "D", "")])
    assert "D-1" in universe.tickers


async def test_a_new_market_of_a_series_is_placed_by_its_event_or_by_the_listing() -> None:
    universe, book = made(Selection(series=("SA",)))
    await universe.refresh()
    universe.take([ListingChange("event", "", "A9", "SA"), ListingChange("event", "", "B9", "SB")])
    assert universe.take([ListingChange("created", "A9-1", "A9", "")])
    assert not universe.is_stale
    assert not universe.take([ListingChange("created", "B9-1", "B9", "")])
    assert universe.is_stale
    book.markets["A10-1"] = ("A10", "SA")
    assert await universe.refresh()
    assert universe.tickers == ("A-1", "A-2", "A9-1", "A10-1")


async def test_a_listing_that_is_away_loses_nothing_and_markets_beyond_the_bound_are_counted() -> None:
    universe, book = made(Selection(tickers_max=3))
    await universe.refresh()
    assert (len(universe.tickers), universe.left_out) == (3, 1)
    await universe.refresh()
    universe.take([ListingChange("created", "E-1", "E", ""), ListingChange("activated", "E-1", "E", "")])
    assert (len(universe.tickers), universe.left_out) == (3, 2)  # each once, however often it is shown
    book.is_away = True
    with pytest.raises(Unavailable):
        await universe.refresh()
    assert universe.tickers == ("A-1", "A-2", "B-1")
