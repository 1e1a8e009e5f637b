"""A sync against a venue that lists, changes, settles, amends, hides, returns and reuses, and that answers badly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssmd.application.handler import Application
from ssmd.application.listings import Listings
from ssmd.application.sealing import Origin
from ssmd.clock import ManualClock
from ssmd.domain import listing, secmaster_sync
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.listing import Market, Stage
from ssmd.domain.observation import Observation
from ssmd.domain.secmaster_sync import Completed, Failed, Started
from ssmd.errors import Malformed, Unavailable
from ssmd.identifiers import system_random
from ssmd.projections import queries
from ssmd.projections.secmaster import SECMASTER
from ssmd.projections.views import fold_views
from ssmd.services.secmaster.sync import ABSENT, MOVED, SyncParts, sync
from ssmd.services.secmaster.venue import Scope
from ssmd.streams.journal import RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal

T0 = 1_778_760_000_000_000_000
STAGES: tuple[Stage, ...] = ("listed", "closed", "determined", "settled")


@dataclass
class Venue:
    """A naive venue: the truth by ticker, and how badly it answers the next pass.

    `hidden`: shown neither in pages nor by ticker; `stale`: shown in pages as they were then; `half`: pages lose every
    second market; `breaks_after`: pages until it does not answer any more.
    """

    markets: dict[str, Observation] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    stale: dict[str, Observation] = field(default_factory=dict)
    half: bool = False
    breaks_after: int | None = None
    requests: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    async def pages(self, scope: Scope) -> AsyncIterator[list[Observation]]:
        # A full pass does not show what is settled, as Kalshi's does not.
        shown = [
            self.stale.get(ticker, one)
            for ticker, one in sorted(self.markets.items())
            if ticker not in self.hidden and (one.stage != "settled" or not scope.is_full)
        ]
        if self.half:
            shown = shown[::2]
        for number, at in enumerate(range(0, max(1, len(shown)), 3)):
            if number == self.breaks_after:
                raise Unavailable("the venue answers 429 for ever")
            self.requests += 1
            yield shown[at : at + 3]

    async def ask(self, tickers: Sequence[str]) -> list[Observation]:
        self.requests += 1
        return [self.markets[one] for one in tickers if one in self.markets and one not in self.hidden]


class Desk:
    """Our side: a journal, and what it says of the markets."""

    def __init__(self) -> None:
        self.venue = Venue()
        self.journal = MemoryJournal("dev")
        self.application = Application(self.journal, CATALOGUE, ManualClock(T0), system_random)
        self.runs = 0

    def parts(self) -> SyncParts:
        listings = Listings(self.journal, CATALOGUE, ManualClock(T0), system_random, "kalshi")
        return SyncParts("kalshi", self.venue, listings, self.application, lambda _compared, _written: None)

    async def sync(self, scope: Scope | None = None, parts: SyncParts | None = None) -> secmaster_sync.Counts:
        self.runs += 1
        return await sync(parts or self.parts(), scope or Scope(), f"run-{self.runs}", actor="cli:anna")

    async def standing(self) -> dict[str, Observation]:
        """What is on the list by ticker, asked of the view that people ask."""
        views = await fold_views(self.journal, None, [SECMASTER])
        return {
            row.market.ticker: Observation(row.event, row.market, row.stage, 0, row.result, row.value)
            for row in await queries.secmaster(views, "kalshi")
            if not row.is_delisted
        }

    async def written(self) -> list[str]:
        return [
            one.envelope.type
            async for batch in self.journal.replay(filters=["listing"])
            for one in batch
            if isinstance(one, RecordedEvent)
        ]


def market(ticker: str, event: str = "EV", *, title: str = "t", stage: Stage = "listed", result: str = "") -> Observation:
    value = "1.0000" if stage == "settled" else ""
    known = result or ("yes" if stage in ("determined", "settled") else "")
    return Observation(event, Market(ticker, "S", "C", title, attributes={"a": "1"}), stage, 0, known, value)


async def test_a_run_is_journaled_with_what_it_came_to_and_a_second_one_writes_nothing() -> None:
    desk = Desk()
    desk.venue.markets = {name: market(name, event) for name, event in (("A", "E1"), ("B", "E1"), ("C", "E2"), ("D", "E2"))}
    counts = await desk.sync()
    assert counts == secmaster_sync.Counts(events=2, markets=4, listed=4, requests=2)
    assert await desk.sync() == secmaster_sync.Counts(events=2, markets=4, requests=2)
    assert await desk.written() == ["listing.market-listed.v1"] * 4
    runs = [
        CATALOGUE.decode(one.envelope.type, one.envelope.data)
        async for batch in desk.journal.replay(filters=["secmaster-sync"])
        for one in batch
        if isinstance(one, RecordedEvent)
    ]
    assert runs[:3] == [Started("run-1", ""), Completed("run-1", counts), Started("run-2", "")]


async def test_a_run_that_ends_early_says_so_and_keeps_what_it_had() -> None:
    desk = Desk()
    desk.venue.markets = {name: market(name) for name in "ABCDEF"}
    desk.venue.breaks_after = 1
    with pytest.raises(Unavailable, match="429"):
        await desk.sync()
    assert sorted(await desk.standing()) == ["A", "B", "C"]
    status = await queries.sync_status(await fold_views(desk.journal, None, [SECMASTER]), "kalshi")
    assert status is not None
    assert (status.status, status.error) == ("failed", "the venue answers 429 for ever")
    last = [batch async for batch in desk.journal.replay(filters=["secmaster-sync"])][-1][-1]
    assert isinstance(last, RecordedEvent)
    assert CATALOGUE.decode(last.envelope.type, last.envelope.data) == Failed("run-1", "the venue answers 429 for ever")
    desk.venue.breaks_after = None
    await desk.sync()
    assert sorted(await desk.standing()) == list("ABCDEF")


async def test_what_a_page_lost_is_asked_for_and_what_is_gone_is_delisted_and_comes_back() -> None:
    desk = Desk()
    desk.venue.markets = {name: market(name) for name in "ABCD"}
    await desk.sync()
    desk.venue.half = True
    desk.venue.hidden = {"B"}
    assert (await desk.sync()).delisted == 1
    assert sorted(await desk.standing()) == ["A", "C", "D"]
    delisted = [
        event
        async for batch in desk.journal.replay(filters=["listing"])
        for one in batch
        if isinstance(one, RecordedEvent)
        and isinstance(event := CATALOGUE.decode(one.envelope.type, one.envelope.data), listing.MarketDelisted)
    ]
    assert delisted == [listing.MarketDelisted("B", ABSENT)]
    desk.venue.hidden, desk.venue.half = set(), False
    assert (await desk.sync()).listed == 1
    assert sorted(await desk.standing()) == list("ABCD")


async def test_a_reused_ticker_leaves_its_old_event() -> None:
    desk = Desk()
    desk.venue.markets = {"A": market("A", "OLD")}
    await desk.sync()
    desk.venue.markets = {"A": market("A", "NEW", title="another question")}
    await desk.sync()
    assert (await desk.application.state(listing.DECIDER, ("kalshi", "OLD"))).markets["A"].is_delisted
    assert not (await desk.application.state(listing.DECIDER, ("kalshi", "NEW"))).markets["A"].is_delisted
    reasons = [one for one in await desk.written() if one == "listing.market-delisted.v1"]
    assert (len(reasons), MOVED) == (1, "its ticker is used by another event")


async def test_an_old_page_takes_nothing_back_but_an_amendment_does() -> None:
    desk = Desk()
    desk.venue.markets = {"A": market("A", stage="closed")}
    await desk.sync()
    desk.venue.stale = {"A": market("A")}
    await desk.sync()
    assert (await desk.standing())["A"].stage == "closed"
    desk.venue.stale = {}
    desk.venue.markets = {"A": market("A", stage="settled")}
    await desk.sync(Scope(since_ns=1))
    amended = market("A", stage="settled", result="no")
    desk.venue.markets = {"A": amended}
    await desk.sync(Scope(since_ns=1))
    assert (await desk.standing())["A"].result == "no"
    assert (await desk.written())[-1] == "listing.market-amended.v1"


async def test_what_cannot_be_understood_fails_the_run_and_drops_nothing() -> None:
    desk = Desk()
    desk.venue.markets = {name: market(name) for name in "AB"}
    await desk.sync()
    desk.venue.markets["C"] = market("C")
    desk.venue.hidden, desk.venue.unreadable = {"A"}, {"A": "market A has the unknown status 'odd'"}
    with pytest.raises(Malformed, match="1 markets could not be understood, all else is written: market A has the unknown"):
        await desk.sync()
    assert sorted(await desk.standing()) == ["A", "B", "C"]


async def test_two_writers_at_one_moment_write_each_change_once() -> None:
    desk = Desk()
    desk.venue.markets = {f"M{number}": market(f"M{number}", f"E{number % 5}") for number in range(40)}
    one, other = desk.parts(), desk.parts()
    origin = Origin("cli:anna", "c")
    await asyncio.gather(
        one.listings.observe(desk.venue.markets.values(), origin), other.listings.observe(desk.venue.markets.values(), origin)
    )
    assert await desk.written() == ["listing.market-listed.v1"] * 40


CHANGES = st.tuples(
    st.sampled_from(["list", "title", "stage", "result", "hide", "show", "move", "half", "stale", "sync"]),
    st.sampled_from("ABCDEFGH"),
    st.integers(0, 3),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(CHANGES, max_size=25))
def test_whatever_the_venue_does_the_list_is_right_after_a_run(steps: list[tuple[str, str, int]]) -> None:
    async def run() -> None:
        desk = Desk()
        parts = desk.parts()
        for step, ticker, number in [*steps, ("sync", "A", 0)]:
            change(desk.venue, step, ticker, number)
            if step == "sync":
                # A bad answer drops nothing; a good one puts everything right. One who keeps the list in memory beside
                # one who comes anew.
                before = await desk.standing()
                await desk.sync(parts=parts)
                assert before.keys() & shown(desk.venue).keys() <= (await desk.standing()).keys()
                desk.venue.half, desk.venue.stale = False, {}
                await desk.sync(Scope(since_ns=1), parts if number % 2 else None)
                await desk.sync(parts=parts)
                assert await desk.standing() == shown(desk.venue)
        quiet = await desk.written()
        await desk.sync()
        assert await desk.written() == quiet

    asyncio.run(run())


def shown(venue: Venue) -> dict[str, Observation]:
    return {ticker: one for ticker, one in venue.markets.items() if ticker not in venue.hidden}


def change(venue: Venue, step: str, ticker: str, number: int) -> None:
    known = venue.markets.get(ticker)
    if step == "list":
        venue.markets.setdefault(ticker, market(ticker, f"E{number}"))
    elif step == "half":
        venue.half = True
    elif known is not None:
        change_market(venue, step, known, number)


def change_market(venue: Venue, step: str, known: Observation, number: int) -> None:
    ticker = known.market.ticker
    if step == "title":
        renamed = msgspec.structs.replace(known.market, title=f"title {number}")
        venue.markets[ticker] = known._replace(market=renamed)
    elif step == "stage":
        venue.markets[ticker] = market(ticker, known.event, title=known.market.title, stage=STAGES[number])
    elif step == "result" and known.stage in ("determined", "settled"):
        venue.markets[ticker] = known._replace(result=("yes", "no")[number % 2])
    elif step == "hide" and known.stage != "settled":
        venue.hidden.add(ticker)
    elif step == "show":
        venue.hidden.discard(ticker)
    elif step == "move" and known.stage == "listed":
        venue.markets[ticker] = known._replace(event=f"E{number}")
    elif step == "stale":
        venue.stale[ticker] = market(ticker, known.event, title=known.market.title)
