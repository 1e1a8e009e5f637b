"""The sync over the simulated venue's REST interface, which has every trouble the real one was seen to have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

import httpx
import pytest

from ssmd.application.handler import Application
from ssmd.application.listings import Listings
from ssmd.clock import SystemClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.secmaster_sync import Counts
from ssmd.errors import Rejected
from ssmd.identifiers import system_random
from ssmd.services.kalshi_rest.client import KalshiRest, RestAnswer, RestSettings
from ssmd.services.secmaster.kalshi_markets import KalshiMarkets
from ssmd.services.secmaster.sync import SyncParts, sync
from ssmd.services.secmaster.venue import Scope
from ssmd.services.simulator.config import FaultOrder, RestFault, SimulatorConfig
from ssmd.services.simulator.simulator import Simulator
from ssmd.streams.journal_memory import MemoryJournal

QUICK = RestSettings(timeout_s=5.0, tries_max=40, deadline_s=30.0, pause_first_s=0.005, pause_max_s=0.05)


class Desk:
    """A journal, kept up from one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.journal = MemoryJournal("dev")
        self.clock = SystemClock()
        self.runs = 0

    async def sync(self, scope: Scope | None = None) -> Counts:
        self.runs += 1
        async with KalshiRest(self.simulator.rest_url, None, self.clock, system_random, QUICK) as client:
            parts = SyncParts(
                feed="kalshi",
                venue=KalshiMarkets(client),
                listings=Listings(self.journal, CATALOGUE, self.clock, system_random, "kalshi"),
                application=Application(self.journal, CATALOGUE, self.clock, system_random),
                say=lambda _compared, _written: None,
            )
            return await sync(parts, scope or Scope(), f"run-{self.runs}", actor="cli:anna")

    async def known(self) -> set[str]:
        listings = Listings(self.journal, CATALOGUE, self.clock, system_random, "kalshi")
        await listings.refresh()
        return {ticker for _, ticker in listings.open_markets()}

    async def order(self, *orders: FaultOrder) -> None:
        for one in orders:
            self.simulator._faults.arm(one)

    async def truth(self) -> set[str]:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"{self.simulator.rest_url}/markets", params={"limit": "1000", "status": "open"})
            return {market["ticker"] for market in answer.json()["markets"]}


@contextlib.asynccontextmanager
async def desk(markets: int) -> AsyncIterator[Desk]:
    simulator = Simulator(
        SimulatorConfig(require_auth=False, markets=markets, start_paused=True, rest_tokens_s=0), SystemClock()
    )
    await simulator.start()
    running = asyncio.create_task(simulator.run())
    try:
        yield Desk(simulator)
    finally:
        await simulator.stop()
        await asyncio.wait_for(running, 60)


async def test_the_whole_list_is_found_with_series_and_category() -> None:
    async with desk(40) as here:
        counts = await here.sync()
        assert counts.listed == counts.markets == 40
        assert await here.known() == await here.truth()
        assert (await here.sync()).listed == 0
        listings = Listings(here.journal, CATALOGUE, here.clock, system_random, "kalshi")
        await listings.refresh()
        (event, ticker), *_ = listings.open_markets()
        kept = listings.find(event, ticker)
        assert kept is not None
        market = kept.standing().market
        assert market.series
        assert market.category
        assert market.attributes["price_level_structure"]


@pytest.mark.parametrize("kind", ["rest-429", "rest-500", "rest-503", "half-page", "missing-rows", "cursor-loop", "rest-stale"])
async def test_no_trouble_of_the_venue_drops_a_market_for_good(kind: RestFault) -> None:
    async with desk(40) as here:
        await here.sync()
        everything = await here.known()
        await here.order(FaultOrder(kind=kind, count=3, path="/events"), FaultOrder(kind=kind, count=2, path="/markets"))
        await here.sync()
        assert await here.known() == everything


async def test_a_first_run_through_a_storm_finds_everything() -> None:
    async with desk(40) as here:
        await here.order(FaultOrder(kind="rest-429", count=15), FaultOrder(kind="rest-502", count=5))
        assert (await here.sync()).listed == 40
        assert await here.known() == await here.truth()


async def test_whatever_a_ticker_holds_it_is_one_part_of_a_path() -> None:
    asked: list[str] = []

    class Venue:
        async def get(self, path: str, *, not_before_ns: int = 0) -> RestAnswer:
            asked.append(path)
            raise Rejected("kalshi-not-found", f"{path}, as of {not_before_ns}")

    assert await KalshiMarkets(cast("KalshiRest", Venue()))._alone("../portfolio/orders#") is None
    assert asked == ["/markets/..%2Fportfolio%2Forders%23", "/historical/markets/..%2Fportfolio%2Forders%23"]
