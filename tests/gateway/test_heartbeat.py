"""A client for whom nothing is waiting hears that it has everything, and resumes from there."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from tests.gateway.conftest import DEADLINE_S, ENV, Gateway

from ssmd.gateway.app import GatewayLimits
from ssmd.gateway.server import listen

LIMITS = GatewayLimits(heartbeat_s=0.02)


async def test_a_quiet_client_may_resume_from_the_last_beat(gateway: Gateway) -> None:
    async with gateway(limits=LIMITS) as running:
        tape = running.tape
        async with running.connect() as client:
            await client.command("subscribe", tickers=["QUIET"], kinds=["trade"])
            stream = (await client.next())["stream"]
            last = running.put(tape.trade("LOUD"))
            async with asyncio.timeout(DEADLINE_S):
                while (beat := await client.next())["stream_seq"] < last:
                    assert beat["type"] == "heartbeat"
            assert set(beat) == {"type", "stream_seq", "ts_ns"}
        missed = running.put(tape.trade("QUIET"))
        async with running.connect() as client:
            fields = {"resume_from": beat["stream_seq"], "stream": stream}
            await client.command("subscribe", tickers=["QUIET"], kinds=["trade"], **fields)
            heard: list[dict[str, Any]] = []
            while len(heard) < 3:
                if (message := await client.next())["type"] != "heartbeat":
                    heard.append(message)
            assert [message["type"] for message in heard] == ["ack", "trade", "resumed"]
            assert heard[1]["stream_seq"] == missed


async def test_no_beat_says_more_than_the_client_has(gateway: Gateway) -> None:
    """Beats among busy messages: none of what comes behind one is covered by it."""
    async with gateway(limits=GatewayLimits(heartbeat_s=0.001)) as running, running.connect() as client:
        await client.command("subscribe", tickers=["*"], kinds=["trade"])
        assert (await client.next())["type"] == "ack"
        for _ in range(200):
            last = running.put(running.tape.trade("A"), running.tape.trade("B"))
            await asyncio.sleep(0.001)
        told = beats = 0
        while told < last:
            message = await client.next()
            if message["type"] == "heartbeat":
                beats += 1
                told = message["stream_seq"]
            else:
                assert message["stream_seq"] > told
        assert beats > 3


async def test_while_the_stream_cannot_be_read_there_is_no_beat(gateway: Gateway) -> None:
    async with gateway(limits=LIMITS) as running, running.connect() as client:
        await asyncio.sleep(0.1)
        # Whoever did not say yet what it wants may be about to resume from an earlier place.
        assert await client.barrier() == []
        await client.command("subscribe", tickers=["A"])
        assert [(await client.next())["type"] for _ in range(2)] == ["ack", "heartbeat"]
        running.service.state.is_current = False
        before = [message["type"] for message in await client.barrier()]
        await asyncio.sleep(0.1)
        assert (await client.barrier(), set(before) <= {"heartbeat"}) == ([], True)


async def test_answers_wait_for_no_acknowledgement() -> None:
    listener = await listen("127.0.0.1", 0, ENV)
    try:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    finally:
        listener.close()
