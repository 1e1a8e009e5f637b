"""Both archivers, over the memory transport and journal: what is archived, once, whatever kills them."""

from __future__ import annotations

import asyncio
import random as seeded
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.schemas.first_blocks import begun_in_first_layout

from ssmd.application.handler import Application
from ssmd.archive import crash_points
from ssmd.archive.keys import parse_segment
from ssmd.archive.segment import read_content, read_file, split_lines
from ssmd.archive.storage import Storage
from ssmd.archive.storage_local import LocalStorage
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import ManualClock, date_of
from ssmd.domain import archive, dead_letter
from ssmd.domain.archive import ArchiveEvent, SegmentSealed, StreamRegressed, StreamTruncated
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Rejected
from ssmd.registry.documents import ArchiveSettings
from ssmd.schemas import codecs
from ssmd.schemas.blocks import NO_DIGEST, Entry, EntryKind, decode_header, encode_block
from ssmd.schemas.codecs import decode_records, encode_record
from ssmd.schemas.control import Connected, DayMark, Disconnected, encode_fact
from ssmd.schemas.market_message import MARK_PART, Mark, Place, encode_mark, message_id, raw_message_id
from ssmd.schemas.raw_line import RawLine, read_lines
from ssmd.schemas.records import KIND_OF, BookDelta, Record, Side, SizeMeaning, Trade
from ssmd.services.component import Health
from ssmd.services.normalized_archiver import NormalizedArchiver
from ssmd.services.raw_archiver import RawArchiver
from ssmd.services.standby import IsAlive
from ssmd.services.stream_archiver import StreamArchiver
from ssmd.streams import subjects
from ssmd.streams.journal import RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.transport import Outgoing
from ssmd.streams.transport_memory import MemoryTransport

ENV, FEED = "test", "kalshi"
DAY = 86_400_000_000_000
NOON = 1_778_760_000_000_000_000 // DAY * DAY + DAY // 2
SMALL = ArchiveSettings(segment_bytes=65_536, idle_seconds=300.0, zstd_level=3)
IN, OUT, CTL = EntryKind.IN, EntryKind.OUT, EntryKind.CTL


class Killed(Exception):
    """Stands for kill -9."""


class Feeder:
    """One connection: its tape's blocks, and the stream messages they become."""

    def __init__(self, connection: str = "main", mapper: int = 1) -> None:
        self.connection = connection
        self.mapper = mapper
        self.ts = NOON
        self.session = 0
        self.n = 0
        self.previous = (0, 0)
        self.digest = NO_DIGEST
        self.lines: list[RawLine] = []
        self.records: list[Record] = []

    def connect(self) -> list[Outgoing]:
        self.session, self.n = max(self.ts, self.session + 1), 0
        return self.block([(CTL, encode_fact(Connected(FEED, self.connection, "wss://venue", instance="t")))])

    def frames(self, count: int, size: int = 40) -> list[Outgoing]:
        texts = [b'{"type":"delta","at":%d,"pad":"%s"}\n' % (self.n + i, b"x" * (size + i % 7)) for i in range(count)]
        return self.block([(IN, text) for text in texts])

    def disconnect(self) -> list[Outgoing]:
        return self.block([(CTL, encode_fact(Disconnected("stopped")))])

    def mark_day(self) -> list[Outgoing]:
        return self.block([(CTL, encode_fact(DayMark(date_of(self.ts))))])

    def block(self, entries: Sequence[tuple[EntryKind, bytes]]) -> list[Outgoing]:
        first_n, packed = self.n + 1, []
        grouped: dict[tuple[str, str], list[Record]] = {}
        for kind, payload in entries:
            self.n += 1
            self.ts += 1000
            packed.append((kind, self.ts, payload))
            self.lines.append(RawLine(self.connection, self.session, Entry(kind, self.n, self.ts, payload)))
            if kind == IN:
                record = self._record()
                grouped.setdefault((KIND_OF[type(record)], record.ticker), []).append(record)
        block = encode_block(self.session, first_n, packed, self.digest)
        self.digest = decode_header(block).digest
        raw_id = raw_message_id(self.connection, self.session, first_n)
        out = [Outgoing(subjects.raw(ENV, FEED, self.connection), block, raw_id)]
        counts: dict[str, int] = {}
        for part, ((token, ticker), records) in enumerate(grouped.items()):
            counts[token] = counts.get(token, 0) + len(records)
            self.records += records
            place = Place(self.connection, self.session, first_n, part)
            payload = b"".join(map(encode_record, records))
            out.append(Outgoing(subjects.market(ENV, FEED, token, ticker), payload, message_id(place)))
        facts = [payload for kind, payload in entries if kind == CTL]
        mark = Mark(
            self.connection, self.session, first_n, self.n, len(grouped), counts, *self.previous, self.ts, self.mapper,
            day_mark=date_of(self.ts) if any(b"day-mark" in fact for fact in facts) else "",
        )  # fmt: skip
        place = Place(self.connection, self.session, first_n, MARK_PART)
        out.append(Outgoing(subjects.mark(ENV, FEED, self.connection), encode_mark(mark), message_id(place)))
        self.previous = (self.session, self.n)
        return out

    def _record(self) -> Record:
        header = (FEED, f"T{self.n % 3}", self.ts, self.ts, self.session, self.n, 0, 1, self.n, -4, -2)
        if self.n % 5:
            return BookDelta(*header, self.n, 100, Side.BID, SizeMeaning.CHANGE)
        return Trade(*header, f"id-{self.n:08}", self.n, 100, Side.ASK, False)


class World:
    """Streams, journal and storage that outlive archivers."""

    def __init__(self, storage: Storage, spool: Path) -> None:
        self.transport = MemoryTransport()
        self.journal = MemoryJournal(ENV)
        self.storage = storage
        self.clock = ManualClock(NOON)
        self.spool = spool
        self.random = seeded.Random(7)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            self.transport.put(message)

    def archiver(
        self,
        kind: str,
        *,
        settings: ArchiveSettings = SMALL,
        crash_point: crash_points.CrashPoint = crash_points.no_crash,
        hold_seconds: float = 5.0,
        instance: str = "main",
        is_alive: IsAlive | None = None,
        zone: str = "UTC",
    ) -> StreamArchiver:
        build: Any = RawArchiver if kind == "raw" else NormalizedArchiver
        archiver: StreamArchiver = build(
            ENV,
            FEED,
            instance=instance,
            transport=self.transport,
            storage=self.storage,
            application=Application(self.journal, CATALOGUE, self.clock, self.random.randbytes),
            clock=self.clock,
            random=self.random.randbytes,
            spool=self.spool / kind / instance,
            settings=settings,
            hold_seconds=hold_seconds,
            crash_point=crash_point,
            is_alive=is_alive,
            zone=zone,
        )
        archiver._standby._every_s = 0.01
        return archiver

    async def archive(self, kind: str, **given: Any) -> StreamArchiver:
        """Run one archiver over all there is, then stop it."""
        archiver = self.archiver(kind, **given)
        running = asyncio.create_task(archiver.run())
        await asyncio.sleep(0)
        await archiver.stop()
        await running
        return archiver

    async def content(self, kind: str) -> dict[tuple[str, str], bytes]:
        """Decompressed bytes by (kind, date), the segments in order of their sequences."""
        joined: dict[tuple[str, str], bytes] = {}
        names = [parse_segment(key) async for key in self.storage.list(f"{kind}/") if not key.endswith(".index")]
        for name in sorted(names, key=lambda name: (name.shelf, name.partition, name.first_seq)):
            stored = await self.storage.get(name.key)
            assert stored is not None
            place = name.shelf.kind, name.shelf.date
            joined[place] = joined.get(place, b"") + b"".join(read_content([stored]))
        return joined

    async def events(self, kind: str) -> list[ArchiveEvent]:
        events: list[ArchiveEvent] = []
        async for batch in self.journal.replay(filters=["archive"]):
            for recorded in batch:
                assert isinstance(recorded, RecordedEvent)
                if recorded.envelope.aggregate_key.parts[2] == kind:
                    event = CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data)
                    assert isinstance(event, ArchiveEvent)
                    events.append(event)
        return events

    async def check_seals(self, kind: str) -> list[SegmentSealed]:
        """Every seal tells what is stored, every stored object is in one seal, and sessions rise without a hole."""
        seals = [event for event in await self.events(kind) if isinstance(event, SegmentSealed)]
        stored = {key async for key in self.storage.list(f"{kind}/") if not key.endswith(".index")}
        assert sorted(file.key for seal in seals for file in seal.files) == sorted(stored)
        for seal in seals:
            for file in seal.files:
                stat = await self.storage.stat(file.key)
                assert stat is not None
                assert (stat.sha256, stat.size_bytes) == (file.sha256, file.size_bytes)
        return seals


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(MemoryStorage(), tmp_path / "spool")


def raw_lines(content: dict[tuple[str, str], bytes]) -> list[RawLine]:
    return [line for place in sorted(content) for line in read_lines(split_lines([content[place]]))]


def records(content: dict[tuple[str, str], bytes]) -> list[Record]:
    """By kind, then in the order of the archive."""
    return [record for place in sorted(content) for record in decode_records(content[place])]


def by_kind(given_records: Sequence[Record]) -> list[Record]:
    return sorted(given_records, key=lambda record: KIND_OF[type(record)])


def seed_day(world: World, feeder: Feeder, blocks: int = 60) -> None:
    world.publish(feeder.connect())
    for at in range(blocks):
        world.publish(feeder.frames(20 + at % 9))
    world.publish(feeder.disconnect())
    world.publish(feeder.connect())
    world.publish(feeder.frames(30))


async def test_every_entry_is_archived_once_and_in_order(world: World) -> None:
    feeder = Feeder()
    seed_day(world, feeder)
    archiver = await world.archive("raw")
    assert raw_lines(await world.content("raw")) == feeder.lines
    seals = await world.check_seals("raw")
    assert len(seals) > 1
    assert sum(file.records for seal in seals for file in seal.files) == len(feeder.lines)
    assert seals[-1].sessions[-1] == archive.SessionReached(feeder.session, feeder.n, newline=True)
    assert archiver.health().ok


async def test_every_record_is_archived_once_and_in_order(world: World) -> None:
    feeder = Feeder()
    seed_day(world, feeder)
    archiver = await world.archive("normalized")
    content = await world.content("normalized")
    assert {kind for kind, _ in content} == {"book", "trade"}
    assert records(content) == by_kind(feeder.records)
    seals = await world.check_seals("normalized")
    assert all({file.kind for file in seal.files} == {"book", "trade"} for seal in seals[:-1])
    assert archiver.health().ok


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_a_restart_goes_on_where_the_last_seal_ended(world: World, kind: str) -> None:
    feeder = Feeder()
    seed_day(world, feeder, 10)
    await world.archive(kind)
    first = await world.content(kind)
    await world.archive(kind)
    assert await world.content(kind) == first
    world.publish(feeder.frames(30))
    await world.archive(kind)
    content = await world.content(kind)
    if kind == "raw":
        assert raw_lines(content) == feeder.lines
    else:
        assert len(records(content)) == len(feeder.records)
    epochs = [event.epoch for event in await world.events(kind) if isinstance(event, archive.Opened)]
    assert epochs == [1, 2]


async def undisturbed(kind: str, tmp_path: Path, fill: Callable[[World], None]) -> dict[tuple[str, str], bytes]:
    world = World(MemoryStorage(), tmp_path / "undisturbed")
    fill(world)
    await world.archive(kind)
    return await world.content(kind)


@pytest.mark.parametrize("kind", ["raw", "normalized"])
@pytest.mark.parametrize("point", crash_points.ALL)
@pytest.mark.parametrize("store", ["local", "memory"])
async def test_killed_at_every_point_the_archive_is_the_same(kind: str, point: str, store: str, tmp_path: Path) -> None:
    def fill(world: World) -> None:
        feeder, other = Feeder(), Feeder("other")
        seed_day(world, feeder)
        seed_day(world, other, 10)
        world.publish(feeder.mark_day())
        feeder.ts += DAY
        world.publish(feeder.frames(40))

    expected = await undisturbed(kind, tmp_path, fill)
    world = World(LocalStorage(tmp_path / "archive") if store == "local" else MemoryStorage(), tmp_path / "spool")
    fill(world)
    kills = 0
    for kill_at in [*range(1, 5), 0]:
        seen = 0

        def crash(name: str, kill_at: int = kill_at) -> None:
            nonlocal seen
            seen += name == point
            if name == point and seen == kill_at:
                raise Killed

        try:
            await world.archive(kind, crash_point=crash)
        except Killed:
            kills += 1
    assert kills >= 2
    assert await world.content(kind) == expected
    await world.check_seals(kind)


@pytest.mark.parametrize("kind", ["raw", "normalized"])
@pytest.mark.parametrize("seed", range(3))
async def test_killed_anywhere_under_traffic_the_archive_is_the_same(kind: str, seed: int, tmp_path: Path) -> None:
    """The stream grows between the kills, and a publisher that starts again repeats what it sent."""
    chance = seeded.Random(seed)
    world = World(MemoryStorage(), tmp_path / "spool")
    world.transport = MemoryTransport(deduplicate=False)
    feeder = Feeder()
    sent: list[list[Outgoing]] = [feeder.connect()]
    world.publish(sent[0])
    for _ in range(12):
        for _ in range(chance.randrange(1, 12)):
            sent.append(feeder.frames(chance.randrange(1, 60)))
            world.publish(sent[-1])
        for again in sent[-chance.randrange(1, 6) :]:
            world.publish(again)
        left = chance.randrange(1, 12)

        def crash(_name: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        with suppress(Killed):
            await world.archive(kind, crash_point=crash)
    await world.archive(kind)
    content = await world.content(kind)
    if kind == "raw":
        assert raw_lines(content) == feeder.lines
    else:
        assert records(content) == by_kind(feeder.records)
        assert sum(map(len, content.values())) == sum(len(encode_record(record)) for record in feeder.records)
    await world.check_seals(kind)


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_a_day_is_complete_at_its_mark_and_late_data_open_it_again(world: World, kind: str) -> None:
    feeder = Feeder()
    world.publish(feeder.connect())
    world.publish(feeder.frames(10))
    world.publish(feeder.mark_day())
    await world.archive(kind)
    events = await world.events(kind)
    assert [type(event).__name__ for event in events] == ["Opened", "SegmentSealed", "Completed"]
    assert events[2] == archive.Completed("day-mark", *_totals(events))
    feeder.ts += 1_000_000
    world.publish(feeder.frames(3))
    await world.archive(kind)
    names = [type(event).__name__ for event in await world.events(kind)]
    assert names == ["Opened", "SegmentSealed", "Completed", "Opened", "SegmentPlanned", "Reopened", "SegmentSealed"]


def _totals(events: Sequence[ArchiveEvent]) -> tuple[int, int, int]:
    files = [file for event in events if isinstance(event, SegmentSealed) for file in event.files]
    return len(files), sum(file.records for file in files), sum(file.size_bytes for file in files)


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_the_day_changes_with_the_entries(world: World, kind: str) -> None:
    feeder = Feeder()
    world.publish(feeder.connect())
    world.publish(feeder.frames(10))
    first = date_of(feeder.ts)
    feeder.ts += DAY
    world.publish(feeder.frames(10))
    await world.archive(kind)
    assert {date for _, date in await world.content(kind)} == {first, date_of(feeder.ts)}


async def _eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.005)


async def _while_running(archiver: StreamArchiver, body: Callable[[], Awaitable[None]]) -> None:
    running = asyncio.create_task(archiver.run())
    await asyncio.sleep(0)
    try:
        await body()
    finally:
        await archiver.stop()
        await running


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_days_are_those_of_the_environments_zone(world: World, kind: str) -> None:
    feeder = Feeder()
    feeder.ts = NOON - DAY // 2 + 2 * 3_600_000_000_000  # two in the morning UTC is the evening before in New York
    world.publish(feeder.connect())
    world.publish(feeder.frames(5))
    feeder.ts = NOON
    world.publish(feeder.frames(5))
    await world.archive(kind, zone="America/New_York")
    assert {date for _, date in await world.content(kind)} == {date_of(NOON - DAY), date_of(NOON)}


async def test_idleness_is_planned_before_the_upload(world: World) -> None:
    feeder = Feeder()
    archiver = world.archiver("raw")

    async def body() -> None:
        world.publish(feeder.connect())
        await _eventually(lambda: archiver.health().stats["open_segments"] == 1)
        world.clock.advance(301_000_000_000)
        await _eventually(lambda: archiver.health().stats["sealed"] == 1)

    await _while_running(archiver, body)
    opened, planned, sealed = await world.events("raw")
    assert isinstance(opened, archive.Opened)
    assert isinstance(sealed, SegmentSealed)
    assert planned == archive.SegmentPlanned(sealed.incarnation, 1, 1, "idle")


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_a_planned_cut_is_made_again_exactly(world: World, kind: str) -> None:
    feeder = Feeder()
    world.publish(feeder.connect())
    world.publish(feeder.frames(10))

    def crash(name: str) -> None:
        if name == crash_points.AFTER_UPLOAD_BEFORE_SEAL:
            raise Killed

    with pytest.raises(Killed):
        await world.archive(kind, crash_point=crash)
    uploaded = [key async for key in world.storage.list(f"{kind}/") if not key.endswith(".index")]
    assert uploaded
    world.publish(feeder.frames(10))
    await world.archive(kind)
    seals = await world.check_seals(kind)
    assert [file.key for file in seals[0].files] == uploaded
    assert len(seals) == 2


async def test_flush_seals_what_is_on_the_stream_and_goes_on(world: World) -> None:
    feeder = Feeder()
    archiver = world.archiver("raw")

    async def body() -> None:
        for _ in range(3):
            world.publish(feeder.connect())
            world.publish(feeder.frames(10))
            await archiver.flush()
            assert raw_lines(await world.content("raw")) == feeder.lines

    await _while_running(archiver, body)
    planned = [event for event in await world.events("raw") if isinstance(event, archive.SegmentPlanned)]
    assert [event.reason for event in planned] == ["flush"] * 3


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_a_flush_does_not_wait_for_messages_of_another_feed(world: World, kind: str) -> None:
    feeder = Feeder()
    archiver = world.archiver(kind)

    async def body() -> None:
        world.publish(feeder.connect())
        world.publish([Outgoing(f"{ENV}.raw.other.main", b"x", ""), Outgoing(f"{ENV}.md.other.mark.main", b"x", "")])
        await archiver.flush()
        assert len(await world.check_seals(kind)) == 1

    await _while_running(archiver, body)


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_a_block_that_comes_too_early_waits_for_the_one_before(world: World, kind: str) -> None:
    feeder = Feeder()
    blocks = [feeder.connect(), feeder.frames(5), feeder.frames(5), feeder.frames(5)]
    for at in (0, 3, 2, 1):
        world.publish(blocks[at])
    archiver = world.archiver(kind)

    async def body() -> None:
        await archiver.flush()
        assert archiver.health().ok
        assert archiver.health().stats["holes"] == 0

    await _while_running(archiver, body)
    content = await world.content(kind)
    if kind == "raw":
        assert raw_lines(content) == feeder.lines
    else:
        assert records(content) == by_kind(feeder.records)


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_a_hole_is_told_and_what_is_behind_it_kept(world: World, kind: str) -> None:
    feeder = Feeder()
    world.publish(feeder.connect())
    feeder.frames(5)
    world.publish(feeder.frames(5))
    archiver = world.archiver(kind)

    async def body() -> None:
        await _eventually(lambda: "hole" in archiver.health().reason)
        assert archiver.health().stats["holes"] == 0
        world.clock.advance(6_000_000_000)
        await _eventually(lambda: archiver.health().stats["holes"] == 1)

    await _while_running(archiver, body)
    assert archiver.health().reason == (
        f"hole on main: expected entry 2 of session {feeder.session}, got entry 7 of session {feeder.session}"
    )
    content = await world.content(kind)
    if kind == "raw":
        assert raw_lines(content) == [feeder.lines[0], *feeder.lines[6:]]
    else:
        assert records(content) == by_kind(feeder.records[5:])


async def test_a_damaged_block_is_told_and_not_archived(world: World) -> None:
    feeder = Feeder()
    world.publish(feeder.connect())
    raw, *_ = feeder.frames(5)
    payload = bytearray(raw.payload)
    payload[100] ^= 1
    world.publish([raw._replace(payload=bytes(payload))])
    archiver = await world.archive("raw")
    assert archiver.health().stats["damaged"] == 1
    assert f"message 2 on {ENV}.raw.{FEED}.main cannot be archived" in archiver.health().reason
    assert "digest does not match" in archiver.health().reason
    assert raw_lines(await world.content("raw")) == feeder.lines[:1]
    letters = [one async for batch in world.journal.replay(filters=["dead-letter"]) for one in batch]
    (told,) = [one.envelope for one in letters if isinstance(one, RecordedEvent)]
    letter = CATALOGUE.decode(told.type, told.data)
    assert isinstance(letter, dead_letter.Recorded)
    assert (letter.component, letter.source, letter.position) == ("raw-archiver", "raw", 2)
    assert "digest does not match" in letter.reason


async def test_an_entry_of_an_unknown_kind_is_told_and_stops_nothing(world: World) -> None:
    feeder = Feeder()
    world.publish(feeder.connect())
    block = encode_block(feeder.session, 2, [(9, NOON, b"?")], feeder.digest)
    world.publish([Outgoing(subjects.raw(ENV, FEED, "main"), block, "")])
    archiver = await world.archive("raw")
    assert "entries of kind [9] are unknown to this version" in archiver.health().reason
    assert raw_lines(await world.content("raw")) == feeder.lines


async def test_a_mark_whose_messages_are_missing_is_told(world: World) -> None:
    feeder = Feeder()
    world.publish(feeder.connect())
    _raw, _first, *rest = feeder.frames(9)
    world.publish(rest)
    archiver = await world.archive("normalized")
    assert "tells 5 messages, 1 are missing (the first is 0)" in archiver.health().reason
    assert archiver.health().stats["damaged"] == 1
    assert await world.content("normalized") == {}


async def test_a_stream_begun_in_the_first_layout_is_archived_as_any(world: World, tmp_path: Path) -> None:
    seed_day(world, Feeder())
    blocks = world.transport.stored("raw")
    other = World(MemoryStorage(), tmp_path / "other")
    payloads = begun_in_first_layout([block.payload for block in blocks], len(blocks) // 2)
    other.publish([Outgoing(one.subject, data, one.message_id) for one, data in zip(blocks, payloads, strict=True)])
    for one in (world, other):
        archiver = await one.archive("raw")
        assert (archiver.health().ok, archiver.health().stats["chain_breaks"]) == (True, 0)
    assert len(await other.check_seals("raw")) > 1
    files = [[(seal.files, seal.sessions) for seal in await one.check_seals("raw")] for one in (world, other)]
    assert files[0] == files[1]


async def test_a_broken_chain_of_digests_is_counted_and_the_data_kept(world: World) -> None:
    feeder = Feeder()
    world.publish(feeder.connect())
    feeder.digest = b"another tape's.."
    world.publish(feeder.frames(5))
    archiver = await world.archive("raw")
    assert archiver.health().stats["chain_breaks"] == 1
    assert "chain of digests" in archiver.health().reason
    assert raw_lines(await world.content("raw")) == feeder.lines


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_backends_that_go_away_delay_and_lose_nothing(world: World, kind: str) -> None:
    feeder = Feeder()
    archiver = world.archiver(kind)
    storage = world.storage
    assert isinstance(storage, MemoryStorage)

    async def body() -> None:
        world.publish(feeder.connect())
        for backend in (storage, world.journal, world.transport):
            world.publish(feeder.frames(10))
            await asyncio.sleep(0.05)
            backend.is_away = True
            flushing = asyncio.create_task(archiver.flush())
            await _eventually(lambda: "away" in archiver.health().reason)
            backend.is_away = False
            await flushing
            assert archiver.health().ok

    await _while_running(archiver, body)
    content = await world.content(kind)
    if kind == "raw":
        assert raw_lines(content) == feeder.lines
    else:
        assert records(content) == by_kind(feeder.records)
    await world.check_seals(kind)


async def test_a_stream_that_begins_anew_is_read_from_its_start(world: World) -> None:
    feeder = Feeder()
    sent = [feeder.connect(), feeder.frames(10), feeder.frames(10)]
    for messages in sent:
        world.publish(messages)
    await world.archive("raw")
    world.transport.reset("raw")
    for messages in [*sent, feeder.frames(10)]:
        world.publish(messages)
    await world.archive("raw")
    assert raw_lines(await world.content("raw")) == feeder.lines
    incarnations = {seal.incarnation for seal in await world.check_seals("raw")}
    assert len(incarnations) == 2


async def test_a_stream_reset_under_a_running_archiver_is_told_and_read_again(world: World) -> None:
    feeder = Feeder()
    archiver = world.archiver("raw")
    sent = [feeder.connect(), feeder.frames(10)]

    async def body() -> None:
        world.publish(sent[0])
        await archiver.flush()
        world.publish(sent[1])
        await _eventually(lambda: archiver.health().stats["stream_seq"] == 2 or archiver.health().stats["open_segments"] == 1)
        world.transport.reset("raw")
        for messages in [*sent, feeder.frames(10)]:
            world.publish(messages)
        await archiver.flush()

    await _while_running(archiver, body)
    assert "regressed" in archiver.health().reason
    assert raw_lines(await world.content("raw")) == feeder.lines


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_a_stream_cut_back_under_its_seal_is_counted_anew_and_archived_once(world: World, kind: str) -> None:
    feeder = Feeder()
    sent = [feeder.connect(), *(feeder.frames(10) for _ in range(9))]
    for messages in sent:
        world.publish(messages)
    await world.archive(kind)
    stream: Literal["raw", "market"] = "raw" if kind == "raw" else "market"
    position = len(world.transport.stored(stream))
    world.transport.reset(stream, keep=5)
    archiver = world.archiver(kind)

    async def body() -> None:
        # The connector's tape fills it again; another message stands where the sealed one was, and new ones come.
        await _eventually(lambda: "regressed" in archiver.health().reason)
        for messages in [*sent[1:], feeder.frames(10)]:
            world.publish(messages)
        await archiver.flush()

    await _while_running(archiver, body)
    content = await world.content(kind)
    assert (raw_lines(content) if kind == "raw" else records(content)) == (
        feeder.lines if kind == "raw" else by_kind(feeder.records)
    )
    seals = await world.check_seals(kind)
    state = await world.transport.state(stream)
    assert [seal.incarnation for seal in seals] == [state.incarnation, f"{state.incarnation}0001"]
    (told,) = [event for event in await world.events(kind) if isinstance(event, StreamRegressed)]
    assert (told.incarnation, told.position, told.found_last) == (f"{state.incarnation}0001", position, 5)
    # The next start finds all well.
    again = await world.archive(kind)
    assert again.health().ok


async def test_another_message_at_the_position_is_a_regression_even_in_a_longer_stream(world: World) -> None:
    feeder = Feeder()
    sent = [feeder.connect(), *(feeder.frames(10) for _ in range(5))]
    for messages in sent:
        world.publish(messages)
    await world.archive("raw")
    world.transport.reset("raw", keep=3)
    for messages in [*sent[1:], feeder.frames(10)]:  # one block more stands before the others than it did
        world.publish(messages)
    archiver = await world.archive("raw")
    assert "'main." in archiver.health().reason
    assert raw_lines(await world.content("raw")) == feeder.lines
    await world.check_seals("raw")


@pytest.mark.parametrize("is_pruned", [False, True], ids=["tape-whole", "tape-pruned"])
@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_what_retention_took_is_archived_from_the_refill(world: World, kind: str, is_pruned: bool) -> None:
    feeder = Feeder()
    stream: Literal["raw", "market"] = "raw" if kind == "raw" else "market"
    world.publish(feeder.connect())
    world.publish(feeder.frames(10))
    await world.archive(kind)
    kept = len(feeder.lines), len(feeder.records)
    unsealed = [feeder.frames(10) for _ in range(10)]
    for messages in unsealed:
        world.publish(messages)
    world.transport.truncate(stream, (await world.transport.state(stream)).last_seq - 5)
    archiver = world.archiver(kind, hold_seconds=0.0)

    async def body() -> None:
        await _eventually(lambda: "waiting for the refill of main" in archiver.health().reason)
        unsealed.append(feeder.frames(10))
        world.publish(unsealed[-1])
        for messages in unsealed[2 if is_pruned else 0 :]:
            world.publish([one._replace(message_id=f"{one.message_id}~1") for one in messages])
        world.publish(feeder.frames(10))
        await archiver.flush()

    await _while_running(archiver, body)
    assert ("hole on main" in archiver.health().reason) == is_pruned
    lost = 20 if is_pruned else 0
    content = await world.content(kind)
    if kind == "raw":
        assert raw_lines(content) == feeder.lines[: kept[0]] + feeder.lines[kept[0] + lost :]
    else:
        assert records(content) == by_kind(feeder.records[: kept[1]] + feeder.records[kept[1] + lost :])
    assert [type(event) for event in await world.events(kind) if isinstance(event, StreamTruncated)] == [StreamTruncated]
    if not is_pruned:
        await world.check_seals(kind)


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_of_two_archivers_the_later_goes_on_and_the_earlier_says_so(world: World, kind: str) -> None:
    feeder = Feeder()
    first = world.archiver(kind, instance="a")
    running = asyncio.create_task(first.run())
    world.publish(feeder.connect())
    world.publish(feeder.frames(10))
    await _eventually(lambda: first.health().stats["open_segments"] == 1)
    await world.archive(kind, instance="b")
    with pytest.raises(Rejected, match="behind epoch 2 of b"):
        await asyncio.gather(first.stop(), running)
    assert not first.health().ok
    content = await world.content(kind)
    if kind == "raw":
        assert raw_lines(content) == feeder.lines
    else:
        assert records(content) == by_kind(feeder.records)
    await world.check_seals(kind)


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_a_standby_takes_over_when_the_one_that_archives_is_gone(world: World, kind: str) -> None:
    living = {"a"}

    async def is_alive(instance: str) -> bool:
        return instance in living

    feeder = Feeder()
    first = world.archiver(kind, instance="a", is_alive=is_alive)
    running_first = asyncio.create_task(first.run())
    await asyncio.sleep(0)
    world.publish(feeder.connect())
    world.publish(feeder.frames(10))
    await first.flush()
    second = world.archiver(kind, instance="b", is_alive=is_alive)
    running_second = asyncio.create_task(second.run())
    await _eventually(lambda: second.health().stats.get("stands_by_for") == "a")
    await second.flush()  # nothing is held here
    world.publish(feeder.frames(10))
    await first.flush()
    assert second.health() == Health(ok=True, stats={"stands_by_for": "a"})
    # The first is cut off (a partition of the network, say), not dead: it finds out when it writes, and stands by.
    living.clear()
    await _eventually(lambda: "stands_by_for" not in second.health().stats)
    world.publish(feeder.frames(10))
    await second.flush()
    living.add("b")
    world.publish(feeder.frames(10))
    await first.flush()
    await _eventually(lambda: first.health().stats.get("stands_by_for") == "b")
    await second.flush()
    for archiver, running in ((first, running_first), (second, running_second)):
        await archiver.stop()
        await running
    content = await world.content(kind)
    assert (raw_lines(content) if kind == "raw" else records(content)) == (
        feeder.lines if kind == "raw" else by_kind(feeder.records)
    )
    await world.check_seals(kind)


async def test_another_version_of_the_mapper_gets_files_of_its_own(world: World) -> None:
    feeder = Feeder()
    world.publish(feeder.connect())
    world.publish(feeder.frames(10))
    feeder.mapper = 2
    world.publish(feeder.frames(10))
    await world.archive("normalized")
    mappers = {parse_segment(key).shelf.mapper async for key in world.storage.list("normalized/") if not key.endswith(".index")}
    assert mappers == {1, 2}
    assert len(await world.check_seals("normalized")) == 2


@pytest.mark.needs_tool("capnp")
async def test_debians_capnp_reads_a_normalized_segment(world: World, tmp_path: Path) -> None:
    feeder = Feeder()
    seed_day(world, feeder, 5)
    await world.archive("normalized")
    definition = tmp_path / "market.capnp"
    definition.write_bytes(codecs.definition())
    content = await world.content("normalized")
    for (kind, _), data in content.items():
        command = ["capnp", "decode", "--short", str(definition), "Record"]
        found = subprocess.run(command, input=data, capture_output=True, check=True, timeout=30)
        ns = [int(line.split(b" n = ")[1].split(b",")[0]) for line in found.stdout.splitlines()]
        assert ns == [record.n for record in feeder.records if KIND_OF[type(record)] == kind]


async def test_a_genuine_capture_is_archived_text_for_text(world: World, shared_dir: Path) -> None:
    capture = shared_dir / "captures" / "kalshi-btc15m-2026-05-14.jsonl.zst"
    if not capture.exists():
        pytest.skip(f"no {capture.name} beside the checkout")
    texts: dict[str, list[bytes]] = {}
    feeder = Feeder()
    frames = list(read_lines(split_lines(read_file(capture))))
    at = 0
    while at < len(frames):
        conn = frames[at].connection
        batch = [line for line in frames[at : at + 100] if line.connection == conn]
        if conn not in texts:
            world.publish(feeder.connect()[:1])
        feeder.ts = batch[0].entry.ts_recv_ns
        texts.setdefault(conn, []).extend(line.entry.payload for line in batch)
        world.publish(feeder.block([(IN, line.entry.payload + b"\n") for line in batch])[:1])
        at += len(batch)
    assert sum(map(len, texts.values())) == 102_555
    await world.archive("raw", settings=ArchiveSettings(segment_bytes=4 << 20))
    content = await world.content("raw")
    assert raw_lines(content) == feeder.lines
    stored = [line for place in sorted(content) for line in split_lines([content[place]])]
    frames_stored = [line.split(b',"frame":', 1)[1][:-1] for line in stored if b',"dir":' not in line]
    assert frames_stored == [text for conn in texts for text in texts[conn]]
    await world.check_seals("raw")
