"""A frame that cannot be normalized waits apart, with the reason: journal and dead-letter stream know it, capture goes on."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import structlog
from tests.services.connector.test_connector import bench, is_all_acked, kill, running, until

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain import dead_letter
from ssmd.domain.catalogue import CATALOGUE
from ssmd.identifiers import system_random
from ssmd.schemas.blocks import EntryKind
from ssmd.services.connector import letter_spool, quarantine
from ssmd.services.connector.frame_letter import FRAME_BYTES_MAX, Unmapped, letter_id, recording, unmapped
from ssmd.services.connector.quarantine import Quarantine
from ssmd.services.simulator.config import FaultOrder, FrameFault, SimulatorConfig
from ssmd.streams import subjects
from ssmd.streams.journal import RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.transport_memory import MemoryTransport

HOUR_NS = 3_600_000_000_000
NOON = 1_778_760_000_000_000_000


async def journaled(journal: MemoryJournal) -> list[tuple[str, str, str]]:
    """(letter, actor, reason) of each dead letter in the journal, in order."""
    found = [one async for batch in journal.replay(filters=[dead_letter.AGGREGATE]) for one in batch]
    assert all(isinstance(one, RecordedEvent) for one in found)
    told = [one.envelope for one in found if isinstance(one, RecordedEvent)]
    assert {one.type for one in told} <= {"dead-letter.recorded.v1"}
    return [(one.aggregate_id, one.actor, msgspec.json.decode(one.data)["reason"]) for one in told]


@pytest.mark.parametrize(("kind", "reason"), [("bad-json", "malformed"), ("unknown-type", "unknown-type")])
async def test_a_frame_nobody_understands_is_quarantined_with_its_reason(tmp_path: Path, kind: FrameFault, reason: str) -> None:
    faults = (FaultOrder(kind=kind, after_frames=40),)
    async with bench(tmp_path, SimulatorConfig(seed=4, markets=3, rate=300, require_auth=False, faults=faults)) as system:
        connector = system.connector()
        async with running(connector) as task:
            await until(lambda: connector.health().stats["quarantined"] == 1, "a letter is written", task)
            frames, records = int(connector.health().stats["frames"]), len(system.records())
            await until(lambda: int(connector.health().stats["frames"]) > frames + 100, "capture goes on", task)
            await until(lambda: is_all_acked(connector) and len(system.records()) > records, "records, too", task)
            await until(lambda: connector.health().stats["letters_waiting"] == 0, "the journal was told", task)
            await connector.flush()
        (message,) = system.transport.stored("dlq")
        assert message.subject == subjects.dead_letter("dev", "connector")
        letter = msgspec.json.decode(message.payload, type=Unmapped)
        assert (letter.feed, letter.connection) == ("kalshi", "main")
        assert letter.reason.startswith(reason)
        kept = {(session, n): payload for session, n, entry, payload in system.entries() if entry == EntryKind.IN}
        assert kept[letter.session, letter.n] == letter.text.encode()
        assert connector.health().stats["sessions"] == 1
        assert "capture.drift-detected.v1" in await system.facts()
        name = f"frame-main-{letter.session}-{letter.n}"
        assert await journaled(system.journal) == [(name, "connector:kalshi-main", letter.reason)]
        state = await Application(system.journal, CATALOGUE, system.clock, system_random).state(dead_letter.DECIDER, (name,))
        assert state == dead_letter.State(is_recorded=True)


async def test_letters_wait_for_a_journal_that_is_away_over_a_kill_too_and_capture_does_not(tmp_path: Path) -> None:
    faults = (FaultOrder(kind="bad-json", after_frames=40, count=3),)
    async with bench(tmp_path, SimulatorConfig(seed=4, markets=3, rate=300, require_auth=False, faults=faults)) as system:
        connector = system.connector()
        system.journal.is_away = True
        task = asyncio.create_task(connector.run())
        await until(lambda: connector.health().stats["quarantined"] == 3, "the stream has them", task)
        frames = int(connector.health().stats["frames"])
        await until(lambda: int(connector.health().stats["frames"]) > frames + 100, "captured meanwhile", task)
        await until(lambda: is_all_acked(connector), "published meanwhile", task)
        assert connector.health().stats["letters_waiting"] == 3
        await kill(task, connector)
        assert (tmp_path / "tape" / "letters.jsonl").exists()
        system.journal.is_away = False
        connector = system.connector()
        async with running(connector) as task:
            await until(lambda: not (tmp_path / "tape" / "letters.jsonl").exists(), "nothing waits", task)
        letters = [msgspec.json.decode(one.payload, type=Unmapped) for one in system.transport.stored("dlq")]
        assert [name for name, _, _ in await journaled(system.journal)] == [letter_id(one) for one in letters]
        assert len(letters) == 3
        assert all(one.reason.startswith("malformed") and one.text for one in letters)


async def test_letters_wait_for_streams_that_are_away_and_capture_does_not(tmp_path: Path) -> None:
    faults = (FaultOrder(kind="bad-json", after_frames=40, count=3),)
    async with bench(tmp_path, SimulatorConfig(seed=4, markets=3, rate=300, require_auth=False, faults=faults)) as system:
        connector = system.connector()
        system.transport.is_away = True
        async with running(connector) as task:
            await until(lambda: int(connector.health().stats["frames"]) > 200, "captured without streams", task)
            assert connector.health().stats["quarantined"] == 0
            system.transport.is_away = False
            await until(lambda: connector.health().stats["quarantined"] == 3, "the letters are written", task)
            await until(lambda: connector.health().stats["letters_waiting"] == 0, "and journaled", task)
        assert len(system.transport.stored("dlq")) == len(await journaled(system.journal)) == 3


class Office:
    """A quarantine without a connector."""

    def __init__(self, directory: Path) -> None:
        self.transport = MemoryTransport()
        self.journal = MemoryJournal("dev")
        self.application = Application(self.journal, CATALOGUE, ManualClock(NOON), system_random)
        self.directory = directory
        self.quarantine = self.opened()

    def opened(self) -> Quarantine:
        return Quarantine(self.transport, self.application, "dev", self.directory, system_random, structlog.get_logger())

    def offer(self, count: int, *, first: int = 1, ts_ns: int = NOON, size: int = 1) -> None:
        for n in range(first, first + count):
            self.quarantine.offer(unmapped("kalshi", "main", (7, n), ts_ns, "not understood", b"x" * size))

    @property
    def kept(self) -> list[int]:
        """What waits in the file."""
        path = self.directory / "letters.jsonl"
        return [msgspec.json.decode(line)["letter"]["n"] for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


@asynccontextmanager
async def served(office: Office) -> AsyncIterator[Callable[[str, int], Awaitable[None]]]:
    task = asyncio.create_task(office.quarantine.run())
    await asyncio.sleep(0)  # it has read what waits

    async def reaches(name: str, value: int) -> None:
        await until(lambda: office.quarantine.stats()[name] == value, f"{name} is {value}", task)

    try:
        yield reaches
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_journal_is_told_of_so_many_an_hour_and_that_there_are_more(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "JOURNALED_AN_HOUR", 3)
    office.offer(5)
    office.offer(2, first=6, ts_ns=NOON + HOUR_NS)
    async with served(office) as reaches:
        await reaches("quarantined", 7)
        await reaches("letters_waiting", 0)
    told = await journaled(office.journal)
    assert [name for name, _, _ in told] == [f"frame-main-7-{n}" for n in (1, 2, 3, 6, 7)]
    assert [reason for _, _, reason in told] == [
        "not understood", "not understood",
        "not understood (number 3 of this hour: further ones are on the dead-letter stream alone)",
        "not understood", "not understood",
    ]  # fmt: skip
    assert office.kept == []


async def test_the_newest_wait_within_bounds_of_number_and_size(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "HELD_MAX", 4)
    monkeypatch.setattr(quarantine, "HELD_BYTES_MAX", 3_000)
    monkeypatch.setattr(letter_spool, "FILE_BYTES_MAX", 2_000)
    office.offer(6)
    assert office.quarantine.stats() == {"quarantined": 0, "letters_waiting": 4, "letters_dropped": 2}
    office.offer(2, first=7, size=1_000)
    # Two of 1,200 bytes and two of 201 have room; of the journal, which gets no frames, four.
    assert [one.n for one in office.quarantine._stream.held] == [5, 6, 7, 8]
    office.offer(1, first=9, size=1_000)
    assert [one.n for one in office.quarantine._stream.held] == [8, 9]
    assert [one.n for one in office.quarantine._journal.held] == [6, 7, 8, 9]
    assert set(office.kept) == {6, 7, 8, 9}, "the file was written anew with what waits"
    office.quarantine = office.opened()
    async with served(office) as reaches:
        await reaches("letters_waiting", 0)
    assert [msgspec.json.decode(one.payload, type=Unmapped).n for one in office.transport.stored("dlq")] == [8, 9]
    assert [name for name, _, _ in await journaled(office.journal)] == [f"frame-main-7-{n}" for n in (6, 7, 8, 9)]


async def test_a_letter_told_before_is_not_told_again_and_a_torn_file_is_read_as_far_as_it_goes(office: Office) -> None:
    office.offer(2)
    lines = (office.directory / "letters.jsonl").read_bytes()
    async with served(office) as reaches:
        await reaches("letters_waiting", 0)
    before = await journaled(office.journal)
    (office.directory / "letters.jsonl").write_bytes(lines + b'{"letter":{"feed":"kal')
    office.quarantine = office.opened()
    async with served(office) as reaches:
        await reaches("letters_waiting", 0)
    assert await journaled(office.journal) == before
    assert office.kept == []


@pytest.mark.parametrize("away", ["streams", "journal"])
async def test_one_that_is_away_does_not_keep_the_other_waiting(office: Office, away: str) -> None:
    office.transport.is_away, office.journal.is_away = away == "streams", away == "journal"
    office.offer(2)
    async with served(office):
        await until(lambda: bool(office.quarantine._journal.sent or office.quarantine._stream.sent), "one has them")
        assert office.quarantine.stats()["letters_waiting"] == 2
    office.transport.is_away = office.journal.is_away = False
    office.quarantine = office.opened()
    async with served(office) as reaches:
        await reaches("letters_waiting", 0)
    assert [name for name, _, _ in await journaled(office.journal)] == ["frame-main-7-1", "frame-main-7-2"]
    assert {msgspec.json.decode(one.payload, type=Unmapped).n for one in office.transport.stored("dlq")} == {1, 2}


async def test_a_directory_that_cannot_be_written_is_in_nobodys_way(office: Office) -> None:
    office.directory /= "not there"
    office.quarantine = office.opened()
    office.offer(2)
    async with served(office) as reaches:
        await reaches("quarantined", 2)
        await reaches("letters_waiting", 0)
    assert len(await journaled(office.journal)) == 2


def test_bytes_that_are_no_text_are_kept_too() -> None:
    letter = unmapped("kalshi", "main", (7, 3), 9, "malformed", b"\xff\x00")
    assert (letter.text, letter.b64, letter.session, letter.n) == ("", "/wA=", 7, 3)
    assert recording(letter) == dead_letter.RecordDeadLetter("connector", "tape", 3, "kalshi/main", "", "malformed")


def test_no_letter_is_larger_than_a_server_takes() -> None:
    """A NATS server takes 1 MiB by default; control characters are six bytes each in JSON."""
    for payload in (b"\x00" * 10_000_000, b'"' * 300_000, "\u20ac".encode() * 300_000, b"\xff" * 300_000):
        letter = unmapped("kalshi", "main", (7, 3), 9, "malformed", payload)
        assert len(msgspec.json.encode(letter)) < 1 << 20
        kept = base64.b64decode(letter.b64) if letter.b64 else letter.text.encode()
        assert kept == payload[:FRAME_BYTES_MAX]


def test_what_is_kept_behind_a_torn_line_is_read_again(office: Office) -> None:
    office.offer(1)
    path = office.directory / "letters.jsonl"
    path.write_bytes(path.read_bytes() + b'{"letter":{"feed":"kal')
    office.quarantine = office.opened()
    office.offer(1, first=2)
    office.quarantine = office.opened()
    office.offer(1, first=3)
    assert [one.n for one in office.quarantine._stream.held] == [1, 2, 3]


def test_what_waits_is_not_written_anew_with_each_letter(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_spool, "FILE_BYTES_MAX", 1_000)  # less than what may wait
    written: list[int] = []
    replace = letter_spool.LetterSpool.replace

    def counted(self: letter_spool.LetterSpool, waiting: Iterable[letter_spool.Waiting]) -> None:
        found = list(waiting)
        written.append(len(found))
        replace(self, found)

    monkeypatch.setattr(letter_spool.LetterSpool, "replace", counted)
    office.offer(40)
    assert 2 < len(written) < 20  # each time 500 bytes more: at least two letters
    assert len(office.quarantine._stream.held) == 40
