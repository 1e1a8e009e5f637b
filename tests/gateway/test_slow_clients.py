"""A client that does not keep up is told exactly what it lost, and nobody else notices."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Any

import msgspec
import pytest
import websockets
from tests.gateway.conftest import DEADLINE_S, Gateway, Talker, Tape

from ssmd.errors import Rejected
from ssmd.gateway.app import GatewayLimits
from ssmd.gateway.client import SLOW_CLIENT
from ssmd.gateway.client_queue import QueueLimits
from ssmd.gateway.hub import Hub
from ssmd.gateway.hub_limits import HubLimits
from ssmd.gateway.market_state import MarketState


def hub_of(**limits: Any) -> tuple[Hub, MarketState]:
    state = MarketState("kalshi")
    return Hub(state, HubLimits(**limits)), state


async def test_the_loss_is_exact_up_to_the_last_word_and_others_get_everything() -> None:
    hub, state = hub_of(queue=QueueLimits(messages_max=5))
    slow, fast = hub.connect(lambda: None), hub.connect(lambda: None)
    tape = Tape()
    hub.subscribe(slow, 1, ("*",), ("trade",))
    hub.subscribe(fast, 1, ("A",), ("trade",))
    assert [msgspec.json.decode(hub.take(one))[0]["type"] for one in (slow, fast)] == ["ack", "ack"]
    received: list[int] = []
    for seq in range(1, 13):
        record = tape.trade("A" if seq % 3 else "B")
        state.apply(record, seq)
        hub.publish([record], seq)
        hub.settle()
        if frame := hub.take(fast):
            received += [message["stream_seq"] for message in msgspec.json.decode(frame)]
    assert received == [seq for seq in range(1, 13) if seq % 3]
    assert (slow.closing, fast.closing) == (SLOW_CLIENT, None)
    assert hub.take(slow) == ""
    assert msgspec.json.decode(hub.last_frame(slow)) == [
        {"type": "lost", "messages": 12, "lost": {"A": 8, "B": 4}, "snapshots": 0, "stream_seq": 12}
    ]
    record = tape.trade("A")
    hub.publish([record], 13)
    hub.settle()
    assert slow.queue.lost == {"A": 8, "B": 4}
    assert (hub.messages_lost, hub.clients_closed_slow) == (12, 1)
    hub.disconnect(slow)
    hub.disconnect(slow)
    assert hub.clients == 1


async def test_what_waits_to_be_handed_out_is_in_the_loss() -> None:
    hub, state = hub_of(queue=QueueLimits(messages_max=2))
    slow, tape = hub.connect(lambda: None), Tape()
    hub.subscribe(slow, 1, ("*",), ("trade",))
    hub.take(slow)
    for seq in range(1, 5):
        record = tape.trade("A")
        state.apply(record, seq)
        hub.publish([record], seq)
        hub.settle()
    state.apply(record := tape.trade("B"), 5)
    hub.publish([record], 5)
    (told,) = msgspec.json.decode(hub.last_frame(slow))
    assert (told["messages"], told["lost"], told["stream_seq"]) == (5, {"A": 4, "B": 1}, 5)
    assert hub.messages_lost == 5
    hub.disconnect(slow)


async def test_the_byte_bound_counts_too() -> None:
    hub, state = hub_of(queue=QueueLimits(messages_max=1000, bytes_max=1000))
    client = hub.connect(lambda: None)
    hub.subscribe(client, 1, ("A",), ("trade",))
    tape = Tape()
    for seq in range(1, 11):
        hub.publish([tape.trade("A")], seq)
        hub.settle()
        assert client.queue.size_bytes <= 1000
    assert client.queue.lost == {"A": 10}
    assert state.stream_seq == 0
    hub.disconnect(client)


async def test_a_stopping_hub_takes_nobody() -> None:
    hub, _ = hub_of()
    hub.is_open = False
    with pytest.raises(Rejected, match="stopping"):
        hub.connect(lambda: None)


def _lazy_socket(url: str) -> socket.socket:
    """A connection whose kernel buffer is small, so that not reading shows soon."""
    host, _, port = url.removeprefix("http://").partition(":")
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    plain.connect((host, int(port)))
    return plain


async def _hear_out(client: Talker, heard: list[dict[str, Any]]) -> None:
    while True:
        heard.append(await client.next())


async def test_over_the_wire_received_and_lost_make_what_was_published(gateway: Gateway) -> None:
    limits = GatewayLimits(hub=HubLimits(queue=QueueLimits(messages_max=500), close_grace_s=30.0))
    async with gateway(limits=limits) as running:
        options: dict[str, Any] = {"sock": _lazy_socket(running.url), "max_queue": 1}
        async with running.connect() as fast, running.connect(**options) as slow:
            await fast.command("subscribe", tickers=["*"], kinds=["trade"])
            await slow.command("subscribe", tickers=["*"], kinds=["trade"])
            assert (await fast.next())["type"] == "ack"
            published: list[tuple[int, str]] = []
            received: list[int] = []
            while running.service.hub.clients_closed_slow == 0:
                assert len(published) < 200_000
                block = [running.tape.trade(f"T{at % 7}") for at in range(100)]
                seq = running.put(*block)
                published += [(seq, record.ticker) for record in block]
                received += [message["stream_seq"] for message in await fast.take(100)]
            # Some more while the slow one is still being told.
            block = [running.tape.trade("T0") for _ in range(50)]
            seq = running.put(*block)
            published += [(seq, record.ticker) for record in block]
            received += [message["stream_seq"] for message in await fast.take(50)]
            assert received == [seq for seq, _ in published]
            heard: list[dict[str, Any]] = []
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await _hear_out(slow, heard)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            ack, *trades, lost = heard
            assert (ack["type"], lost["type"]) == ("ack", "lost")
            told = Counter(trade["ticker"] for trade in trades) + Counter(lost["lost"])
            assert told == Counter(ticker for seq, ticker in published if seq <= lost["stream_seq"])
            assert sum(lost["lost"].values()) == lost["messages"]
            assert [trade["stream_seq"] for trade in trades] == [seq for seq, _ in published][: len(trades)]


async def test_a_client_that_never_reads_is_cut_off_after_the_grace(gateway: Gateway) -> None:
    limits = GatewayLimits(hub=HubLimits(queue=QueueLimits(messages_max=200), close_grace_s=0.05))
    async with gateway(limits=limits) as running:
        options: dict[str, Any] = {"sock": _lazy_socket(running.url), "max_queue": 1, "close_timeout": 0.1}
        async with running.connect(**options) as slow:
            await slow.command("subscribe", tickers=["*"])
            sent = 0
            while running.service.hub.clients_closed_slow == 0:
                assert sent < 2000
                sent += 1
                await running.settled(running.put(*(running.tape.trade("A") for _ in range(100))))
            async with asyncio.timeout(DEADLINE_S):
                await running.service.hub.emptied()
