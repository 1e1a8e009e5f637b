"""A market stream in memory, fed block by block as a connector's publisher does, and a gateway over it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from ssmd.clock import SystemClock
from ssmd.gateway.app import DEFAULT_LIMITS, GatewayLimits, GatewayService, Surroundings
from ssmd.schemas.codecs import encode_record
from ssmd.schemas.market_message import MARK_PART, Mark, Place, encode_mark, message_id
from ssmd.schemas.records import KIND_OF, BookDelta, BookSnapshot, Gap, MarketStatus, Quote, Record, Side, SizeMeaning, Trade
from ssmd.streams import subjects
from ssmd.streams.transport import Outgoing
from ssmd.streams.transport_memory import MemoryTransport

ENV, FEED, CONNECTION = "test", "kalshi", "main"
DEADLINE_S = 30.0
START_NS = 1_778_745_600_000_000_000


class Tape:
    """Makes records with rising places, and the stream messages of their blocks."""

    def __init__(self, connection: str = CONNECTION, session: int = START_NS) -> None:
        self.connection = connection
        self.session = session
        self.n = 0
        self.index = 0
        self.previous = (0, 0)

    def _head(self, ticker: str) -> dict[str, Any]:
        self.n += 1
        return {
            "feed": FEED,
            "ticker": ticker,
            "ts_event_ns": START_NS + self.n * 1000,
            "ts_recv_ns": START_NS + self.n * 1000 + 7,
            "session": self.session,
            "n": self.n,
            "index": 0,
            "sid": 1,
            "seq": self.n,
            "price_exponent": -4,
            "size_exponent": -2,
        }

    def trade(self, ticker: str, price: int = 5600, size: int = 100) -> Trade:
        head = self._head(ticker)
        return Trade(**head, trade_id=f"t{self.n}", price=price, size=size, aggressor=Side.BID, is_block=False)

    def delta(self, ticker: str, price: int, size: int, side: Side = Side.BID) -> BookDelta:
        return BookDelta(**self._head(ticker), price=price, size=size, side=side, meaning=SizeMeaning.CHANGE)

    def snapshot(
        self, ticker: str, bids: Sequence[tuple[int, int]] = ((4500, 10000),), asks: Sequence[tuple[int, int]] = ((4700, 2500),)
    ) -> BookSnapshot:
        return BookSnapshot(**self._head(ticker), bids=tuple(bids), asks=tuple(asks), is_derived=False)

    def quote(self, ticker: str, bid: int | None = 4500) -> Quote:
        return Quote(
            **self._head(ticker),
            bid_price=bid,
            bid_size=None,
            ask_price=4700,
            ask_size=None,
            last_price=4600,
            last_size=None,
            volume=123456,
            open_interest=None,
        )

    def status(self, ticker: str, status: str = "open") -> MarketStatus:
        return MarketStatus(
            **self._head(ticker),
            change="activated",
            status=status,
            open_ns=START_NS,
            close_ns=START_NS + 900_000_000_000,
            result="",
            settlement_price=None,
            detail='{"event_type":"activated"}',
        )

    def gap(
        self, ticker: str, gap_id: str = "g1", *, closed: bool = False, channel: str = "", cause: str = "disconnected"
    ) -> Gap:
        head = self._head(ticker)
        return Gap(
            **head,
            gap_id=gap_id,
            state="closed" if closed else "opened",
            cause=cause,
            start_ns=START_NS,
            end_ns=head["ts_recv_ns"] if closed else 0,
            channel=channel,
            seq_expected=0,
            seq_found=0,
            evidence="the socket closed",
        )

    def block(self, *records: Record) -> list[Outgoing]:
        """The messages of a block that ends with the last record made: its parts, then its mark."""
        first_n = self.previous[1] + 1 if self.previous[0] == self.session else 1
        groups: dict[tuple[str, str], list[Record]] = {}
        for record in records:
            groups.setdefault((KIND_OF[type(record)], record.ticker), []).append(record)
        counts: dict[str, int] = {}
        messages: list[Outgoing] = []
        for part, ((kind, ticker), group) in enumerate(groups.items()):
            payload = b"".join(encode_record(record) for record in group)
            name = message_id(Place(self.connection, self.session, first_n, part))
            messages.append(Outgoing(subjects.market(ENV, FEED, kind, ticker), payload, name))
            counts[kind] = counts.get(kind, 0) + len(group)
        last_n = max(self.n, first_n)
        mark = Mark(
            connection=self.connection,
            session=self.session,
            first_n=first_n,
            last_n=last_n,
            parts=len(groups),
            records=counts,
            previous_session=self.previous[0],
            previous_n=self.previous[1],
            ts_recv_ns=START_NS + last_n * 1000 + 7,
            mapper=1,
        )
        self.n = last_n
        self.previous = (self.session, last_n)
        name = message_id(Place(self.connection, self.session, first_n, MARK_PART))
        messages.append(Outgoing(subjects.mark(ENV, FEED, self.connection), encode_mark(mark), name))
        return messages


class Running:
    """A gateway being served, and the stream it reads."""

    def __init__(self, service: GatewayService, transport: MemoryTransport) -> None:
        self.service = service
        self.transport = transport
        self.tape = Tape()
        self.task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return self.service.url

    def put(self, *records: Record) -> int:
        """Publish one block; the sequence of its mark."""
        return self.put_messages(self.tape.block(*records))

    def put_messages(self, messages: Sequence[Outgoing]) -> int:
        for message in messages:
            self.transport.put(message)
        return self.transport.stored("market")[-1].seq

    async def settled(self, stream_seq: int) -> None:
        """Wait until the gateway's state holds everything up to `stream_seq`."""
        async with asyncio.timeout(DEADLINE_S):
            while self.service.state.stream_seq < stream_seq:
                await asyncio.sleep(0.001)

    @contextlib.asynccontextmanager
    async def connect(self, **options: Any) -> AsyncIterator[Talker]:
        url = self.url.replace("http", "ws", 1) + "/v1/stream"
        async with websockets.connect(url, max_size=None, compression=None, **options) as socket:
            yield Talker(socket)


class Talker:
    """A WebSocket client that takes frames apart into messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[dict[str, Any]] = []
        self._commands = 0

    async def send(self, text: str | bytes) -> None:
        await self.socket.send(text)

    async def command(self, cmd: str, **fields: Any) -> None:
        self._commands += 1
        await self.socket.send(msgspec.json.encode({"id": self._commands, "cmd": cmd, **fields}).decode())

    async def next(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(DEADLINE_S):
            while not self.messages:
                frame = await self.socket.recv()
                assert isinstance(frame, str)
                self.messages = msgspec.json.decode(frame)
                assert isinstance(self.messages, list)
                assert self.messages
        return self.messages.pop(0)

    async def take(self, count: int) -> list[dict[str, Any]]:
        return [await self.next() for _ in range(count)]

    async def barrier(self) -> list[dict[str, Any]]:
        """Everything the gateway has said before it answers a ping sent now."""
        await self.command("ping")
        found: list[dict[str, Any]] = []
        while (message := await self.next())["type"] != "pong" or message["id"] != self._commands:
            found.append(message)
        return found


Gateway = Callable[..., AbstractAsyncContextManager[Running]]


@contextlib.asynccontextmanager
async def _gateway(
    transport: MemoryTransport | None = None, limits: GatewayLimits = DEFAULT_LIMITS, port: int = 0, **around: Any
) -> AsyncIterator[Running]:
    transport = transport or MemoryTransport()
    service = GatewayService(
        transport,
        env=ENV,
        feed=FEED,
        host="127.0.0.1",
        port=port,
        clock=SystemClock(),
        limits=limits,
        around=Surroundings(**around),
    )
    running = Running(service, transport)
    running.task = asyncio.create_task(service.run())
    started = asyncio.create_task(service.started.wait())
    await asyncio.wait([running.task, started], timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    if running.task.done():
        running.task.result()
    try:
        yield running
    finally:
        await service.stop()
        async with asyncio.timeout(2 * DEADLINE_S):
            await running.task


@pytest.fixture
def gateway() -> Gateway:
    """`async with gateway(...) as running:` a served gateway, stopped afterwards."""
    return _gateway
