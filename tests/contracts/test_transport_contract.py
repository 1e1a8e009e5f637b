"""One suite for the transport port, on the memory backend and on a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ssmd.errors import Conflict, Unavailable
from ssmd.services.embedded_servers import start_nats
from ssmd.streams import topology
from ssmd.streams.connection import Connection
from ssmd.streams.transport import Outgoing, PublishConnection, StreamMessage, StreamName, StreamReader, Transport
from ssmd.streams.transport_memory import MemoryTransport
from ssmd.streams.transport_nats import NatsTransport

ENV = "t"


async def apply_streams(url: str, env: str) -> None:
    connection = await Connection.open(url, name="test", timeout_s=30)
    definitions = [
        definition
        for definition in topology.desired(env, max_age_s=3600, max_bytes=256 << 20)
        if definition.endpoint == "transport"
    ]
    await topology.apply({"transport": connection}, definitions)
    await connection.close()


@pytest.fixture(params=["memory", "nats"])
def url(request: pytest.FixtureRequest) -> str:
    """Where the backend is, "" for memory. Not async: a server is started outside the test's own loop."""
    return "" if request.param == "memory" else str(request.getfixturevalue("transport_url"))


@pytest.fixture
async def transport(url: str, fresh_env: str) -> AsyncIterator[Transport]:
    if not url:
        yield MemoryTransport()
        return
    await apply_streams(url, fresh_env)
    opened = await NatsTransport.open(url, fresh_env)
    yield opened
    await opened.close()


@pytest.fixture
def env(fresh_env: str) -> str:
    return fresh_env


async def publish(transport: Transport, *messages: Outgoing) -> None:
    publisher = await transport.publisher()
    await publisher.publish(messages)
    await settle(publisher, messages)
    await publisher.close()


async def settle(publisher: PublishConnection, messages: tuple[Outgoing, ...]) -> None:
    async with asyncio.timeout(30):
        while publisher.acks("raw") + publisher.acks("market") < len(messages):
            await publisher.progress(5)


async def take(reader: StreamReader, count: int) -> list[StreamMessage]:
    taken: list[StreamMessage] = []
    async with asyncio.timeout(60):
        while len(taken) < count:
            taken += await reader.next(5)
    return taken


def book(env: str, ticker: str, text: str) -> Outgoing:
    return Outgoing(f"{env}.md.kalshi.book.{ticker}", text.encode(), f"main.1.{text}.0")


async def test_what_is_published_is_read_in_order_with_its_id(transport: Transport, env: str) -> None:
    sent = [book(env, f"T{i % 3}", f"{i:x}") for i in range(2500)]
    await publish(transport, *sent)
    reader = await transport.read("market")
    got = await take(reader, len(sent))
    assert [(message.subject, message.payload, message.message_id) for message in got] == [tuple(one) for one in sent]
    assert [message.seq for message in got] == list(range(1, len(sent) + 1))
    assert await reader.next(0.05) == []
    await reader.close()


async def test_filters_and_the_start_position_choose(transport: Transport, env: str) -> None:
    await publish(transport, *[book(env, f"T{i % 2}", f"{i:x}") for i in range(10)])
    reader = await transport.read("market", after=4, filters=[f"{env}.md.kalshi.*.T1"])
    assert [message.seq for message in await take(reader, 3)] == [6, 8, 10]
    await publish(transport, book(env, "T1", "aaaa"))
    assert [message.payload for message in await take(reader, 1)] == [b"aaaa"]
    await reader.close()


async def test_a_repeated_id_is_acknowledged_and_stored_once(transport: Transport, env: str) -> None:
    await publish(transport, book(env, "T", "1"), book(env, "T", "1"), book(env, "T", "2"))
    state = await transport.state("market")
    assert (state.first_seq, state.last_seq, state.messages) == (1, 2, 2)


async def test_last_and_get_show_what_is_stored(transport: Transport, env: str) -> None:
    await publish(transport, book(env, "A", "1"), book(env, "B", "2"), book(env, "A", "3"))
    last = await transport.last("market", f"{env}.md.kalshi.book.A")
    assert last == StreamMessage(3, f"{env}.md.kalshi.book.A", b"3", "main.1.3.0")
    assert await transport.get("market", 2) == StreamMessage(2, f"{env}.md.kalshi.book.B", b"2", "main.1.2.0")
    assert await transport.get("market", 4) is None
    assert await transport.last("market", f"{env}.md.kalshi.book.C") is None


async def test_streams_are_apart_and_acknowledged_apart(transport: Transport, env: str) -> None:
    publisher = await transport.publisher()
    messages = (Outgoing(f"{env}.raw.kalshi.main", b"block", "main.1.1.raw"), book(env, "T", "1"), book(env, "T", "2"))
    await publisher.publish(messages)
    await settle(publisher, messages)
    counts: dict[StreamName, int] = {"raw": publisher.acks("raw"), "market": publisher.acks("market")}
    assert counts == {"raw": 1, "market": 2}
    assert (await transport.state("raw")).messages == 1
    await publisher.close()


async def test_a_position_beyond_the_stream_is_a_conflict(transport: Transport, env: str) -> None:
    await publish(transport, book(env, "T", "1"))
    with pytest.raises(Conflict, match="before position 5"):
        await transport.read("market", after=5)


async def test_large_blocks_pass(transport: Transport, env: str) -> None:
    blocks = [Outgoing(f"{env}.raw.kalshi.main", bytes([i]) * (1 << 20), f"main.1.{i:x}.raw") for i in range(40)]
    await publish(transport, *blocks)
    reader = await transport.read("raw")
    assert [message.payload for message in await take(reader, 40)] == [block.payload for block in blocks]
    await reader.close()


async def test_no_stream_for_the_subject_fails_the_publisher(transport_url: str, fresh_env: str) -> None:
    transport = await NatsTransport.open(transport_url, fresh_env)
    publisher = await transport.publisher()
    await publisher.publish([book(fresh_env, "T", "1")])
    with pytest.raises(Unavailable, match="ssmd streams apply"):
        await publisher.progress(5)
    with pytest.raises(Unavailable):
        await publisher.publish([book(fresh_env, "T", "2")])
    await publisher.close()
    with pytest.raises(Unavailable, match="does not exist"):
        await transport.state("market")
    await transport.close()


async def test_a_reader_goes_on_after_the_server_was_killed_and_a_publisher_says_so(tmp_path: Path) -> None:
    server = await start_nats(tmp_path / "nats", sync_always=False)
    await apply_streams(server.url, ENV)
    transport = await NatsTransport.open(server.url, ENV)
    reader = await transport.read("market")
    publisher = await transport.publisher()
    await publisher.publish([book(ENV, "T", "1")])
    assert [message.seq for message in await take(reader, 1)] == [1]
    await publisher.progress(5)
    server.kill()
    with pytest.raises(Unavailable):
        await publisher.progress(5)
    await publisher.close()
    assert await reader.next(0.3) == []
    await server.restart()
    await publish(transport, book(ENV, "T", "2"))
    assert [(message.seq, message.payload) for message in await take(reader, 1)] == [(2, b"2")]
    await reader.close()
    await transport.close()
    await server.stop()


async def test_a_reader_says_when_the_stream_is_another_one(tmp_path: Path) -> None:
    server = await start_nats(tmp_path / "one", sync_always=False)
    await apply_streams(server.url, ENV)
    transport = await NatsTransport.open(server.url, ENV)
    await publish(transport, book(ENV, "T", "1"))
    reader = await transport.read("market")
    assert len(await take(reader, 1)) == 1
    await server.stop()
    again = await start_nats(tmp_path / "two", port=server.port, sync_always=False)
    await apply_streams(again.url, ENV)
    with pytest.raises(Conflict, match="another one"):
        await take(reader, 1)
    await reader.close()
    await transport.close()
    await again.stop()


async def test_a_burst_behind_a_trickle_is_read_in_order_by_the_same_consumer(transport_url: str, fresh_env: str) -> None:
    await apply_streams(transport_url, fresh_env)
    transport = await NatsTransport.open(transport_url, fresh_env)
    reader = await transport.read("market")
    publisher = await transport.publisher()
    sent: list[Outgoing] = []
    got: list[StreamMessage] = []
    consumers = set()
    for size in (1, 3, 700, 1, 1500, 2, 900, 4000, 1):
        burst = [book(fresh_env, f"T{i % 7}", f"{len(sent) + i:x}") for i in range(size)]
        sent += burst
        await publisher.publish(burst)
        # Busy elsewhere while the burst comes in: it is read in one go.
        for _ in range(20):
            await asyncio.sleep(0)
        got += await take(reader, size)
        consumers.add(id(reader._consumer))  # type: ignore[attr-defined]
    assert [message.payload for message in got] == [message.payload for message in sent]
    assert len(consumers) == 1, "the consumer had to be replaced"
    await reader.close()
    await publisher.close()
    await transport.close()
