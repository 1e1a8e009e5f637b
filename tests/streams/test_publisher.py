"""The ordered publisher: in order, nothing missing, nothing twice, whatever the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from ssmd.errors import Unavailable
from ssmd.schemas.blocks import NO_DIGEST, EntryKind, decode_header, encode_block
from ssmd.schemas.market_message import MARK_PART, Mark, Place, encode_mark, message_id, parse_message_id, raw_message_id
from ssmd.services.embedded_servers import start_nats
from ssmd.streams import topology
from ssmd.streams.connection import Connection
from ssmd.streams.publisher import NOWHERE, EntryPlace, OrderedPublisher, Reached, StreamsRegressed, Unit
from ssmd.streams.transport import Outgoing, PublishConnection, StreamMessage, StreamName, StreamState, Transport
from ssmd.streams.transport_memory import MemoryTransport
from ssmd.streams.transport_nats import NatsTransport

ENV, FEED, CONNECTION = "t", "kalshi", "main"


def no_jitter(size: int, /) -> bytes:
    return bytes(size)


def unit(session: int, block: int, *, parts: int = 2, size: int = 10) -> Unit:
    """Block number `block` (from 0) of a session: two entries, `parts` market messages and the mark."""
    first_n, last_n = 1 + 2 * block, 2 + 2 * block
    data = encode_block(session, first_n, [(EntryKind.IN, 1, b"a" * size), (EntryKind.IN, 2, b"b")], NO_DIGEST)
    market = [
        Outgoing(f"{ENV}.md.{FEED}.book.T{part}", b"r", message_id(Place(CONNECTION, session, first_n, part)))
        for part in range(parts)
    ]
    mark = Mark(CONNECTION, session, first_n, last_n, parts, {"book": parts}, session, first_n - 1, 2, 1)
    market.append(
        Outgoing(
            f"{ENV}.md.{FEED}.mark.{CONNECTION}",
            encode_mark(mark),
            message_id(Place(CONNECTION, session, first_n, MARK_PART)),
        )
    )
    raw = Outgoing(f"{ENV}.raw.{FEED}.{CONNECTION}", data, raw_message_id(CONNECTION, session, first_n))
    return Unit(EntryPlace(session, last_n), raw, market)


async def checked(publisher: OrderedPublisher) -> None:
    """Ask the streams, and act on the answer."""
    answered = asyncio.Event()
    publisher.begin_check(answered.set)
    publisher.begin_check(answered.set)  # one question at a time
    await asyncio.wait_for(answered.wait(), 60)
    await publisher.finish_check()


def expected_ids(units: Sequence[Unit]) -> list[str]:
    return [message.message_id for one in units for message in one.market]


def raw_blocks(messages: Sequence[StreamMessage]) -> list[tuple[int, int]]:
    return [(decode_header(message.payload).session, decode_header(message.payload).first_n) for message in messages]


class Faulty:
    """A memory transport whose connections die after so many messages, and take a while to come back."""

    def __init__(self, lives: Sequence[int], *, deduplicate: bool = True) -> None:
        self.memory = MemoryTransport(deduplicate=deduplicate)
        self._lives = list(lives)
        self.refusals = 0
        self.opened = 0

    async def state(self, stream: StreamName) -> object:
        return await self.memory.state(stream)

    async def last(self, stream: StreamName, subject: str) -> StreamMessage | None:
        return await self.memory.last(stream, subject)

    async def publisher(self) -> PublishConnection:
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("refused")
        self.opened += 1
        return _Dying(self.memory, self._lives.pop(0) if self._lives else 1 << 30)


class _Dying:
    """Stores `left` messages and then loses all it is given; acknowledges the last ones never."""

    def __init__(self, memory: MemoryTransport, left: int) -> None:
        self._memory = memory
        self._left = left
        self._acks: dict[StreamName, int] = {"raw": 0, "market": 0, "dlq": 0}

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            if self._left <= 0:
                return
            self._left -= 1
            self._memory.put(message)
            if self._left > 3:
                self._acks["raw" if ".raw." in message.subject else "market"] += 1

    def acks(self, stream: StreamName) -> int:
        return self._acks[stream]

    async def progress(self, timeout_s: float) -> None:
        del timeout_s
        if self._left <= 3:
            raise Unavailable("no acknowledgement")

    async def close(self) -> None:
        return None


def publisher_on(transport: Transport | Faulty, **options: int) -> OrderedPublisher:
    return OrderedPublisher(transport, ENV, FEED, CONNECTION, no_jitter, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("deduplicate", [True, False])
async def test_connections_that_die_lose_and_repeat_nothing_for_a_reader(deduplicate: bool) -> None:
    transport = Faulty([4, 9, 1, 14, 23, 5, 2, 30], deduplicate=deduplicate)
    publisher = publisher_on(transport, window_messages=12)
    units = [unit(7, block, parts=block % 4) for block in range(60)]
    for one in units:
        await publisher.publish(one)
    await publisher.settle()
    assert publisher.acked == units[-1].reaches
    market = transport.memory.stored("market")
    seen: list[str] = list(dict.fromkeys(message.message_id for message in market))
    assert seen == expected_ids(units)
    if deduplicate:
        assert len(market) == len(seen)
        assert raw_blocks(transport.memory.stored("raw")) == [(7, 1 + 2 * block) for block in range(60)]
    assert transport.opened == 9


async def test_a_repeat_never_reaches_back_behind_a_mark_the_server_has() -> None:
    transport = Faulty([11, 11, 11], deduplicate=False)
    publisher = publisher_on(transport, window_messages=100)
    units = [unit(7, block) for block in range(12)]
    for one in units:
        await publisher.publish(one)
    await publisher.settle()
    last_mark = -1
    for message in transport.memory.stored("market"):
        place = parse_message_id(message.message_id)
        assert place.first_n > last_mark, "published again although its mark was stored"
        if place.part == MARK_PART:
            last_mark = place.first_n
    assert last_mark == 23


async def test_the_window_bounds_what_is_held_while_the_server_is_away() -> None:
    transport = Faulty([6])
    publisher = publisher_on(transport, window_messages=9)
    transport.refusals = 0
    await publisher.publish(unit(7, 0))
    transport.refusals = 1 << 30
    stuck = asyncio.create_task(_publish_all(publisher, [unit(7, block) for block in range(1, 50)]))
    for _ in range(200):
        await asyncio.sleep(0)
    assert not stuck.done()
    assert publisher._held_messages <= 9 + 4
    assert publisher.away == "refused"
    transport.refusals = 0
    async with asyncio.timeout(60):
        await stuck
        await publisher.settle()
    assert publisher.away == ""
    assert len(transport.memory.stored("raw")) == 50


async def _publish_all(publisher: OrderedPublisher, units: Sequence[Unit]) -> None:
    for one in units:
        await publisher.publish(one)


async def test_a_new_publisher_goes_on_where_the_streams_end() -> None:
    memory = MemoryTransport(deduplicate=False)
    first = publisher_on(memory)
    assert await first.reached() == Reached(NOWHERE, NOWHERE)
    for block in range(3):
        await first.publish(unit(7, block))
    await first.settle()
    # The fourth block got as far as the raw stream and one part.
    half = unit(7, 3)
    memory.put(half.raw)
    memory.put(half.market[0])
    second = publisher_on(memory)
    assert await second.reached() == Reached(EntryPlace(7, 8), EntryPlace(7, 6))
    for block in range(2, 6):
        await second.publish(unit(7, block))
    await second.settle()
    assert raw_blocks(memory.stored("raw")) == [(7, first_n) for first_n in (1, 3, 5, 7, 9, 11)]
    assert list(dict.fromkeys(m.message_id for m in memory.stored("market"))) == expected_ids([unit(7, b) for b in range(6)])


async def test_killing_the_server_over_and_over_loses_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    server = await start_nats(tmp_path / "nats", sync_always=False)
    connection = await Connection.open(server.url, name="test", timeout_s=30)
    definitions = [one for one in topology.desired(ENV, max_age_s=3600, max_bytes=256 << 20) if one.endpoint == "transport"]
    await topology.apply({"transport": connection}, definitions)
    await connection.close()
    transport = await NatsTransport.open(server.url, ENV)
    publisher = OrderedPublisher(transport, ENV, FEED, CONNECTION, no_jitter, window_messages=500)
    units = [unit(7, block, parts=3, size=400) for block in range(3000)]
    publishing = asyncio.create_task(_publish_all(publisher, units))
    for kill in range(3):
        async with asyncio.timeout(30):
            while publisher.acked.n < 1500 * (kill + 1):
                await asyncio.sleep(0.001)
        server.kill()
        await server.restart()
    async with asyncio.timeout(60):
        await publishing
        await publisher.settle()
    assert publisher.recoveries >= 4
    reader = await transport.read("market")
    stored: list[StreamMessage] = []
    while messages := await reader.next(1.0):
        stored += messages
    assert [message.message_id for message in stored] == expected_ids(units)
    await reader.close()
    raw = await transport.read("raw")
    blocks: list[tuple[int, int]] = []
    while messages := await raw.next(1.0):
        blocks += raw_blocks(messages)
    assert blocks == [(7, 1 + 2 * block) for block in range(3000)]
    await raw.close()
    await publisher.close()
    await transport.close()
    await server.stop()


class Rewindable(Faulty):
    """A server whose streams can be cut to what they were before, which breaks all connections."""

    def __init__(self) -> None:
        super().__init__([])
        self._links: list[_Breakable] = []

    async def publisher(self) -> PublishConnection:
        self._links.append(_Breakable(self.memory))
        return self._links[-1]

    def break_links(self) -> None:
        for link in self._links:
            link.is_broken = True


class _Breakable:
    """Stores and acknowledges at once, until it is broken."""

    def __init__(self, memory: MemoryTransport) -> None:
        self._memory = memory
        self._acks: dict[StreamName, int] = {"raw": 0, "market": 0, "dlq": 0}
        self.is_broken = False

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        if self.is_broken:
            raise Unavailable("broken")
        for message in messages:
            self._memory.put(message)
            self._acks["raw" if ".raw." in message.subject else "market"] += 1

    def acks(self, stream: StreamName) -> int:
        return self._acks[stream]

    async def progress(self, timeout_s: float) -> None:
        del timeout_s
        if self.is_broken:
            raise Unavailable("broken")

    async def close(self) -> None:
        return None


@pytest.mark.parametrize(("raw", "market"), [(0, 0), (4, 7), (8, 7), (4, 24)])
async def test_streams_that_come_back_with_less_are_told_with_what_they_hold(raw: int, market: int) -> None:
    server = Rewindable()
    publisher = publisher_on(server)
    units = [unit(7, block) for block in range(8)]
    await publisher.begin()
    for one in units:
        await publisher.publish(one)
    await publisher.settle()
    assert publisher.acked == EntryPlace(7, 16)
    await checked(publisher)
    server.memory.reset("raw", keep=raw)
    server.memory.reset("market", keep=market)
    server.break_links()
    with pytest.raises(StreamsRegressed, match="entry 16 of session 7 was acknowledged") as regressed:
        await checked(publisher)
    reached = regressed.value.reached
    marks = market // 3  # two messages and their mark a block
    assert reached == Reached(EntryPlace(7, 2 * raw) if raw else NOWHERE, EntryPlace(7, 2 * marks) if marks else NOWHERE)
    # What the tape's reader does then: everything behind what both streams hold, again.
    for one in units:
        if one.reaches > reached.both:
            await publisher.publish(one)
    await publisher.settle()
    # What one stream had more than the other comes twice; readers know it by its id.
    assert list(dict.fromkeys(raw_blocks(server.memory.stored("raw")))) == [(7, 1 + 2 * block) for block in range(8)]
    assert list(dict.fromkeys(message.message_id for message in server.memory.stored("market"))) == expected_ids(units)
    await publisher.close()


async def test_publishing_goes_on_while_the_streams_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Rewindable()
    publisher = publisher_on(server)
    await publisher.begin()
    await publisher.publish(unit(7, 0))
    await publisher.settle()
    asked, answer = asyncio.Event(), asyncio.Event()
    state = server.memory.state

    async def slow(stream: StreamName) -> StreamState:
        asked.set()
        await answer.wait()
        return await state(stream)

    monkeypatch.setattr(server.memory, "state", slow)
    answered = asyncio.Event()
    publisher.begin_check(answered.set)
    await asked.wait()
    await publisher.finish_check()  # there is no answer to act on
    for block in range(1, 4):
        await publisher.publish(unit(7, block))
    await publisher.settle()
    assert publisher.acked == EntryPlace(7, 8)
    answer.set()
    await answered.wait()
    await publisher.finish_check()
    assert (publisher.acked, publisher.recoveries) == (EntryPlace(7, 8), 1)
    # A question that is still open does not outlive its publisher.
    answer.clear()
    publisher.begin_check(lambda: None)
    await asyncio.sleep(0)
    await publisher.close()
    assert len(asyncio.all_tasks()) == 1


async def test_streams_emptied_by_age_alone_have_lost_nothing() -> None:
    server = Rewindable()
    publisher = publisher_on(server)
    await publisher.begin()
    await publisher.publish(unit(7, 0))
    await publisher.settle()
    await checked(publisher)
    server.memory.truncate("raw", 2)
    server.memory.truncate("market", 4)
    await checked(publisher)
    assert (publisher.acked, publisher.recoveries) == (EntryPlace(7, 2), 1)
    await publisher.close()


async def test_a_refill_sends_everything_again_whatever_the_streams_hold() -> None:
    server = Rewindable()
    publisher = publisher_on(server)
    units = [unit(7, block) for block in range(4)]
    await publisher.begin()
    for one in units:
        await publisher.publish(one)
    await publisher.settle()
    assert await publisher.rewind(EntryPlace(7, 2)) == Reached(EntryPlace(7, 2), EntryPlace(7, 2))
    again = [
        Unit(one.reaches, one.raw._replace(message_id=one.raw.message_id + "~1"),
             [message._replace(message_id=message.message_id + "~1") for message in one.market])
        for one in units[1:]
    ]  # fmt: skip
    await publisher.publish(again[0])
    server.break_links()
    for one in again[1:]:
        await publisher.publish(one)
    await publisher.settle()
    assert publisher.acked == EntryPlace(7, 8)
    stored = [parse_message_id(message.message_id) for message in server.memory.stored("market")]
    assert stored == [parse_message_id(name) for name in [*expected_ids(units), *expected_ids(units[1:])]]
    await publisher.close()
