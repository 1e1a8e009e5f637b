"""`orderbook?at=`: the archive's book of an instant, in the shape of the book now; what is not archived yet is told."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.archive.conftest import DATE, ENV, FEED, NOON, ArchiveWorld
from tests.gateway.conftest import Gateway

from ssmd.archive.reading import Wanted
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import DayCalendar, iso_of
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.gateway.past_books import PastBooks
from ssmd.transforms.book_at import book_at

TICKER = "A-1"
PATH = f"/v1/markets/{TICKER}/orderbook"


@pytest.fixture
def world(tmp_path: Path) -> ArchiveWorld:
    return ArchiveWorld(MemoryStorage(), tmp_path / "spool")


def past_of(world: ArchiveWorld) -> PastBooks:
    return PastBooks(world.storage, ENV, FEED, DayCalendar())


async def test_the_book_of_an_instant_is_that_of_the_archive(gateway: Gateway, world: ArchiveWorld) -> None:
    await world.session(count=150)
    await world.complete()
    async with gateway(past=past_of(world)) as running, httpx.AsyncClient(base_url=running.url) as http:
        for line in world.lines[8::31]:
            at_ns = line.entry.ts_recv_ns
            wanted = await book_at(world.storage, Wanted(ENV, FEED, DATE, KalshiMapper.version), TICKER, at_ns)
            by_number = await http.get(PATH, params={"at": at_ns})
            found = by_number.json()
            assert (by_number.status_code, found["at_ns"], found["ticker"]) == (200, at_ns, TICKER)
            assert tuple(map(tuple, found["bids"])) == wanted.bids
            assert tuple(map(tuple, found["asks"])) == wanted.asks
            coverage = found["coverage"]
            assert (coverage["verified"], tuple(found["reasons"])) == (wanted.verified, wanted.reasons)
            assert (coverage["ts_recv_ns"], coverage["session"], coverage["n"]) == (
                wanted.last_ns, wanted.session, wanted.n_last
            )  # fmt: skip
            by_text = await http.get(PATH, params={"at": iso_of(at_ns), "depth": 1})
            assert by_text.json()["bids"] == found["bids"][:1]
            assert by_text.json()["bid_levels"] == len(found["bids"])
        # After its end a day that is complete has nothing more.
        assert (await http.get(PATH, params={"at": world.ts + 10**9})).json()["coverage"]["verified"] is False


async def test_what_the_archive_does_not_reach_is_no_answer(gateway: Gateway, world: ArchiveWorld) -> None:
    await world.session(count=60)
    await world.manifests()
    last = max(line.entry.ts_recv_ns for line in world.lines)
    async with gateway(past=past_of(world)) as running, httpx.AsyncClient(base_url=running.url) as http:
        for at, rule in (
            (str(last + 10**9), "not-archived"),
            (iso_of(NOON - 86_400 * 10**9), "not-archived"),
            (str(NOON - 1), "no-book"),
        ):
            answer = await http.get(PATH, params={"at": at})
            assert (answer.status_code, answer.json()["type"], at) == (404, f"urn:ssmd:problem:{rule}", at)
        for at in ("yesterday", "2026-02-30T00:00:00Z", "2026-05-14", "17", "2026-05-14T24:00:00Z"):
            assert (await http.get(PATH, params={"at": at})).status_code == 400
        # Another partition, archived further: whether the ticker is in the short one nobody knows.
        await world.session(count=60, connection="other", tickers=("C-3",))
        await world.manifests()
        found = (await http.get(PATH, params={"at": last + 1_000_000})).json()
        assert found["coverage"]["verified"] is False
        assert any(reason.startswith("partition main is archived up to ") for reason in found["reasons"])


async def test_without_an_archive_that_is_said(gateway: Gateway) -> None:
    async with gateway() as running, httpx.AsyncClient(base_url=running.url) as http:
        answer = await http.get(PATH, params={"at": NOON})
        assert (answer.status_code, answer.json()["detail"]) == (503, "this gateway has no archive to read from")
