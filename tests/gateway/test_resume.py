"""Whoever comes back with resume_from gets every message exactly once, whatever was killed meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import websockets
from tests.gateway.conftest import DEADLINE_S, Gateway, Tape

from ssmd.gateway.app import GatewayLimits
from ssmd.gateway.client_queue import QueueLimits
from ssmd.gateway.hub_limits import HubLimits
from ssmd.streams.transport import Outgoing, StreamMessage, StreamName, StreamReader
from ssmd.streams.transport_memory import MemoryTransport

Message = dict[str, Any]


class Follower:
    """A client that reconnects where it was, and keeps what it received."""

    def __init__(self, kinds: Sequence[str] = ("trade", "book")) -> None:
        self.kinds = kinds
        self.received: list[Message] = []
        self.at: int | None = None
        self.stream = ""
        self.resumed = 0
        self.errors: list[Message] = []

    async def follow(self, url: str, frames_max: int, until_seq: int = 2**53) -> None:
        """One connection's life: cut without a close after `frames_max` frames, or with the message at `until_seq`."""
        async with websockets.connect(url, max_size=None, compression=None) as socket:
            command: Message = {"id": 1, "cmd": "subscribe", "tickers": ["*"], "kinds": self.kinds}
            if self.at is not None:
                command |= {"resume_from": self.at, "stream": self.stream}
            await socket.send(msgspec.json.encode(command).decode())
            for _ in range(frames_max):
                frame = await socket.recv()
                for message in msgspec.json.decode(frame):
                    if message["type"] == "ack":
                        self.stream = message["stream"]
                        self.at = message["stream_seq"] if self.at is None else self.at
                    elif message["type"] == "resumed":
                        self.resumed += 1
                    elif message["type"] == "heartbeat":
                        self.at = message["stream_seq"]
                    elif message["type"] == "error":
                        self.errors.append(message)
                    elif "stream_seq" in message and message["type"] != "closing":
                        self.received.append(message)
                        self.at = message["stream_seq"]
                if self.at is not None and self.at >= until_seq:
                    break
            socket.transport.abort()


def blocks_of(tape: Tape, count: int, chance: random.Random) -> list[list[Outgoing]]:
    tickers = [f"T{at}" for at in range(5)]
    return [
        tape.block(
            *(
                tape.trade(chance.choice(tickers)) if chance.random() < 0.6 else tape.delta(chance.choice(tickers), 10, 100)
                for _ in range(chance.randint(0, 6))
            )
        )
        for _ in range(count)
    ]


async def test_sixty_cut_connections_and_every_message_once(gateway: Gateway) -> None:
    chance = random.Random(20260514)
    async with gateway() as running:
        url = running.url.replace("http", "ws", 1) + "/v1/stream"
        follower = Follower()
        follower.at = 0
        done = asyncio.Event()

        async def publish() -> None:
            while not done.is_set():
                for block in blocks_of(running.tape, 2, chance):
                    running.put_messages(block)
                await asyncio.sleep(0.005)

        publishing = asyncio.create_task(publish())
        for _ in range(60):
            async with asyncio.timeout(DEADLINE_S):
                await follower.follow(url, chance.randint(1, 12))
        done.set()
        await publishing
        last = running.put(running.tape.trade("T0"))
        async with asyncio.timeout(DEADLINE_S):
            await follower.follow(url, 10_000, last)
        assert follower.errors == []
        ns = [message["n"] for message in follower.received]
        # Every record of this tape is a trade or a delta, but blocks without records use up a number too.
        assert ns == sorted(set(ns))
        assert len(ns) == running.service.state.records
        assert follower.resumed > 20


class _SlowToClose:
    """A reader of a server that is far away: letting go of it takes a while."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader

    async def next(self, timeout_s: float) -> list[StreamMessage]:
        return await self._reader.next(timeout_s)

    async def close(self) -> None:
        await asyncio.sleep(0.03)
        await self._reader.close()


class _FarTransport(MemoryTransport):
    async def read(self, stream: StreamName, *, after: int = 0, filters: Sequence[str] = ()) -> StreamReader:
        return _SlowToClose(await super().read(stream, after=after, filters=filters))


async def test_what_comes_while_the_reader_is_closed_is_not_missing(gateway: Gateway) -> None:
    async with gateway(_FarTransport()) as running:
        done = asyncio.Event()

        async def publish() -> None:
            while not done.is_set():
                running.put(running.tape.trade("A"))
                await asyncio.sleep(0.002)

        publishing = asyncio.create_task(publish())
        await running.settled(2)
        for _ in range(5):
            async with running.connect() as client:
                await client.command("subscribe", tickers=["A"], kinds=["trade"], resume_from=0)
                assert (await client.next())["type"] == "ack"
                heard: list[int] = []
                behind = 0
                while behind < 40:
                    message = await client.next()
                    behind += bool(behind or message["type"] == "resumed")
                    heard += [message["n"]] if message["type"] == "trade" else []
                assert heard == list(range(1, len(heard) + 1))
        done.set()
        await publishing


async def test_trouble_on_the_way_changes_nothing_for_who_comes_back(gateway: Gateway) -> None:
    """Two connections interleaved, repeats, late parts, and a hole given up: what resumes equals what was live."""
    chance = random.Random(11)
    transport = MemoryTransport(deduplicate=False)
    async with gateway(transport, GatewayLimits(hold_ns=30_000_000)) as running:
        left, right = Tape("left", running.tape.session + 1), Tape("right", running.tape.session + 2)
        async with running.connect() as live:
            await live.command("subscribe", tickers=["*"], kinds=["trade", "book", "gap"])
            await live.next()
            # The first blocks are whole: before them a reader cannot know what retention took.
            for step in range(30):
                for tape in (left, right):
                    blocks = blocks_of(tape, 3, chance)
                    messages = [message for block in blocks for message in block]
                    if step % 3 == 0:
                        back = chance.randint(1, len(messages))
                        messages = [*messages, *messages[-back:]]
                    if step % 4 == 1:
                        late = chance.randrange(len(messages))
                        messages = [*messages[:late], *messages[late + 1 :], messages[late]]
                    if step == 13 and tape is left:
                        del messages[0]
                    running.put_messages(messages)
                await asyncio.sleep(0.002)
            async with asyncio.timeout(DEADLINE_S):
                while running.service.reader.held_up:
                    await asyncio.sleep(0.01)
            last = max(running.put_messages(tape.block(tape.trade("END"))) for tape in (left, right))
            await running.settled(last)
            seen = await live.barrier()
        assert running.service.reader.holes >= 1
        records = [message for message in seen if message["type"] != "gap"]
        seqs = sorted({message["stream_seq"] for message in records})
        for after in [0, *chance.sample(seqs, 12), seqs[-1]]:
            async with running.connect() as client:
                await client.command("subscribe", tickers=["*"], kinds=["trade", "book"], resume_from=after)
                assert (await client.next())["type"] == "ack"
                again: list[Message] = []
                while (message := await client.next())["type"] != "resumed":
                    assert message["type"] != "error", message
                    again.append(message)
                assert again == [message for message in records if message["stream_seq"] > after]
                assert message["messages"] == len(again)


async def test_what_resumes_is_bounded_by_what_the_client_reads(gateway: Gateway) -> None:
    limits = GatewayLimits(hub=HubLimits(queue=QueueLimits(messages_max=50)))
    async with gateway(limits=limits) as running:
        for _ in range(400):
            running.put(*(running.tape.trade("A") for _ in range(5)))
        await running.settled(running.put())
        async with running.connect() as client:
            await client.command("subscribe", tickers=["A"], kinds=["trade"], resume_from=0)
            found = await client.take(2002)
        assert [message["type"] for message in (found[0], found[-1])] == ["ack", "resumed"]
        assert [message["n"] for message in found[1:-1]] == list(range(1, 2001))
        assert running.service.hub.clients_closed_slow == 0


async def test_only_what_was_asked_for_and_then_live(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as client:
        tape = running.tape
        first = running.put(tape.snapshot("A"), tape.trade("B"))
        running.put(tape.trade("A"), tape.delta("A", 1, 1), tape.trade("B"))
        await running.settled(running.put(tape.gap("*")))
        await client.command("subscribe", tickers=["A"], kinds=["trade", "gap"], resume_from=first)
        ack, trade, gap, resumed = await client.take(4)
        assert (ack["snapshots"], ack["stream"]) == (0, running.service.reader.incarnation)
        assert (trade["type"], trade["ticker"], trade["n"]) == ("trade", "A", 3)
        assert (gap["type"], gap["ticker"]) == ("gap", "*")
        assert (resumed["type"], resumed["messages"]) == ("resumed", 2)
        running.put(tape.trade("B"), tape.trade("A"))
        assert (await client.next())["ticker"] == "A"
        await client.command("subscribe", tickers=["B"], kinds=["trade"])
        assert (await client.next())["type"] == "ack"


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"resume_from": 10**9}, "resume-ahead", "the stream ends at"),
        ({"resume_from": 3}, "beyond-retention", "the stream begins at 10"),
        ({"resume_from": 12, "stream": "ffff"}, "stream-changed", "sequences were of stream ffff"),
        ({"resume_from": -1}, "bad-command", "resume_from"),
    ],
)
async def test_a_sequence_that_cannot_be_resumed_from_is_refused(
    gateway: Gateway, fields: Message, code: str, words: str
) -> None:
    transport = MemoryTransport()
    tape = Tape()
    for _ in range(10):
        for message in tape.block(tape.trade("A")):
            transport.put(message)
    transport.truncate("market", 10)
    async with gateway(transport) as running, running.connect() as client:
        await running.settled(20)
        await client.command("subscribe", tickers=["A"], **fields)
        error = await client.next()
        assert (error["type"], error["id"], error["code"]) == ("error", 1, code)
        assert words in error["message"]
        if code == "beyond-retention":
            assert "GET /v1/inventory" in error["message"]
        await client.command("subscribe", tickers=["A"], kinds=["trade"])
        assert (await client.next())["type"] == "ack"
        await client.command("subscribe", tickers=["A"], resume_from=15)
        assert (await client.next())["code"] == "not-first"


async def test_a_client_stopped_while_it_resumes_is_told_where_it_was(gateway: Gateway) -> None:
    limits = GatewayLimits(hub=HubLimits(queue=QueueLimits(messages_max=20)))
    async with gateway(limits=limits) as running:
        for _ in range(3000):
            running.put(*(running.tape.trade("A") for _ in range(20)))
        await running.settled(running.put())
        async with running.connect() as client:
            await client.command("subscribe", tickers=["A"], kinds=["trade"], resume_from=0)
            seen = await client.take(101)
            await running.service.stop()
            while (message := await client.next())["type"] != "closing":
                seen.append(message)
        assert message["resume_from"] == seen[-1]["stream_seq"]
        assert message["resume_from"] < running.service.state.stream_seq
