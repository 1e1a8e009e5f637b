"""kill -9 of the gateway and of its NATS server, mid-stream: whoever comes back has every message once, and books are right.

`benchmarks/soak_gateway.py` does the same 200 times over a genuine capture.
"""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import websockets
from tests.gateway.conftest import ENV, FEED, Tape
from tests.gateway.test_resume import Follower

from ssmd.errors import Unavailable
from ssmd.schemas.records import BookDelta, Record, Trade
from ssmd.services.embedded_servers import RunningServer, start_nats
from ssmd.streams import topology
from ssmd.streams.connection import Connection
from ssmd.streams.transport import Outgoing
from ssmd.streams.transport_nats import NatsTransport

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).resolve().parents[2]
BLOCKS, CUTS = 300, 24
DEADLINE_S = 60.0
TICKERS = ("A", "B/C", "D.E")


class Story:
    """Blocks in order, one more whenever it is asked for, and their records; each ticker's book begins with a snapshot."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._tape = Tape()
        self.records: list[Record] = [self._tape.snapshot(ticker) for ticker in TICKERS]
        self._blocks = [self._tape.block(*self.records)]

    @property
    def made(self) -> int:
        return len(self._blocks)

    def block(self, number: int) -> list[Outgoing]:
        chance, tape = self._chance, self._tape
        while len(self._blocks) <= number:
            block: list[Record] = [
                tape.trade(chance.choice(TICKERS))
                if chance.random() < 0.4
                else tape.delta(chance.choice(TICKERS), chance.randrange(10, 60) * 100, 100 * chance.randrange(1, 9))
                for _ in range(chance.randint(1, 6))
            ]
            self.records += block
            self._blocks.append(tape.block(*block))
        return self._blocks[number]


async def publish(transport: NatsTransport, story: Story, enough: asyncio.Event) -> None:
    """In order until it is enough, so that whoever follows never waits for nothing; after trouble again from the block the
    server has not told of."""
    at = 0

    def is_done() -> bool:
        return enough.is_set() and at >= max(BLOCKS, story.made)

    while not is_done():
        try:
            publisher = await transport.publisher()
            try:
                while not is_done():
                    block = story.block(at)
                    before = publisher.acks("market")
                    await publisher.publish(block)
                    while publisher.acks("market") < before + len(block):
                        await publisher.progress(5.0)
                    at += 1
                    await asyncio.sleep(0.015)
            finally:
                await publisher.close()
        except Unavailable:
            await asyncio.sleep(0.1)


class Processes:
    """The NATS server and the gateway, each at one address for good."""

    def __init__(self, directory: Path, nats: RunningServer) -> None:
        self._directory = directory
        self.nats = nats
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.gateway: subprocess.Popen[bytes] | None = None

    def start_gateway(self) -> None:
        command = [sys.executable, "-m", "tests.e2e.gateway_process", self.nats.url, str(self._port)]
        checkpoint = str(self._directory / "checkpoint.sqlite")
        self.gateway = subprocess.Popen([*command, checkpoint, ENV, FEED], cwd=ROOT, stdout=subprocess.DEVNULL)

    def kill_gateway(self) -> None:
        assert self.gateway is not None
        self.gateway.kill()
        self.gateway.wait(10)

    async def kill_nats(self) -> None:
        port = self.nats.port
        self.nats.child.kill()
        self.nats.child.wait()
        await self.nats.stop()
        self.nats = await start_nats(self._directory / "nats", port=port, sync_always=False)

    async def ready(self) -> None:
        async with httpx.AsyncClient(base_url=self.url) as http, asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    if (await http.get("/healthz")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.02)


async def follow(follower: Follower, url: str, frames: int, until_seq: int = 2**53) -> None:
    try:
        async with asyncio.timeout(5):
            await follower.follow(url, frames, until_seq)
    except (OSError, TimeoutError, websockets.WebSocketException):
        await asyncio.sleep(0.05)


def naive(records: Sequence[Record]) -> dict[str, dict[int, int]]:
    """Bids of each ticker; `Tape.snapshot` begins them all alike."""
    books: dict[str, dict[int, int]] = defaultdict(lambda: {4500: 10000})
    for record in records:
        if isinstance(record, BookDelta):
            books[record.ticker][record.price] = books[record.ticker].get(record.price, 0) + record.size
    return books


async def test_whatever_is_killed_every_message_comes_once_and_books_are_right(tmp_path: Path) -> None:
    chance = random.Random(20260514)
    story, enough = Story(11), asyncio.Event()
    processes = Processes(tmp_path, await start_nats(tmp_path / "nats", sync_always=False))
    connection = await Connection.open(processes.nats.url, name="test", timeout_s=30)
    wanted = topology.desired(ENV, max_age_s=3600, max_bytes=64 << 20)
    await topology.apply({"transport": connection}, [one for one in wanted if one.endpoint == "transport"])
    await connection.close()
    transport = await NatsTransport.open(processes.nats.url, ENV)
    try:
        processes.start_gateway()
        await processes.ready()
        publishing = asyncio.create_task(publish(transport, story, enough))
        follower = Follower()
        follower.at = 0
        url = processes.url.replace("http", "ws", 1) + "/v1/stream"
        for number in range(CUTS):
            if number in {6, 14, 20}:
                processes.kill_gateway()
                processes.start_gateway()
            if number == 10:
                await processes.kill_nats()
            if number in {7, 11, 15, 21}:
                await processes.ready()
            await follow(follower, url, chance.randint(1, 12))
        enough.set()
        async with asyncio.timeout(DEADLINE_S):
            await publishing
        last = (await transport.state("market")).last_seq
        began = time.monotonic()
        while (follower.at or 0) < last and time.monotonic() - began < DEADLINE_S:
            await follow(follower, url, 100_000, last)
        expected = [record.n for record in story.records if isinstance(record, Trade | BookDelta) or record.n <= len(TICKERS)]
        assert [message["n"] for message in follower.received] == expected
        assert follower.resumed >= 8
        # A gateway that starts from its saved state, not from the stream's beginning.
        processes.kill_gateway()
        processes.start_gateway()
        await processes.ready()
        async with httpx.AsyncClient(base_url=processes.url) as http:
            for ticker, bids in naive(story.records).items():
                path = f"/v1/markets/{ticker.replace('/', '%2F')}/orderbook"
                found: dict[str, Any] = msgspec.json.decode((await http.get(path)).content)
                told = {round(float(price) * 10_000): round(float(size) * 100) for price, size in found["bids"]}
                assert (ticker, told) == (ticker, bids)
                assert found["coverage"]["verified"]
    finally:
        await transport.close()
        processes.kill_gateway()
        await processes.nats.stop()
