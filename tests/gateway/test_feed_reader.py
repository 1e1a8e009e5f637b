"""From the stream to state and clients: order, repeats, holes, a server that goes away, a stream that begins anew."""

from __future__ import annotations

import asyncio

import pytest
import websockets
from tests.gateway.conftest import DEADLINE_S, Gateway, Tape

from ssmd.clock import SystemClock
from ssmd.gateway.app import GatewayLimits
from ssmd.gateway.feed_reader import FeedReader
from ssmd.gateway.hub import Hub
from ssmd.gateway.market_state import MarketState
from ssmd.schemas.market_message import MARK_PART, parse_message_id
from ssmd.streams.transport_memory import MemoryTransport


async def test_records_of_one_block_are_applied_in_tape_order(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as client:
        tape = running.tape
        await client.command("subscribe", tickers=["A"])
        await client.next()
        # One message holds both deltas and comes first; the snapshot of a later message lies between them on the tape.
        running.put(tape.delta("A", 10, 500), tape.snapshot("A", bids=[(10, 100)], asks=[]), tape.delta("A", 10, 1))
        found = await client.take(3)
        assert [(message["type"], message["n"]) for message in found] == [("book", 1), ("snapshot", 2), ("book", 3)]
        market = running.service.state.find("A")
        assert market is not None
        assert market.book.levels() == (((10, 101),), ())


async def test_blocks_published_again_reach_nobody_twice(gateway: Gateway) -> None:
    transport = MemoryTransport(deduplicate=False)
    async with gateway(transport) as running, running.connect() as client:
        tape = running.tape
        await client.command("subscribe", tickers=["*"])
        await client.next()
        blocks = [tape.block(tape.trade("A", at), tape.delta("A", at, 1)) for at in range(1, 6)]
        messages = [message for block in blocks for message in block]
        running.put_messages(messages[:11])
        running.put_messages(messages[6:13])
        running.put_messages(messages[12:])
        running.put_messages(messages[3:])
        found = await client.take(10)
        await running.settled(running.put())
        assert await client.barrier() == []
        assert [message["n"] for message in found] == list(range(1, 11))
        stats = running.service.health().stats
        assert (stats["records"], stats["duplicates"], stats["holes"]) == (10, 5 + 1 + 12, 0)
        assert [message["stream_seq"] for message in found] == [3, 3, 6, 6, 9, 9, 17, 17, 21, 21]


async def test_a_hole_makes_books_suspect_until_the_next_snapshot(gateway: Gateway) -> None:
    async with gateway(limits=GatewayLimits(hold_ns=0)) as running, running.connect() as client:
        tape = running.tape
        await running.settled(running.put(tape.snapshot("A"), tape.snapshot("B")))
        await client.command("subscribe", tickers=["A"], kinds=["gap", "book"])
        await client.take(2)
        lost = tape.block(tape.delta("A", 1, 1), tape.trade("B"))
        running.put_messages(lost[1:])
        opened, closed = await client.take(2)
        assert (opened["type"], opened["ticker"], opened["cause"], opened["state"]) == ("gap", "A", "stream-hole", "opened")
        assert (closed["gap_id"], closed["state"], closed["end_ns"] > closed["start_ns"]) == (opened["gap_id"], "closed", True)
        assert opened["evidence"] == f"block (session {tape.session}, n 3) lacks 1 of 2 messages"
        await client.command("subscribe", tickers=["A"], kinds=["book"])
        _, snapshot = await client.take(2)
        assert (snapshot["verified"], snapshot["reason"], snapshot["gap"]["cause"]) == (False, "gap", "stream-hole")
        running.put(tape.snapshot("A"))
        assert (await client.next())["verified"]
        state = running.service.state
        verified = {market.ticker: market.book_doubt is None for market in state.after("")}
        assert verified == {"A": True, "B": False}


async def test_a_message_nobody_can_read_makes_its_ticker_suspect_and_is_counted(gateway: Gateway) -> None:
    async with gateway() as running:
        tape = running.tape
        await running.settled(running.put(tape.snapshot("A"), tape.snapshot("B")))
        messages = tape.block(tape.delta("A", 1, 1), tape.delta("B", 1, 1))
        messages[0] = messages[0]._replace(payload=b"\xff" * 20)
        running.put_messages([messages[0]._replace(message_id="strange"), *messages])
        await running.settled(running.put())
        state = running.service.state
        assert {market.ticker: market.book_doubt and market.book_doubt[0] for market in state.after("")} == {
            "A": "gap",
            "B": None,
        }
        assert running.service.health().stats["malformed"] == 2


async def test_a_server_that_goes_away_is_waited_for(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as client:
        await client.command("subscribe", tickers=["*"])
        await client.next()
        await running.settled(running.put(running.tape.trade("A")))
        running.transport.is_away = True
        async with asyncio.timeout(DEADLINE_S):
            while running.service.health().ok:
                await asyncio.sleep(0.001)
        assert running.service.health().reason.startswith("market stream unreachable: ")
        running.transport.is_away = False
        await running.settled(running.put(running.tape.trade("A")))
        assert [message["n"] for message in await client.take(2)] == [1, 2]
        async with asyncio.timeout(DEADLINE_S):
            while not running.service.health().ok:
                await asyncio.sleep(0.001)


async def test_a_stream_that_begins_anew_is_read_anew_and_clients_are_told(gateway: Gateway) -> None:
    async with gateway() as running:
        async with running.connect() as client:
            await client.command("subscribe", tickers=["*"])
            await client.next()
            await running.settled(running.put(running.tape.trade("OLD"), running.tape.trade("A")))
            await client.take(2)
            running.transport.reset("market")
            closing = await client.next()
            assert (closing["type"], closing["resume_from"]) == ("closing", 0)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.next()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        anew = Tape(session=running.tape.session + 1)
        await running.settled(running.put_messages(anew.block(anew.trade("NEW"))))
        assert running.service.state.tickers == ("NEW",)
        assert running.service.health().stats["resets"] == 1


async def test_health_is_not_ok_while_behind_the_stream() -> None:
    transport = MemoryTransport()
    tape, state = Tape(), MarketState("kalshi")
    for _ in range(3):
        for message in tape.block(tape.trade("A"), tape.trade("B")):
            transport.put(message)
    reader = FeedReader(transport, "test", state, Hub(state), SystemClock())
    assert not reader.is_caught_up
    task = asyncio.create_task(reader.run())
    async with asyncio.timeout(DEADLINE_S):
        while not reader.is_caught_up:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert (reader.position, reader.lag_messages, state.records, state.stream_seq) == (9, 0, 6, 9)
    last = transport.stored("market")[-1]
    assert parse_message_id(last.message_id).part == MARK_PART
