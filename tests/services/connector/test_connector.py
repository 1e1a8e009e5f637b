"""The connector against a real simulator over a real WebSocket, with streams and journal in memory."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssmd.application.handler import Application
from ssmd.clock import SystemClock
from ssmd.domain import capture
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.envelope import AggregateId
from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi.signing import public_pem
from ssmd.identifiers import system_random
from ssmd.schemas.blocks import EntryKind, decode_block
from ssmd.schemas.codecs import decode_records
from ssmd.schemas.control import Connected, Disconnected, decode_fact
from ssmd.schemas.market_message import decode_mark, parse_message_id
from ssmd.schemas.records import KIND_OF, Record
from ssmd.services.connector import tape_writing
from ssmd.services.connector.kalshi_venue import KalshiAccess
from ssmd.services.connector.service import ConnectorService
from ssmd.services.connector.settings import ConnectorSettings
from ssmd.services.simulator.config import FaultOrder, HandshakeFault, SimulatorConfig
from ssmd.services.simulator.seeded_capture import write_seeded_capture
from ssmd.services.simulator.simulator import Simulator
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.tape_files import size_bytes
from ssmd.streams.transport_memory import MemoryTransport

ENV = "dev"
QUICK = ConnectorSettings(block_ms=5, fsync_ms=5, backoff_first_s=0.02)


class Bench:
    """A simulator, streams and journal, and as many connectors one after another as a test wants."""

    def __init__(self, directory: Path, simulator: Simulator) -> None:
        self.directory = directory
        self.simulator = simulator
        self.transport = MemoryTransport()
        self.journal = MemoryJournal(ENV)
        self.clock = SystemClock()

    def connector(self, settings: ConnectorSettings = QUICK, **venue: float) -> ConnectorService:
        access = KalshiAccess(
            rest_url=self.simulator.rest_url,
            websocket_url=self.simulator.websocket_url,
            key_id="",
            private_key=None,
            channels=("orderbook_delta", "ticker"),
            tickers=(),
            tickers_max=100,
            clock=self.clock,
        )
        application = Application(self.journal, CATALOGUE, self.clock, system_random)
        reached = access.venue("kalshi", "kalshi-dollars")
        for name, value in venue.items():
            object.__setattr__(reached, name, value)
        return ConnectorService(
            reached, ENV, "main", self.directory / "tape", self.transport, application, self.clock, system_random, settings
        )

    def entries(self) -> list[tuple[int, int, int, bytes]]:
        """(session, n, kind, payload) of every entry on the raw stream."""
        return [
            (block.session, entry.n, entry.kind, entry.payload)
            for block in (decode_block(message.payload) for message in self.transport.stored("raw"))
            for entry in block.entries
        ]

    def frames(self) -> list[list[bytes]]:
        """Frames per session, in order."""
        found: dict[int, list[bytes]] = {}
        for session, _, kind, payload in self.entries():
            found.setdefault(session, [])
            if kind == EntryKind.IN:
                found[session].append(payload)
        return list(found.values())

    def records(self) -> list[Record]:
        return [
            record
            for message in self.transport.stored("market")
            if ".mark." not in message.subject
            for record in decode_records(message.payload)
        ]

    async def facts(self) -> list[str]:
        loaded = await self.journal.load(AggregateId(capture.AGGREGATE, ("kalshi", "main")))
        return [recorded.envelope.type for recorded in loaded]


@asynccontextmanager
async def bench(tmp_path: Path, config: SimulatorConfig) -> AsyncIterator[Bench]:
    simulator = Simulator(config, SystemClock())
    await simulator.start()
    serving = asyncio.create_task(simulator.run())
    try:
        yield Bench(tmp_path, simulator)
    finally:
        await simulator.stop()
        await serving


@asynccontextmanager
async def running(connector: ConnectorService) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(connector.run())
    try:
        yield task
    finally:
        await connector.stop()
        async with asyncio.timeout(60):
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], what: str, task: asyncio.Task[None] | None = None) -> None:
    try:
        async with asyncio.timeout(60):
            while not condition():
                if task is not None and task.done():
                    task.result()
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within 60 s: {what}")


def is_all_acked(connector: ConnectorService) -> bool:
    return connector.health().stats["unacked"] == 0


async def kill(task: asyncio.Task[None], connector: ConnectorService) -> None:
    """End it as a kill would: nothing is said on the tape."""
    connector._recorder = None
    if connector._socket is not None:
        connector._socket._on_frame = lambda _payload: None
    connector._end_session = _never  # type: ignore[method-assign,assignment]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _never(*_arguments: object) -> None:
    raise asyncio.CancelledError


def captured(path: Path) -> list[list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for line in path.read_text().splitlines():
        text = line[line.index('"frame":') + 8 : -1]
        found.setdefault(json.loads(line)["conn"], []).append(text.encode() + b"\n")
    return list(found.values())


async def test_a_capture_is_taken_verbatim_and_every_data_frame_yields_its_records(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    write_seeded_capture(path, seed=3, frames=1500)
    async with bench(tmp_path, SimulatorConfig(capture=str(path), speed="max", require_auth=False)) as system:
        connector = system.connector()
        async with running(connector) as task:
            await until(lambda: system.simulator.done and is_all_acked(connector), "the capture has been played", task)
        wanted = captured(path)
        assert system.frames() == wanted
        types = Counter(json.loads(frame)["type"] for frames in wanted for frame in frames)
        kinds = Counter(KIND_OF[type(record)] for record in system.records())
        assert (kinds["book"], kinds["snapshot"], kinds["quote"]) == (
            types["orderbook_delta"],
            types["orderbook_snapshot"],
            types["ticker"],
        )
        assert [fact for fact in await system.facts() if fact == "capture.connected.v1"] == ["capture.connected.v1"] * 3
        told = [fact for fact in await system.facts() if fact != "capture.interval-assessed.v1"]
        assert told[-2:] == ["capture.disconnected.v1", "capture.gap-opened.v1"]
        # Each of the sessions that ended says what it held: books that the venue counts, and quotes that it does not.
        assert (await system.facts())[-1] == "capture.interval-assessed.v1"


async def test_entries_are_contiguous_and_marks_follow_one_another(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    write_seeded_capture(path, seed=5, frames=600)
    async with bench(tmp_path, SimulatorConfig(capture=str(path), speed="max", require_auth=False)) as system:
        connector = system.connector()
        async with running(connector) as task:
            await until(lambda: system.simulator.done and is_all_acked(connector), "the capture has been played", task)
        numbers: dict[int, list[int]] = {}
        for session, n, _, _ in system.entries():
            numbers.setdefault(session, []).append(n)
        assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
        assert list(numbers) == sorted(numbers)
        reached = (0, 0)
        parts = 0
        for message in system.transport.stored("market"):
            if ".mark." not in message.subject:
                parts += 1
                continue
            mark = decode_mark(message.payload)
            assert (mark.previous_session, mark.previous_n) == reached
            assert mark.parts == parts
            assert parse_message_id(message.message_id).first_n == mark.first_n
            reached, parts = (mark.session, mark.last_n), 0
        assert reached[1] == numbers[reached[0]][-1]


async def test_a_killed_connector_closes_its_session_at_the_next_start_and_names_the_hole(tmp_path: Path) -> None:
    async with bench(tmp_path, SimulatorConfig(seed=4, markets=3, rate=400, require_auth=False)) as system:
        first = system.connector()
        task = asyncio.create_task(first.run())
        await until(lambda: int(first.health().stats["frames"]) > 100 and len(system.records()) > 50, "frames", task)
        await kill(task, first)
        second = system.connector()
        async with running(second) as again:
            await until(lambda: int(second.health().stats["frames"]) > 50 and is_all_acked(second), "frames again", again)
        facts = [(session, n, decode_fact(payload)) for session, n, kind, payload in system.entries() if kind == EntryKind.CTL]
        ending = next(fact for _, _, fact in facts if isinstance(fact, Disconnected))
        connected = [fact for _, _, fact in facts if isinstance(fact, Connected)]
        last_frame = [message for message in system.entries() if message[2] == EntryKind.IN]
        assert ending.cause == "killed"
        assert "without a disconnect" in ending.evidence
        assert connected[1].previous is not None
        assert connected[1].previous.cause == "killed"
        assert connected[1].previous.last_recv_ns == ending.last_recv_ns
        assert last_frame
        gaps = [record for record in system.records() if KIND_OF[type(record)] == "gap"]
        opened = {gap.ticker for gap in gaps if gap.state == "opened" and gap.cause == "killed"}  # type: ignore[union-attr]
        closed = {gap.ticker for gap in gaps if gap.state == "closed" and gap.start_ns == ending.last_recv_ns}  # type: ignore[union-attr]
        assert opened
        assert opened <= closed | {"*"}


async def test_a_wrong_key_is_fatal_and_says_what_to_check(tmp_path: Path) -> None:
    known = public_pem(Ed25519PrivateKey.generate()).decode()
    async with bench(tmp_path, SimulatorConfig(seed=1, markets=2, public_keys={"somebody else's": known})) as system:
        connector = system.connector()
        async with asyncio.timeout(60):
            with pytest.raises(Misconfigured, match="refused the handshake: 401") as caught:
                await connector.run()
        assert "private key" in caught.value.mend
        assert system.entries() == []


@pytest.mark.parametrize("kind", ["handshake-503", "handshake-500", "handshake-429", "handshake-expired"])
async def test_a_busy_venue_or_one_whose_clock_is_apart_is_tried_again(tmp_path: Path, kind: HandshakeFault) -> None:
    faults = (FaultOrder(kind=kind, count=3),)
    async with bench(tmp_path, SimulatorConfig(seed=1, markets=2, require_auth=False, faults=faults)) as system:
        connector = system.connector()
        async with running(connector) as task:
            await until(lambda: connector.health().ok, "connected after three refusals", task)
        assert connector.health().stats["sessions"] == 1
        assert system.simulator.status()["handshakes_refused"] == 3


async def test_a_silent_connection_is_ended_by_the_watchdog(tmp_path: Path) -> None:
    faults = (FaultOrder(kind="stall", after_frames=30),)
    config = SimulatorConfig(seed=1, markets=2, rate=300, require_auth=False, faults=faults, ping_s=60, pong_deadline_s=120)
    async with bench(tmp_path, config) as system:
        connector = system.connector(stale_s=0.6)
        async with running(connector) as task:
            await until(lambda: connector.health().stats["sessions"] == 2, "a second session", task)
        endings = [decode_fact(payload) for _, _, kind, payload in system.entries() if kind == EntryKind.CTL]
        ending = next(fact for fact in endings if isinstance(fact, Disconnected))
        assert ending.cause == "stale"
        assert "no frame and no ping for 0." in ending.evidence


async def test_facts_wait_for_the_journal_and_the_capture_does_not(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    write_seeded_capture(path, seed=9, frames=900)
    async with bench(tmp_path, SimulatorConfig(capture=str(path), speed="max", require_auth=False)) as system:
        system.journal.is_away = True
        connector = system.connector()
        async with running(connector) as task:
            await until(lambda: system.simulator.done and is_all_acked(connector), "captured without a journal", task)
            assert "journal: the memory journal has been told to be away" in connector.health().reason
            system.journal.is_away = False
            await until(lambda: not connector.health().stats["facts_waiting"], "facts journaled", task)
        facts = await system.facts()
        assert facts.count("capture.connected.v1") == 3
        assert facts.count("capture.disconnected.v1") == 3
        assert facts[0] == "capture.connected.v1"


async def test_facts_that_outgrow_memory_are_read_from_the_tape(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    write_seeded_capture(path, seed=9, frames=900)
    async with bench(tmp_path, SimulatorConfig(capture=str(path), speed="max", require_auth=False)) as system:
        system.journal.is_away = True
        connector = system.connector()
        async with running(connector) as task:
            await until(lambda: connector._facts is not None, "started", task)
            assert connector._facts is not None
            connector._facts._held_max = 3
            await until(lambda: system.simulator.done and is_all_acked(connector), "captured", task)
            assert connector._facts.held <= 3
            system.journal.is_away = False
            await until(lambda: connector._facts is not None and not connector._facts.away, "the journal is back", task)
        facts = await system.facts()
        assert [fact for fact in facts if fact in ("capture.connected.v1", "capture.disconnected.v1")] == [
            "capture.connected.v1",
            "capture.disconnected.v1",
        ] * 3


async def filled_and_stopped(connector: ConnectorService) -> None:
    async with running(connector) as task:
        await until(lambda: "has reached its bound" in connector.health().reason, "the tape is full", task)
        # What is on it is handed on even so, or there would never be room.
        await until(lambda: connector._publisher.acked >= connector._written, "it is published", task)
        # It once tried for ever, and was killed when whoever stopped it had waited long enough.
        await connector.stop()
        async with asyncio.timeout(60):
            await task


@pytest.mark.parametrize("has_restarted", [False, True])
async def test_a_full_tape_keeps_it_neither_from_stopping_nor_from_starting_and_a_start_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_restarted: bool
) -> None:
    monkeypatch.setattr(tape_writing, "STOPPING_PAUSE_S", 0.02)
    full = QUICK._replace(bytes_max=60_000)
    async with bench(tmp_path, SimulatorConfig(seed=4, markets=3, rate=2000, require_auth=False)) as system:
        for start in range(2):
            await filled_and_stopped(system.connector(full))
            full = QUICK._replace(bytes_max=size_bytes(tmp_path / "tape"))
            if start == 0 and has_restarted:
                (tmp_path / "tape" / "boot").write_text("another\n")
                with max((tmp_path / "tape").glob("*.tape")).open("ab") as file:
                    file.write(b"torn")
        last = next(one for one in reversed(system.entries()) if one[2] != EntryKind.CTL)
        again = system.connector(QUICK)
        async with running(again) as task:
            await until(lambda: int(again.health().stats["frames"]) > 50, "captures again", task)
        facts = [decode_fact(payload) for _, _, kind, payload in system.entries() if kind == EntryKind.CTL]
        ended = [fact.cause for fact in facts if isinstance(fact, Disconnected)]
        begun = [fact.previous.cause for fact in facts if isinstance(fact, Connected) and fact.previous is not None]
        assert (ended, begun) == (["stopped"] if has_restarted else ["killed", "stopped"], ["killed"])
        after = next(place for place, entry in enumerate(system.entries()) if entry == last) + 1
        closing = system.entries()[after]
        assert closing[2] == EntryKind.CTL
        assert (closing[0], closing[1]) == (last[0], last[1] + 1) or has_restarted


async def test_a_full_tape_stops_the_capture_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    config = SimulatorConfig(seed=4, markets=3, rate=2000, require_auth=False)
    async with bench(tmp_path, config) as system:
        connector = system.connector(QUICK._replace(bytes_max=60_000))
        async with running(connector) as task:
            await until(lambda: "has reached its bound" in connector.health().reason, "the tape is full", task)
            frames = int(connector.health().stats["frames"])
            assert connector._tape is not None
            connector._tape._bytes_max = 10 << 20
            await until(lambda: int(connector.health().stats["frames"]) > frames + 50, "captures again", task)
        facts = [decode_fact(payload) for _, _, kind, payload in system.entries() if kind == EntryKind.CTL]
        ending = next(fact for fact in facts if isinstance(fact, Disconnected))
        assert ending.cause == "tape-full"
        numbers = [n for session, n, _, _ in system.entries() if session == system.entries()[0][0]]
        assert numbers == list(range(1, len(numbers) + 1))
