"""Modes conflated and latest: of each market and kind the newest, books whole, gaps all, and a count of what was not sent."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from tests.gateway.conftest import Gateway, Tape

from ssmd.gateway.hub import Hub
from ssmd.gateway.hub_limits import HubLimits
from ssmd.gateway.market_state import MarketState
from ssmd.schemas.records import Record


def frames(hub: Hub, client: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while frame := hub.take(client):
        found += msgspec.json.decode(frame)
    return found


async def test_the_newest_of_each_and_the_count_is_exact() -> None:
    state = MarketState("kalshi")
    hub, tape = Hub(state, HubLimits()), Tape()
    client = hub.connect(lambda: None)
    hub.subscribe(client, 1, ("*",), ("trade", "book", "quote", "gap"))
    hub.set_mode(client, "latest")
    assert [message["type"] for message in frames(hub, client)] == ["ack"]
    records: list[Record] = [
        tape.trade("A", 1),
        tape.trade("A", 2),
        tape.trade("B", 3),
        tape.snapshot("A"),
        tape.delta("A", 4500, 5),
        tape.delta("A", 4500, 5),
        tape.quote("A", 7),
        tape.quote("A", 8),
        tape.gap("A", "g1"),
        tape.gap("A", "g2"),
        tape.trade("A", 9),
    ]
    for seq, record in enumerate(records, 1):
        state.apply(record, seq)
        hub.publish([record], seq)
        hub.settle()
    found = frames(hub, client)
    assert [
        (one["type"], one.get("ticker"), one.get("price", one.get("bid_price", one.get("gap_id")))) for one in found[:-1]
    ] == [
        ("gap", "A", "g1"),
        ("gap", "A", "g2"),
        ("trade", "B", "0.0003"),
        ("quote", "A", "0.0008"),
        ("trade", "A", "0.0009"),
        ("snapshot", "A", None),
    ]
    snapshot = found[-2]
    assert snapshot["bids"] == [["0.4500", "100.10"]]
    assert found[-1] == {"type": "conflated", "messages": 5, "replaced": {"A": 5}, "stream_seq": 11}
    # Every message offered was sent, or counted as replaced.
    sent = Counter(one["ticker"] for one in found[:-1])
    assert sum(sent.values()) + found[-1]["messages"] == len(records)
    hub.set_mode(client, "realtime")
    record = tape.delta("A", 4500, 5)
    hub.publish([record], 12)
    hub.settle()
    assert [one["type"] for one in frames(hub, client)] == ["book"]


async def test_conflated_frames_keep_their_distance(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as client:
        await client.command("mode", mode="conflated", interval_ms=200)
        assert await client.next() == {"type": "mode", "id": 1, "mode": "conflated", "interval_ms": 200}
        await client.command("subscribe", tickers=["*"], kinds=["trade"])
        assert (await client.next())["type"] == "ack"
        loop = asyncio.get_running_loop()
        began, received, replaced, published = loop.time(), 0, 0, 0
        while loop.time() - began < 1.0:
            running.put(running.tape.trade("A"))
            published += 1
            await asyncio.sleep(0.002)
        while received + replaced < published:
            message = await client.next()
            received += message["type"] == "trade"
            replaced += message.get("messages", 0)
        assert received + replaced == published
        assert received <= (loop.time() - began) / 0.2 + 3
        await client.command("subscribe", tickers=["B"], resume_from=0)
        assert (await client.next())["code"] in {"not-first", "mode-not-realtime"}


@pytest.mark.parametrize("asked", ["KX-*", "K*", "*"])
async def test_a_series_is_asked_for_by_its_beginning(gateway: Gateway, asked: str) -> None:
    async with gateway() as running, running.connect() as client:
        tape = running.tape
        await running.settled(running.put(tape.snapshot("KX-1"), tape.snapshot("Z-1")))
        await client.command("subscribe", tickers=[asked, "KX-1"], kinds=["book", "trade"])
        ack, *_ = await client.take(2 + (asked == "*"))
        assert ack["snapshots"] == (2 if asked == "*" else 1)
        running.put(tape.trade("KX-2"), tape.trade("Z-1"), tape.trade("KX-1"))
        found = await client.barrier()
        assert [one["ticker"] for one in found] == (["KX-2", "Z-1", "KX-1"] if asked == "*" else ["KX-2", "KX-1"])
        await client.command("unsubscribe", tickers=[asked])
        await client.next()
        running.put(tape.trade("KX-2"), tape.trade("KX-1"))
        assert [one["ticker"] for one in await client.barrier()] == ["KX-1"]
