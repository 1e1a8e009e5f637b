"""Outages of every kind over real sockets: found within the limit and a second, their times right to a second."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from ssmd.application.handler import Application
from ssmd.clock import SystemClock
from ssmd.domain import capture
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.envelope import AggregateId
from ssmd.exchanges.kalshi import clock_offset
from ssmd.identifiers import system_random
from ssmd.schemas.blocks import EntryKind, decode_block
from ssmd.schemas.codecs import decode_records
from ssmd.schemas.control import Disconnected, decode_fact
from ssmd.schemas.records import Gap
from ssmd.services.connector.kalshi_venue import KalshiAccess
from ssmd.services.connector.service import ConnectorService
from ssmd.services.connector.settings import ConnectorSettings
from ssmd.services.connector.venue import Venue
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.transport_memory import MemoryTransport

from .network import Proxy, proxied

SECOND = 1_000_000_000
STALE_S = 1.0
"""Scaled: 25 s in production. The watchdog's own second is not scaled."""


class SteppedClock(SystemClock):
    """The machine's clock, stepped by a test."""

    def __init__(self) -> None:
        self.step_ns = 0
        self.real = SystemClock()

    def now_ns(self) -> int:
        return self.real.now_ns() + self.step_ns


class System:
    """A connector behind a proxy."""

    def __init__(self, directory: Path, rest_url: str, venue_url: str, proxy: Proxy) -> None:
        self.clock = SteppedClock()
        self.lag_ns = 0
        self.proxy = proxy
        self.transport = MemoryTransport()
        self.journal = MemoryJournal("t")
        url = urlsplit(venue_url)
        access = KalshiAccess(
            rest_url=rest_url,
            websocket_url=f"ws://127.0.0.1:{proxy.port}{url.path}",
            channels=("orderbook_delta",),
            tickers=(),
            tickers_max=100,
            clock=self.clock,
        )
        venue: Venue = replace(access.venue("kalshi", "kalshi-dollars"), stale_s=STALE_S, pause_at=lambda _: "")
        self.connector = ConnectorService(
            venue,
            "t",
            "main",
            directory / "tape",
            self.transport,
            Application(self.journal, CATALOGUE, SystemClock(), system_random),
            self.clock,
            system_random,
            ConnectorSettings(block_ms=5, fsync_ms=5, backoff_first_s=0.05, backoff_max_s=0.3),
        )

    @property
    def frames(self) -> int:
        return int(self.connector.health().stats["frames"])

    @property
    def sessions(self) -> int:
        return int(self.connector.health().stats["sessions"])

    def entries(self) -> Iterator[tuple[int, int, int, bytes]]:
        """(session, ts_recv_ns, kind, payload) in the order of the stream."""
        for message in self.transport.stored("raw"):
            block = decode_block(message.payload)
            for entry in block.entries:
                yield block.session, entry.ts_recv_ns, entry.kind, entry.payload

    def endings(self) -> list[tuple[int, Disconnected]]:
        facts = [(ts_ns, decode_fact(payload)) for _, ts_ns, kind, payload in self.entries() if kind == EntryKind.CTL]
        return [(ts_ns, fact) for ts_ns, fact in facts if isinstance(fact, Disconnected)]

    def gaps(self) -> list[Gap]:
        messages = [message for message in self.transport.stored("market") if ".mark." not in message.subject]
        return [one for message in messages for one in decode_records(message.payload) if isinstance(one, Gap)]

    async def facts(self, kind: type[capture.CaptureEvent]) -> list[capture.CaptureEvent]:
        loaded = await self.journal.load(AggregateId(capture.AGGREGATE, ("kalshi", "main")))
        found = [CATALOGUE.decode(one.envelope.type, one.envelope.data) for one in loaded]
        return [one for one in found if isinstance(one, kind)]

    async def more_frames(self, count: int = 30) -> None:
        wanted = self.frames + count
        async with asyncio.timeout(30):
            while self.frames < wanted:
                await asyncio.sleep(0.005)

    async def offset_known(self) -> None:
        """Wait until the mapper has compared our clock with the venue's."""
        async with asyncio.timeout(30):
            while self.connector._mapper is None or not self.connector._mapper.clock_offset_ns:
                await asyncio.sleep(0.01)

    async def offset_of(self, seconds: int) -> None:
        """Wait until the connector says that its clock is so far ahead."""
        async with asyncio.timeout(30):
            while abs(int(self.connector.health().stats["clock_offset_ms"]) - seconds * 1000) > 1000:
                await asyncio.sleep(0.01)

    async def stepped(self) -> None:
        """Wait until a step of our clock is in the journal: it is looked at every second."""
        async with asyncio.timeout(30):
            while not await self.facts(capture.ClockStepped):
                await asyncio.sleep(0.05)

    async def watch_lag(self) -> None:
        """Add up how long the machine lets this loop wait: on one that stands still nothing is found within a second."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + 0.02
            await asyncio.sleep(0.01)
            self.lag_ns += int(max(0.0, loop.time() - due_s) * SECOND)

    async def next_session(self, wanted: int = 2) -> None:
        async with asyncio.timeout(30):
            while self.sessions < wanted:
                await asyncio.sleep(0.005)
        await self.more_frames()


CONFIG = SimulatorConfig(seed=4, markets=4, rate=300, require_auth=False, ping_s=1, pong_deadline_s=600)


@asynccontextmanager
async def capturing(tmp_path: Path, rest_url: str, venue_url: str) -> AsyncIterator[System]:
    async with proxied(urlsplit(venue_url).port or 0) as proxy:
        system = System(tmp_path, rest_url, venue_url, proxy)
        task = asyncio.create_task(system.connector.run())
        lagging = asyncio.create_task(system.watch_lag())
        try:
            await system.more_frames()
            yield system
        finally:
            lagging.cancel()
            await system.connector.stop()
            async with asyncio.timeout(30):
                await task


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[System]:
    simulator = Simulator(CONFIG, SystemClock())
    await simulator.start()
    serving = asyncio.create_task(simulator.run())
    try:
        async with capturing(tmp_path, simulator.rest_url, simulator.websocket_url) as system:
            yield system
    finally:
        await simulator.stop()
        await serving


SERVE = """
import asyncio, sys
import msgspec
from ssmd.clock import SystemClock
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator

async def run() -> None:
    simulator = Simulator(msgspec.json.decode(sys.argv[1], type=SimulatorConfig), SystemClock())
    await simulator.start()
    print("at", simulator.rest_url, simulator.websocket_url, flush=True)
    await simulator.run()

asyncio.run(run())
"""


@asynccontextmanager
async def venue_process() -> AsyncIterator[tuple[asyncio.subprocess.Process, str, str]]:
    """A venue in a process of its own, and its two urls."""
    config = msgspec.json.encode(CONFIG).decode()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVE, config, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            while (line := (await process.stdout.readline()).decode().split())[:1] != ["at"]:
                assert line, "the venue's process has ended"
        yield process, line[1], line[2]
    finally:
        process.kill()
        await process.wait()


def check_stale(system: System, silent_ns: int, found_ns: int, healed_ns: int) -> None:
    """Found within the limit and a second; the gap of every ticker right to a second."""
    assert STALE_S * SECOND - 0.3 * SECOND <= found_ns - silent_ns <= (STALE_S + 1) * SECOND + system.lag_ns
    ((_, ending),) = system.endings()
    assert ending.cause == "stale"
    gaps = [gap for gap in system.gaps() if gap.cause == "stale"]
    opened = {gap.ticker: gap for gap in gaps if gap.state == "opened"}
    closed = {gap.ticker: gap for gap in gaps if gap.state == "closed"}
    assert set(opened) == set(closed) != set()
    for gap in closed.values():
        assert abs(gap.start_ns - silent_ns) < SECOND + system.lag_ns
        assert abs(gap.end_ns - healed_ns) < SECOND + system.lag_ns
        assert gap.start_ns < gap.end_ns


@pytest.mark.parametrize("kind", ["is_cut", "is_half_open", "is_deaf"])
async def test_an_outage_is_found_within_the_limit_and_a_second_and_its_times_are_right(tmp_path: Path, kind: str) -> None:
    """A partition; half-open TCP; a peer that reads nothing while our commands fill the buffers."""
    async with running(tmp_path) as system:
        setattr(system.proxy, kind, True)
        system.proxy.refuses = True
        silent_ns = system.clock.now_ns()
        talk = system.connector._conversation
        assert talk is not None
        if kind == "is_deaf":
            # Some 16 MB that nobody reads: the transport's buffer is full, and nothing may block on it.
            for _ in range(64):
                system.connector._socket.send(b"x" * 250_000)  # type: ignore[union-attr]
        async with asyncio.timeout(30):
            while system.connector._conversation is talk:
                await asyncio.sleep(0.005)
        found_ns = system.clock.now_ns()
        await asyncio.sleep(0.3)
        system.proxy.heal()
        healed_ns = system.clock.now_ns()
        await system.next_session()
        await system.connector.flush()
        check_stale(system, silent_ns, found_ns, healed_ns)


async def test_a_stopped_venue_is_found_like_one_that_is_gone(tmp_path: Path) -> None:
    """Its process stands still; its kernel goes on to take what is sent, and to accept connections."""
    async with venue_process() as (process, rest_url, venue_url), capturing(tmp_path, rest_url, venue_url) as system:
        talk = system.connector._conversation
        process.send_signal(signal.SIGSTOP)
        silent_ns = system.clock.now_ns()
        async with asyncio.timeout(30):
            while system.connector._conversation is talk:
                await asyncio.sleep(0.005)
        found_ns = system.clock.now_ns()
        process.send_signal(signal.SIGCONT)
        healed_ns = system.clock.now_ns()
        await system.next_session()
        await system.connector.flush()
        check_stale(system, silent_ns, found_ns, healed_ns)


async def test_latency_and_jitter_are_no_outage(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        system.proxy.latency_s, system.proxy.jitter_s = 0.1, 0.05
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - began < 2.5 * STALE_S:
            await system.more_frames(20)
        assert (system.sessions, system.gaps()) == (1, [])


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_steps_by_an_hour_keeps_order_and_makes_no_negative_interval(
    tmp_path: Path, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_offset, "WINDOW_NS", SECOND // 5)
    async with running(tmp_path) as system:
        await system.offset_known()
        system.clock.step_ns = hours * 3600 * SECOND
        await system.more_frames(300)
        await system.stepped()
        # How far it is from the venue's is exported, and in the journal, from the very frames.
        await system.offset_of(hours * 3600)
        assert system.connector._socket is not None
        system.connector._socket.abort("connection-lost", "the test cut it")
        # Back again while there is no connection.
        system.clock.step_ns = 0
        await system.next_session()
        await system.connector.flush()
        times = [(session, ts_ns) for session, ts_ns, _, _ in system.entries()]
        assert times == sorted(times)
        assert [ts_ns for _, ts_ns in times] == sorted(ts_ns for _, ts_ns in times)
        told = [one.offset_ns for one in await system.facts(capture.ClockOffset) if isinstance(one, capture.ClockOffset)]
        # The step back is told with the step: times stand still then. So is the way back from an hour ahead.
        assert [round(one / SECOND) for one in told] == ([3600, 0] if hours > 0 else [-3600])
        steps = [fact.step_ns for fact in await system.facts(capture.ClockStepped) if isinstance(fact, capture.ClockStepped)]
        assert [round(step / (3600 * SECOND), 3) for step in steps] == [hours, -hours]
        closed = [gap for gap in system.gaps() if gap.state == "closed"]
        assert closed
        assert all(gap.start_ns < gap.end_ns for gap in closed)
        for fact in await system.facts(capture.GapClosed):
            assert isinstance(fact, capture.GapClosed)
            assert fact.start_ns < fact.end_ns


async def test_a_planned_silence_is_no_outage(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        venue = system.connector._venue
        system.connector._venue = replace(venue, pause_at=lambda _: "weekly pause of the venue until 10:00 UTC")
        system.proxy.is_cut = True
        async with asyncio.timeout(30):
            while system.connector._conversation is not None:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(30):
            while "weekly pause" not in system.connector.health().reason:
                await asyncio.sleep(0.01)
        assert system.connector.health().ok
        system.proxy.heal()
        await system.next_session()
        await system.connector.flush()
        ((_, ending),) = system.endings()
        assert ending.cause == "planned-pause"
        assert "weekly pause of the venue until 10:00 UTC; stale no frame and no ping" in ending.evidence
        assert system.connector.health().reason == ""
