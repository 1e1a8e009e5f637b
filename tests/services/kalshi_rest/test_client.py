"""The REST client against the simulated venue's worst days: no market is lost for good."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from tests.services.kalshi_rest.conftest import QUICK, signer

from ssmd.clock import SystemClock
from ssmd.errors import Rejected, Unavailable
from ssmd.services.kalshi_rest.client import RestSettings

MARKETS = {"limit": "7", "status": "open"}


async def tickers(venue: Any) -> list[str]:
    found = []
    async for rows in venue.client.pages("/markets", MARKETS, rows="markets", key="ticker"):
        found += [msgspec.json.decode(row)["ticker"] for row in rows]
    return found


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "rest-429", "count": 6},
        {"kind": "rest-500", "count": 5},
        {"kind": "rest-502", "count": 4},
        {"kind": "rest-503", "count": 5},
        {"kind": "rest-504", "count": 5},
        {"kind": "half-page", "count": 3},
        {"kind": "rest-expired", "count": 2},
        {"kind": "cursor-loop", "count": 5},
    ],
    ids=lambda fault: fault["kind"],
)
async def test_no_market_is_lost_for_good(run_venue: Any, fault: dict[str, Any]) -> None:
    async with run_venue(markets=30) as venue:
        await venue.client.get("/exchange/status")
        await venue.control("/faults", {**fault, "path": "/markets"})
        found = await tickers(venue)
        assert sorted(found) == sorted(venue.model.markets)
        assert len(found) == len(set(found))
        fired = (await venue.control("/faults/clear"))["fired"]
        assert fired[fault["kind"]] == fault["count"]


async def test_a_storm_of_everything_ends_with_every_market(run_venue: Any) -> None:
    kinds = ["rest-429", "rest-500", "cursor-loop", "half-page", "rest-503", "rest-429", "rest-502", "cursor-loop"] * 5
    async with run_venue(markets=60) as venue:
        await venue.control("/faults", [{"kind": kind, "path": "/markets"} for kind in kinds])
        assert sorted(await tickers(venue)) == sorted(venue.model.markets)
        assert venue.client.figures.slow_downs == 10


async def test_rows_a_page_left_out_are_there_the_next_time(run_venue: Any) -> None:
    async with run_venue(markets=20) as venue:
        await venue.control("/faults", {"kind": "missing-rows", "path": "/markets"})
        assert len(await tickers(venue)) < 20
        assert sorted(await tickers(venue)) == sorted(venue.model.markets)


async def test_a_venue_that_stays_broken_is_unavailable_within_the_limits(run_venue: Any) -> None:
    async with run_venue(markets=3, settings=RestSettings(tries_max=3, pause_first_s=0.001)) as venue:
        await venue.control("/faults", {"kind": "rest-503", "count": 1000})
        with pytest.raises(Unavailable, match=r"/markets: no answer after 3 tries: 503: service_unavailable"):
            await venue.client.get("/markets")


async def test_pages_that_go_in_circles_for_ever_are_given_up(run_venue: Any) -> None:
    async with run_venue(markets=20) as venue:
        await venue.control("/faults", {"kind": "cursor-loop", "count": 1000, "path": "/markets"})
        with pytest.raises(Unavailable, match="go in circles"):
            await tickers(venue)


async def test_every_call_has_a_deadline_however_slow_the_venue(run_venue: Any) -> None:
    settings = RestSettings(timeout_s=0.1, tries_max=1000, deadline_s=0.5, pause_first_s=0.01)
    async with run_venue(markets=3, settings=settings) as venue:
        await venue.control("/faults", {"kind": "rest-slow", "stall_ms": 30_000, "count": 1000, "path": "/markets"})
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match=r"no answer after 0\.5 s"):
            await venue.client.get("/markets")
        assert asyncio.get_running_loop().time() - began < 20, "its stall is 30 s"


async def test_what_will_be_refused_again_is_not_asked_again(run_venue: Any) -> None:
    async with run_venue(markets=3) as venue:
        for path, params, rule in (
            ("/markets/KXNO", {}, "kalshi-not-found"),
            ("/markets", {"limit": "1001"}, "kalshi-bad-request"),
            ("/nothing", {}, "kalshi-not-found"),
        ):
            before = venue.client.figures.tries
            with pytest.raises(Rejected) as caught:
                await venue.client.get(path, params)
            assert caught.value.rule == rule
            assert venue.client.figures.tries <= before + 2  # the limits, once


async def test_a_wrong_key_and_a_wrong_clock_are_told_apart(run_venue: Any) -> None:
    async with run_venue(sign=signer(SystemClock(), ed25519.Ed25519PrivateKey.generate())) as venue:
        with pytest.raises(Rejected, match="INCORRECT_API_KEY_SIGNATURE") as caught:
            await venue.client.get("/markets")
        assert caught.value.rule == "kalshi-bad-key"
        assert venue.client.figures.tries == 1
    async with run_venue(sign=signer(SystemClock(), offset_ms=-60_000)) as venue:
        with pytest.raises(Rejected, match="header_timestamp_expired") as caught:
            await venue.client.get("/markets")
        assert "clock" in caught.value.mend
        assert 2 <= venue.client.figures.tries <= 5


async def test_the_accounts_limits_are_kept_without_a_single_429(run_venue: Any) -> None:
    async with run_venue(markets=2, rest_tokens_s=300) as venue:
        await asyncio.gather(*(venue.client.get("/exchange/status") for _ in range(60)))
        assert (venue.client.limits.refill_rate, venue.client.limits.capacity) == (300, 600)
        assert venue.client.figures.slow_downs == 0
        assert venue.client.figures.answers == 61


async def test_when_others_use_up_the_bucket_it_waits_and_gets_its_answers(run_venue: Any) -> None:
    async with run_venue(markets=2, rest_tokens_s=100) as venue:
        await venue.client.get("/exchange/status")
        headers = signer(SystemClock())("GET", "/trade-api/v2/exchange/status")
        async with asyncio.timeout(60):  # one by one, a slow machine may ask no faster than the bucket fills
            while True:
                others = (venue._http.get(venue.simulator.rest_url + "/exchange/status", headers=headers) for _ in range(30))
                if 429 in {answer.status_code for answer in await asyncio.gather(*others)}:
                    break
        answers = await asyncio.gather(*(venue.client.get("/exchange/status") for _ in range(8)))
        assert len(answers) == 8


async def test_an_answer_the_edge_kept_is_not_taken_for_news(run_venue: Any) -> None:
    async with run_venue(sign=None, markets=2, edge_cache_s=1, settings=QUICK) as venue:
        markets = 2
        while True:
            old = await venue.client.get("/markets")
            await venue.control("/orders", {"kind": "list"})
            now_ns, markets = SystemClock().now_ns(), markets + 1
            # Fresh enough for who does not ask; on a slow machine a second is over before.
            if (await venue.client.get("/markets")).body == old.body:
                break
        patient = RestSettings(tries_max=60, pause_first_s=0.05, pause_max_s=0.1)
        venue.client._settings = patient
        fresh = await venue.client.get("/markets", not_before_ns=now_ns)
        assert fresh.as_of_ns >= now_ns
        assert len(msgspec.json.decode(fresh.body)["markets"]) == markets
        assert venue.client.figures.stale >= 1
