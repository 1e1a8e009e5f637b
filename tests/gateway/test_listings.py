"""What the venue lists: told with each market, and asked for by series and category."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import msgspec
import pytest
from tests.gateway.conftest import DEADLINE_S, START_NS, Gateway, Running
from tests.gateway.test_access import Desk

from ssmd.domain.listing import (
    DECIDER,
    Change,
    Market,
    MarketChanged,
    MarketClosed,
    MarketDelisted,
    MarketListed,
    MarketRelisted,
    ObserveMarket,
    ObserveStage,
    Standing,
)
from ssmd.errors import Rejected
from ssmd.gateway.listings import Listings

CLOSE_NS = START_NS + 900_000_000_000


def market(ticker: str, series: str = "KXBTC15M", category: str = "Crypto") -> Market:
    return Market(ticker, series, category, f"What of {ticker}?", START_NS, CLOSE_NS, CLOSE_NS, {"strike": "1"})


async def listed(desk: Desk, running: Running, *markets: Market) -> None:
    for one in markets:
        await desk.application.handle(DECIDER, ("kalshi", f"E-{one.series}"), ObserveMarket(one), actor="test")
    async with asyncio.timeout(DEADLINE_S):
        while running.service.state.listings.find(markets[-1].ticker) is None:
            await asyncio.sleep(0.001)


async def test_a_market_is_told_with_what_the_venue_lists(gateway: Gateway) -> None:
    desk = Desk()
    around = {**desk.around(), "journal": None}
    async with gateway(**around) as running, httpx.AsyncClient(base_url=running.url) as http:
        tape = running.tape
        last = running.put(tape.trade("KXBTC15M-1"), tape.status("KXBTC15M-2", "open"), tape.trade("X"))
        await running.settled(last)
        await listed(desk, running, market("KXBTC15M-1"), market("KXBTC15M-2"), market("OTHER-1", "OTHER", "Sports"))
        rows = (await http.get("/v1/markets")).json()["markets"]
        assert [(row["ticker"], row["status"], row["series"], row["category"], row["title"]) for row in rows] == [
            ("KXBTC15M-1", "listed", "KXBTC15M", "Crypto", "What of KXBTC15M-1?"),
            ("KXBTC15M-2", "open", "KXBTC15M", "Crypto", "What of KXBTC15M-2?"),
            ("X", "unknown", "", "", ""),
        ]
        for query, tickers in (
            ({"series": "KXBTC15M"}, ["KXBTC15M-1", "KXBTC15M-2"]),
            ({"category": "Crypto", "status": "listed"}, ["KXBTC15M-1"]),
            ({"category": "Crypto", "series": "OTHER"}, []),
            ({"status": "unknown"}, ["X"]),
        ):
            rows = (await http.get("/v1/markets", params=query)).json()["markets"]
            assert ([row["ticker"] for row in rows], query) == (tickers, query)
        found = (await http.get("/v1/markets/KXBTC15M-1")).json()
        assert (found["market_status"], found["open_ns"], found["close_ns"]) == ("listed", START_NS, CLOSE_NS)
        assert found["contract"] == {
            "title": "What of KXBTC15M-1?",
            "series": "KXBTC15M",
            "category": "Crypto",
            "open_ns": START_NS,
            "close_ns": CLOSE_NS,
            "expiry_ns": CLOSE_NS,
            "stage": "listed",
            "result": "",
            "value": "",
        }
        assert (await http.get("/v1/markets/X")).json()["contract"] is None
        command = ObserveStage("KXBTC15M-1", "determined", CLOSE_NS, "yes")
        await desk.application.handle(DECIDER, ("kalshi", "E-KXBTC15M"), command, actor="test")
        async with asyncio.timeout(DEADLINE_S):
            while (await http.get("/v1/markets/KXBTC15M-1")).json()["contract"]["result"] != "yes":
                await asyncio.sleep(0.005)
        assert (await http.get("/v1/markets/KXBTC15M-1")).json()["market_status"] == "determined"


async def test_a_series_and_a_category_bring_markets_listed_later_too(gateway: Gateway) -> None:
    desk = Desk()
    around = {**desk.around(), "journal": None}
    async with gateway(**around) as running, running.connect() as client:
        await listed(desk, running, market("KXBTC15M-1"), market("KXETH-1", "KXETH"), market("odd", "ODD", "Sports"))
        await client.command("subscribe", categories=["Crypto"], series=["ODD"], kinds=["trade"])
        ack = await client.next()
        assert (ack["type"], sorted(ack["tickers"])) == ("ack", ["KXBTC15M-*", "KXETH-*", "odd"])
        tape = running.tape
        running.put(*(tape.trade(ticker) for ticker in ("KXBTC15M-2", "KXSOL-1", "odd", "KXETH-9")))
        assert [message["ticker"] for message in await client.take(3)] == ["KXBTC15M-2", "odd", "KXETH-9"]
        await client.command("unsubscribe", categories=["Crypto"])
        assert (await client.next())["cmd"] == "unsubscribe"
        running.put(tape.trade("KXETH-9"), tape.trade("odd"))
        assert (await client.next())["ticker"] == "odd"
        refusals: list[tuple[dict[str, Any], str]] = [
            ({"categories": ["Nope"]}, "category-unknown"),
            ({"series": ["NOPE"]}, "series-unknown"),
            ({}, "bad-command"),
        ]
        for fields, code in refusals:
            await client.command("subscribe", **fields)
            assert (await client.next())["code"] == code


def test_the_list_is_bounded_and_its_indexes_agree_with_it() -> None:
    chance, listings = random.Random(5), Listings(listed_max=20)
    naive: dict[str, Standing] = {}
    replace = msgspec.structs.replace
    for _ in range(3_000):
        ticker, series, category = f"T{chance.randrange(40)}", f"S{chance.randrange(4)}", f"C{chance.randrange(3)}"
        known = ticker in naive
        match chance.randrange(5) if known else 0:
            case 0:
                listings.apply(MarketListed(market(ticker, series, category)))
                after = Standing(Market(ticker, series, category))
            case 1:
                before = naive[ticker].market
                changes = (Change("attributes.x", None, "1"), Change("series", before.series, series))
                listings.apply(MarketChanged(ticker, changes))
                after = replace(naive[ticker], market=Market(ticker, series, before.category))
            case 2:
                listings.apply(MarketClosed(ticker, 1))
                after = replace(naive[ticker], stage="closed")
            case 3:
                listings.apply(MarketDelisted(ticker, "gone"))
                after = replace(naive[ticker], is_delisted=True)
            case _:
                listings.apply(MarketRelisted(naive[ticker].market))
                after = Standing(naive[ticker].market)
        naive.pop(ticker, None)
        naive[ticker] = after
        if len(naive) > 20:
            del naive[next(iter(naive))]
        for number in range(4):
            members = {ticker for ticker, one in naive.items() if one.market.series == f"S{number}"}
            if members:
                assert set(listings.asked_by([f"S{number}"], [])) == members
            else:
                with pytest.raises(Rejected, match=f"no market of series 'S{number}' is listed"):
                    listings.asked_by([f"S{number}"], [])
    assert all(listings.find(f"T{number}") is None for number in range(40) if f"T{number}" not in naive)
    assert all((found := listings.find(ticker)) and found.market.attributes == {} for ticker in naive)
    assert {ticker: listings.status_of(ticker) for ticker in naive} == {
        ticker: "delisted" if one.is_delisted else one.stage for ticker, one in naive.items()
    }
