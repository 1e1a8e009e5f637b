"""Lifecycle messages of the stream reach the security master at once, whatever REST already shows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.services.secmaster.test_sync import Desk, Venue, market

from ssmd.application.listings import Listings
from ssmd.clock import ManualClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.observation import Observation
from ssmd.errors import Malformed, Unavailable
from ssmd.identifiers import system_random
from ssmd.schemas.codecs import encode_record
from ssmd.schemas.records import MarketStatus
from ssmd.services.secmaster.lifecycle import TRIES_MAX, LifecycleFollower
from ssmd.streams import subjects
from ssmd.streams.transport import Outgoing
from ssmd.streams.transport_memory import MemoryTransport

T0 = 1_778_760_000_000_000_000


def status(ticker: str, change: str, *, result: str = "", n: int = 1) -> MarketStatus:
    return MarketStatus("kalshi", ticker, T0 + 5, T0 + 9, 7, n, 0, 1, n, -4, -2, change, change, 0, 0, result, None, "{}")


class Follower:
    """A follower over memory backends; `tell` publishes as the connector does."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.clock = ManualClock(T0)
        self.transport = MemoryTransport()
        listings = Listings(self.desk.journal, CATALOGUE, self.clock, system_random, "kalshi")
        self.service = LifecycleFollower(
            self.transport, listings, self.desk.venue, self.clock, system_random, env="dev", feed="kalshi"
        )

    async def tell(self, record: MarketStatus) -> None:
        connection = await self.transport.publisher()
        subject = subjects.market("dev", "kalshi", "status", record.ticker)
        await connection.publish([Outgoing(subject, encode_record(record), f"{record.ticker}-{record.n}")])
        await connection.close()

    async def until(self, name: str, count: int) -> None:
        async with asyncio.timeout(30):
            while int(self.service.health().stats[name]) < count:
                self.clock.advance(1_000_000_000)
                await asyncio.sleep(0.005)

    async def standing(self) -> dict[str, Observation]:
        return await self.desk.standing()


@contextlib.asynccontextmanager
async def following(venue: dict[str, Observation]) -> AsyncIterator[Follower]:
    follower = Follower()
    follower.desk.venue.markets = venue
    await follower.desk.sync()
    running = asyncio.create_task(follower.service.run())
    try:
        # It follows from the stream's end: what is told before it reads is the sync's business.
        async with asyncio.timeout(30):
            while follower.service._reader is None:
                await asyncio.sleep(0.005)
        yield follower
    finally:
        await follower.service.stop()
        await asyncio.wait_for(running, 30)


async def test_a_result_is_written_as_it_is_told() -> None:
    async with following({"A": market("A")}) as here:
        await here.tell(status("A", "determined", result="yes"))
        await here.until("written", 1)
        found = (await here.standing())["A"]
        assert (found.stage, found.result) == ("determined", "yes")
        assert here.service.health().stats["asked"] == 0


async def test_a_result_of_a_market_that_a_sync_listed_meanwhile_is_written_as_it_is_told() -> None:
    async with following({}) as here:
        here.desk.venue.markets = {"A": market("A")}
        await here.desk.sync()
        await here.tell(status("A", "determined", result="yes"))
        await here.until("written", 1)
        found = (await here.standing())["A"]
        assert (found.stage, found.result) == ("determined", "yes")


async def test_a_new_market_is_asked_for_until_rest_shows_it() -> None:
    async with following({}) as here:
        await here.tell(status("NEW", "created"))
        await here.until("asked", 2)
        assert await here.standing() == {}
        here.desk.venue.markets = {"NEW": market("NEW")}
        await here.until("written", 1)
        assert (await here.standing())["NEW"].market.series == "S"
        assert here.service.health().stats["pending"] == 0


async def test_a_settlement_waits_for_its_value() -> None:
    async with following({"A": market("A")}) as here:
        await here.tell(status("A", "settled"))
        await here.until("asked", 2)
        assert (await here.standing())["A"].stage == "listed"
        here.desk.venue.markets = {"A": market("A", stage="settled")}
        await here.until("written", 1)
        assert (await here.standing())["A"].value == "1.0000"


async def test_what_is_never_shown_is_left_to_the_sync() -> None:
    async with following({}) as here:
        await here.tell(status("GHOST", "created"))
        await here.until("given_up", 1)
        stats = here.service.health().stats
        assert (stats["asked"], stats["pending"]) == (TRIES_MAX, 0)


class Broken(Venue):
    """A venue that is away for the first calls."""

    failures = 2

    async def ask(self, tickers: object) -> list[Observation]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("the venue is away")
        return [one for ticker, one in self.markets.items() if ticker in list(tickers)]  # type: ignore[call-overload]


async def test_a_venue_that_is_away_costs_no_hint() -> None:
    async with following({}) as here:
        broken = Broken(markets={"NEW": market("NEW")})
        here.service._venue = broken
        await here.tell(status("NEW", "created"))
        await here.until("written", 1)
        assert broken.failures == 0
        assert here.service.health().ok
        assert list(await here.standing()) == ["NEW"]


class Odd(Venue):
    """A venue whose answer about ODD nobody can read."""

    async def ask(self, tickers: object) -> list[Observation]:
        wanted = list(tickers)  # type: ignore[call-overload]
        if "ODD" in wanted:
            raise Malformed("Kalshi's answer is not a market")
        return [one for ticker, one in self.markets.items() if ticker in wanted]


async def test_an_answer_that_cannot_be_read_is_left_to_the_next_sync_and_ends_nothing() -> None:
    async with following({}) as here:
        here.service._venue = Odd(markets={"NEW": market("NEW")})
        await here.tell(status("ODD", "created"))
        await here.until("given_up", 1)
        await here.tell(status("NEW", "created", n=2))
        await here.until("written", 1)
        assert list(await here.standing()) == ["NEW"]
