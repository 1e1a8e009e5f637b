"""The connector's questions about the listing, asked of the simulated venue by the one REST client there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self, cast

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.services.connector.test_connector import bench, until
from tests.services.connector.test_group import group_of, has_all, running

from ssmd.clock import Clock, SystemClock
from ssmd.errors import Misconfigured, Rejected, Unavailable
from ssmd.exchanges.kalshi.combos import is_combo
from ssmd.exchanges.kalshi.schedule import schedule_of
from ssmd.exchanges.kalshi.signing import public_pem
from ssmd.identifiers import system_random
from ssmd.services.connector import kalshi_listing
from ssmd.services.connector.kalshi_listing import KalshiListing, MakeClient, Pauses
from ssmd.services.connector.kalshi_venue import KalshiAccess, VenueKey
from ssmd.services.connector.universe import Selection
from ssmd.services.kalshi_rest.client import KalshiRest, RestAnswer, RestSettings
from ssmd.services.simulator.config import FaultOrder, SimulatorConfig
from ssmd.services.simulator.seeded_feed import SeededFeed

KEY = Ed25519PrivateKey.generate()
QUICK = RestSettings(tries_max=8, deadline_s=20.0, pause_first_s=0.005, pause_max_s=0.02)


class ClockApart(SystemClock):
    """Our clock, a minute off."""

    def now_ns(self) -> int:
        return super().now_ns() - 60_000_000_000


def access_to(system: Any, key: Any = None, clock: Clock | None = None, ask_key: Any = None) -> KalshiAccess:
    return KalshiAccess(
        rest_url=system.simulator.rest_url,
        websocket_url=system.simulator.websocket_url,
        key_id="key",
        private_key=key,
        channels=("market_lifecycle_v2",),
        tickers=(),
        tickers_max=1000,
        clock=clock or SystemClock(),
        ask_key=ask_key,
    )


def singles(system: Any, **of: str) -> list[str]:
    model = system.simulator._feed.model
    return [
        ticker
        for ticker, held in model.markets.items()
        if held.phase == "active"
        and not is_combo(ticker)
        and of.get("series", held.spec.event.series) == held.spec.event.series
    ]


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kalshi_listing, "PAGE_LIMIT", 4)
    monkeypatch.setattr(kalshi_listing, "PATIENCE", QUICK)


@pytest.mark.parametrize(
    "kind", ["rest-429", "rest-500", "rest-502", "rest-503", "rest-504", "half-page", "cursor-loop", "rest-slow"]
)
async def test_no_market_is_lost_over_several_pages_whatever_the_venue_answers(tmp_path: Path, kind: Any) -> None:
    async with bench(tmp_path, SimulatorConfig(seed=2, markets=14, combos=3, rate=20, require_auth=False)) as system:
        system.simulator._faults.arm(FaultOrder(kind=kind, count=4, path="/markets", stall_ms=20))
        found = await access_to(system).listing().open_markets()
        assert [one.ticker for one in found] == singles(system)
        markets = cast("SeededFeed", system.simulator._feed).model.markets
        assert [one.event for one in found] == [markets[one.ticker].spec.event.ticker for one in found]
        assert system.simulator._faults.fired == {kind: 4}


async def test_a_listing_that_stays_in_circles_or_broken_is_unavailable_and_nothing_else(tmp_path: Path) -> None:
    async with bench(tmp_path, SimulatorConfig(seed=2, markets=14, rate=20, require_auth=False)) as system:
        for kind, words in (("cursor-loop", "go in circles"), ("rest-503", "no answer after 8 tries"), ("rest-404", "404")):
            system.simulator._faults.arm(FaultOrder(kind=kind, count=1_000, path="/markets"))  # type: ignore[arg-type]
            with pytest.raises(Unavailable, match=words):
                await access_to(system).listing().open_markets()
            system.simulator._faults.clear()


async def test_series_events_and_categories_are_asked_for_and_combos_only_by_name(tmp_path: Path) -> None:
    async with bench(tmp_path, SimulatorConfig(seed=2, markets=14, combos=3, rate=20, require_auth=False)) as system:
        listing, model = access_to(system).listing(), system.simulator._feed.model  # type: ignore[union-attr]
        assert [one.ticker for one in await listing.open_markets(series="KXFED")] == singles(system, series="KXFED")
        event = model.markets[singles(system)[0]].spec.event.ticker
        assert {one.event for one in await listing.open_markets(event=event)} == {event}
        assert await listing.series_of("Economics") == ["KXFED"]
        combos = [ticker for ticker in model.markets if is_combo(ticker)]
        assert [one.ticker for one in await listing.open_markets(series="KXMVECROSSCATEGORY")] == combos
        of_one = model.markets[combos[1]].spec.event.ticker
        assert [one.ticker for one in await listing.open_markets(event=of_one)] == [combos[1]]
        requests = system.simulator._rest.requests
        assert len(await listing.open_markets(limit=3)) >= 3
        assert system.simulator._rest.requests == requests + 1, "no more pages than are wanted"


async def test_who_has_settled_is_asked_by_name_over_several_pages(tmp_path: Path) -> None:
    async with bench(tmp_path, SimulatorConfig(seed=2, markets=14, rate=20, require_auth=False)) as system:
        model = cast("SeededFeed", system.simulator._feed).model
        first, second, third, *others = singles(system)
        model.markets[first].phase = "finalized"
        model.markets[second].phase = "closed"
        system.simulator._faults.arm(FaultOrder(kind="half-page", count=2, path="/markets"))
        asked = [*others, third, "KXNOBODY", second, first]
        assert await access_to(system).listing().settled(asked) == ["KXNOBODY", first]
        assert system.simulator._faults.fired == {"half-page": 2}
        # A list that lacks a market proves nothing.
        system.simulator._faults.arm(FaultOrder(kind="missing-rows", count=1_000, path="/markets"))
        assert await access_to(system).listing().settled(asked) == ["KXNOBODY", first]
        system.simulator._faults.clear()
        system.simulator._faults.arm(FaultOrder(kind="rest-503", count=1_000, path="/markets"))
        with pytest.raises(Unavailable):
            await access_to(system).listing().settled([first])


class Forgetful:
    """A venue whose lists lack every market, and that cannot tell of all of them by themselves."""

    def __init__(self, *poisoned: str) -> None:
        self.poisoned = poisoned
        self.asked: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def pages(self, *_: object, **_options: object) -> AsyncIterator[list[msgspec.Raw]]:
        yield []

    async def get(self, path: str) -> RestAnswer:
        ticker = path.rpartition("/")[2]
        self.asked.append(ticker)
        if ticker in self.poisoned:
            raise Unavailable("answered 500")
        if ticker.endswith("0"):
            return RestAnswer(b'{"market":{"ticker":"%s","status":"active"}}' % ticker.encode(), 0)
        raise Rejected("kalshi-not-found", path)


async def test_of_many_that_a_list_lacks_some_are_asked_for_at_a_time_and_each_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kalshi_listing, "ALONE_MAX", 4)
    tickers = [f"T-{number:02}" for number in range(1, 12)]
    venue = Forgetful("T-03")
    listing = KalshiListing(cast("MakeClient", lambda _: venue), lambda _: True)
    rounds = [await listing.settled(tickers) for _ in range(4)]
    assert rounds == [["T-01", "T-02"], ["T-04", "T-05", "T-06", "T-07"], ["T-08", "T-09", "T-11"], ["T-01", "T-02"]]
    assert venue.asked == [f"T-{number:02}" for number in [*range(1, 12), *range(1, 4)]]


async def test_all_questions_of_one_account_share_its_tokens(tmp_path: Path) -> None:
    """Listings at the same time, one after another, and the hours: the venue never has to say 429."""
    config = SimulatorConfig(seed=2, markets=40, rate=20, public_keys={"key": public_pem(KEY).decode()}, rest_tokens_s=600)
    async with bench(tmp_path, config) as system:
        access = access_to(system, KEY)
        asked = [access.listing().open_markets() for _ in range(8)]
        found, _ = await asyncio.gather(asyncio.gather(*asked), access.listing().schedule())
        assert all([one.ticker for one in listed] == singles(system) for listed in found)
        account = access._account
        assert (account.limits.refill_rate, account.limits.capacity) == (600, 1_200), "asked for once, and kept to"
        assert system.simulator._rest.requests == 8 * 10 + 1 + 1, "a call more would be one that was refused"


@pytest.mark.parametrize("rotating", [False, True])
async def test_a_wrong_key_is_final_a_rotated_one_is_given_time_and_a_clock_apart_is_tried_again(
    tmp_path: Path, rotating: bool
) -> None:
    config = SimulatorConfig(seed=2, markets=4, rate=20, public_keys={"key": public_pem(KEY).decode()})
    async with bench(tmp_path, config) as system:
        wrong = Ed25519PrivateKey.generate()
        access = access_to(system, wrong, ask_key=(lambda: VenueKey("key", wrong)) if rotating else None)
        with pytest.raises(Misconfigured, match="INCORRECT_API_KEY_SIGNATURE") as caught:
            await access.listing().open_markets()
        assert "private key" in caught.value.mend
        access._on_accepted()
        with pytest.raises(Unavailable if rotating else Misconfigured, match="INCORRECT_API_KEY_SIGNATURE"):
            await access.listing().open_markets()
        with pytest.raises(Unavailable, match="header_timestamp_expired"):
            await access_to(system, KEY, ClockApart()).listing().open_markets()


async def test_a_key_that_is_refused_over_rest_does_not_end_a_connection_that_lives(tmp_path: Path) -> None:
    async with bench(tmp_path, SimulatorConfig(seed=2, markets=6, rate=50, require_auth=False)) as system:
        group = group_of(system, room=100)
        async with running(group) as task:
            await until(lambda: has_all(group, 6), "all markets placed", task)
            system.simulator._faults.arm(FaultOrder(kind="rest-401", count=1_000))
            group._refresh_s = 0.0
            await until(lambda: "listing: " in group.health().reason, "the listing is refused", task)
            frames = int(group.health().stats["frames"])
            await until(lambda: int(group.health().stats["frames"]) > frames + 50, "capture goes on", task)
            system.simulator._faults.clear()
            await until(lambda: group.health().ok, "the listing is back", task)
            assert group.health().stats["sessions"] == 1


async def test_combos_are_captured_where_their_series_is_named_and_are_no_part_of_all(tmp_path: Path) -> None:
    config = SimulatorConfig(seed=2, markets=8, combos=2, rate=50, require_auth=False)
    async with bench(tmp_path, config) as system:
        channels = ("orderbook_delta", "trade", "market_lifecycle_v2", "multivariate_market_lifecycle")
        model: Any = system.simulator._feed.model  # type: ignore[union-attr]
        named = group_of(system, Selection(series=("KXMVECROSSCATEGORY",)), room=100, channels=channels)
        async with running(named) as task:
            await until(lambda: has_all(named, 2), "the combos are placed", task)
            await _order(system, {"kind": "combo", "count": 2})
            await until(lambda: has_all(named, 4), "new ones are followed", task)
            assert set(named.universe.tickers) == {ticker for ticker in model.markets if is_combo(ticker)}
        told = [one for one in system.records() if is_combo(one.ticker)]
        kinds = {type(one).__name__ for one in told}
        assert kinds - {"Gap"} == {"BookSnapshot", "MarketStatus"}
    async with bench(tmp_path / "all", config) as system:
        everything = group_of(system, Selection(is_apart=is_combo), room=100, channels=channels)
        async with running(everything) as task:
            await until(lambda: has_all(everything, 8), "all but combos", task)
            await _order(system, {"kind": "combo"})
            await _order(system, {"kind": "list"})
            await until(lambda: has_all(everything, 9), "the single one is followed", task)
            assert not [ticker for ticker in everything.universe.tickers if is_combo(ticker)]


async def _order(system: Any, order: dict[str, object]) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{system.simulator.control_url}/orders", content=msgspec.json.encode(order))
    assert answer.status_code == 200, answer.text


async def test_the_hours_are_asked_for_once_an_hour_and_kept_where_they_cannot_be_had(tmp_path: Path) -> None:
    async with bench(tmp_path, SimulatorConfig(seed=2, markets=2, rate=20, require_auth=False)) as system:
        listing = access_to(system).listing()
        body = await listing.schedule()
        assert schedule_of(body, SystemClock().now_ns()) is not None
        pauses = Pauses(listing, SystemClock())
        system.simulator._faults.arm(FaultOrder(kind="rest-503", count=1))
        before = system.simulator._rest.requests
        for _ in range(3):
            await pauses.refresh()
        assert system.simulator._rest.requests == before + 2, "one try that failed, one that did not, and none after it"


async def test_an_answer_that_is_none_is_unavailable() -> None:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"markets": [{"ticker": 7}], "series": 3}'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    listing = KalshiListing(lambda settings: KalshiRest(url, None, SystemClock(), system_random, settings), lambda _: True)
    try:
        with pytest.raises(Unavailable, match="/markets answered"):
            await listing.open_markets()
        with pytest.raises(Unavailable, match="/series answered what is not expected"):
            await listing.series_of("Crypto")
    finally:
        server.close()
        await server.wait_closed()
