"""`services.renormalizer`: a later mapper's records beside the old ones, whole or not at all, whenever it is killed."""

from __future__ import annotations

import random as seeded
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ssmd.application.handler import Application
from ssmd.archive.keys import parse_segment
from ssmd.archive.reading import Wanted, record_contents, records
from ssmd.archive.record_segments import Making, PartitionWriter
from ssmd.archive.record_standing import RecordStanding, with_raw_event, with_record_event
from ssmd.archive.shelf_manifest import KINDS, raw_shelf, read_manifest
from ssmd.archive.storage import PutResult, Storage
from ssmd.archive.storage_local import LocalStorage
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.archive.storage_s3 import S3Access, S3Storage
from ssmd.clock import ManualClock, date_of
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Malformed, Rejected, Unavailable
from ssmd.exchanges.adapter import Mapped
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.projections import queries
from ssmd.projections.manifest_sink import ManifestSink
from ssmd.projections.manifests import MANIFESTS
from ssmd.projections.rebuild import fold_in_memory
from ssmd.projections.views import fold_views
from ssmd.schemas.blocks import Entry
from ssmd.schemas.records import KIND_OF, BookDelta, Record
from ssmd.services.renormalizer import Renormalization, Renormalizer
from ssmd.services.repair_sources import Made, RawSource
from ssmd.services.repairer import Repairer
from ssmd.services.verifier import Scope, verify
from ssmd.transforms.book_at import book_at
from ssmd.wiring.day_steps import totals_of

ENV, FEED, DATE = "test", "kalshi", "2026-05-14"
OLD = KalshiMapper.version
NEW = OLD + 1
SCOPE = Scope(ENV, FEED)
MIDNIGHT = 1_778_803_200_000_000_000


class Later(KalshiMapper):
    """A later version: sizes of every seventh entry's changes are one more, and quotes... are as they were."""

    version = NEW

    def map(self, entry: Entry) -> Mapped:
        mapped = super().map(entry)
        return Mapped([later(one) for one in mapped.records], mapped.facts)


def later(record: Record) -> Record:
    if isinstance(record, BookDelta) and record.n % 7 == 0:
        return msgspec.structs.replace(record, size=record.size + 1)
    return record


def today(session: int) -> KalshiMapper:
    return KalshiMapper(FEED, session)


def tomorrow(session: int) -> KalshiMapper:
    return Later(FEED, session)


def quiet(_what: str, _done: int, _of: int) -> None:
    pass


class Killed(BaseException):
    """The process is gone; nothing may catch it."""


class Mortal:
    """A storage, or a journal's application, that dies at its n-th change (or behind it)."""

    def __init__(self, storage: Storage, application: Application, at: int) -> None:
        self._storage = storage
        self._application = application
        self._left = at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed

    async def put_file(self, key: str, path: Path) -> PutResult:
        self._step()
        return await self._storage.put_file(key, path)

    async def put(self, key: str, data: bytes) -> None:
        self._step()
        await self._storage.put(key, data)

    async def handle(self, *given: Any, **more: Any) -> Any:
        self._step()
        return await self._application.handle(*given, **more)


def renormalizer(
    world: Any, spool: Path, make: Callable[[int], KalshiMapper] = tomorrow, mortal: Mortal | None = None
) -> Renormalizer:
    spool.mkdir(parents=True, exist_ok=True)
    return Renormalizer(
        world.env, FEED, mortal or world.storage, world.journal, mortal or world.application,  # type: ignore[arg-type]
        make, date_of, 3, 9_000, spool, "cli:test",
    )  # fmt: skip


async def renormalize(world: Any, spool: Path, make: Callable[[int], KalshiMapper] = tomorrow, **given: Any) -> Renormalization:
    found = await renormalizer(world, spool, make).run(DATE, is_dry=given.pop("is_dry", False), progress=quiet, **given)
    await world.manifests()
    assert list(spool.iterdir()) == []
    return found


async def read(storage: Storage, **given: Any) -> list[Record]:
    wanted = Wanted(ENV, FEED, DATE)._replace(**given)
    return [record async for batch in records(storage, wanted) for record in batch]


def in_order(found: Sequence[Record]) -> list[Record]:
    return sorted(found, key=lambda one: (one.ts_recv_ns, one.session, one.n, one.index))


async def objects(storage: Storage, prefix: str = "normalized/") -> dict[str, bytes]:
    found = {}
    async for key in storage.list(prefix):
        if not key.endswith("/manifest.json"):
            found[key] = await storage.get(key) or b""
    return found


def newer(found: dict[str, bytes]) -> dict[str, bytes]:
    return {key: data for key, data in found.items() if f"/m{NEW}/" in key}


@pytest.fixture(params=["memory", "local", "s3"])
def open_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Storage]:
    if request.param == "memory":
        return MemoryStorage
    if request.param == "local":
        return lambda: LocalStorage(tmp_path / "archive")
    server = request.getfixturevalue("s3_server")
    return lambda: S3Storage(S3Access(f"t-{secrets.token_hex(6)}", server.access_key, server.secret_key, server.url))


@pytest.fixture
async def storage(open_storage: Callable[[], Storage]) -> AsyncIterator[Storage]:
    made = open_storage()
    yield made
    await made.close()


async def test_a_new_version_stands_beside_the_old(make_world: Any, storage: Storage, tmp_path: Path) -> None:
    world = make_world(storage)
    for connection in ("east", "west"):
        for _ in range(2):
            await world.session(count=80, connection=connection)
    await world.complete()
    before = await objects(storage)
    old, new = in_order(world.records), [later(record) for record in in_order(world.records)]
    differing = sum(one != other for one, other in zip(old, new, strict=True))
    assert await read(storage) == old

    dry = await renormalize(world, tmp_path / "renormalize", is_dry=True)
    assert (dry.is_well, dry.is_written, dry.comparison.differing) == (False, False, differing)
    assert {(one.partition, one.state, one.mappers) for one in dry.partitions} == {
        ("east", "due", (OLD,)), ("west", "due", (OLD,)),
    }  # fmt: skip
    assert await objects(storage) == before

    found = await renormalize(world, tmp_path / "renormalize")
    assert (found.is_well, found.is_written, found.comparison.differing) == (True, True, differing)
    assert {(one.partition, one.state) for one in found.partitions} == {("east", "written"), ("west", "written")}
    assert sum(one.differing for one in found.partitions) == differing
    assert sum(one.records for one in found.partitions) == len(new)
    after = await objects(storage)
    assert {key: after[key] for key in before} == before
    segments = [parse_segment(key) for key in newer(after) if key.endswith(".zst")]
    assert len({(one.partition, one.first_seq) for one in segments}) > 3
    assert after.keys() == before.keys() | newer(after).keys()

    assert await read(storage) == await read(storage, mapper=NEW) == new
    assert await read(storage, mapper=OLD) == old
    assert sorted([kind async for kind, _ in record_contents(storage, Wanted(ENV, FEED, DATE))]) >= ["book"]
    with pytest.raises(Rejected, match="no records that mapper 9 made") as refused:
        await read(storage, mapper=9)
    assert refused.value.mend == f"--mapper {OLD} or {NEW}"
    manifest = await read_manifest(storage, raw_shelf(ENV, FEED, DATE))
    assert manifest is not None
    assert (manifest.mapper_versions, set(manifest.renormalized)) == ((OLD, NEW), {"east", "west"})
    told = await verify(storage, world.journal, SCOPE)
    assert told.findings == ()

    # Once more: nothing to do, and all are equal.
    again = await renormalize(world, tmp_path / "renormalize")
    assert (again.is_well, again.is_written, again.comparison.differing) == (True, False, 0)
    assert {one.state for one in again.partitions} == {"current"}
    assert await objects(storage) == after
    events = [one.envelope.type async for batch in world.journal.replay() for one in batch]
    assert events.count("archive.renormalized.v1") == 2


async def test_books_and_inventory_are_of_the_new_version(make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    await world.session(count=150)
    await world.complete()
    await renormalize(world, tmp_path / "renormalize")
    at_ns = world.ts
    new = await book_at(world.storage, Wanted(ENV, FEED, DATE), "A-1", at_ns)
    old = await book_at(world.storage, Wanted(ENV, FEED, DATE, OLD), "A-1", at_ns)
    assert (new.deltas, new.seq_last) == (old.deltas, old.seq_last)
    assert new.digest != old.digest
    lines = await queries.inventory(await fold_views(world.journal, None), FEED)
    by_status = {(line.kind, line.status): (line.mapper, line.records) for line in lines if line.type == "normalized"}
    books = sum(isinstance(record, BookDelta) for record in world.records)
    assert by_status["book", "complete"] == (NEW, books)
    assert by_status["book", "superseded"] == (0, books)
    (day,) = await queries.days_inventory(await fold_views(world.journal, None), FEED)
    assert (day.records, day.status) == (len(world.records), "complete")
    totals = await totals_of(await fold_views(world.journal, None), FEED, DATE)
    assert sum(totals.records.values()) == len(world.records)
    stored = await objects(world.storage, "")
    assert day.size_bytes == sum(len(data) for key, data in stored.items() if key.endswith(".zst"))


async def test_today_s_own_records_are_left_alone(make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    await world.session(count=60)
    await world.complete()
    before = await objects(world.storage, "")
    found = await renormalize(world, tmp_path / "renormalize", today)
    assert (found.is_well, found.is_written) == (True, False)
    assert [(one.partition, one.state, one.why_not) for one in found.partitions] == [("main", "current", "")]
    assert await objects(world.storage, "") == before


async def test_equal_lines_give_equal_objects_however_they_lie(make_world: Any, tmp_path: Path) -> None:
    made = []
    for number, cut in enumerate((70, 31)):
        world = make_world(MemoryStorage(), seed=11)
        for connection in ("east", "west"):
            await world.session(count=120, connection=connection, cut=cut, block=cut // 4)
        await world.complete()
        await renormalize(world, tmp_path / f"renormalize-{number}")
        made.append(newer(await objects(world.storage)))
    assert made[0] == made[1]
    assert len(made[0]) > 10


async def test_killed_anywhere_it_is_old_or_new_and_goes_on(make_world: Any, tmp_path: Path) -> None:
    async def fresh() -> Any:
        world = make_world(MemoryStorage(), seed=5)
        for connection in ("east", "west"):
            await world.session(count=60, connection=connection)
        await world.complete()
        return world

    undisturbed = await fresh()
    await renormalize(undisturbed, tmp_path / "renormalize")
    wanted = await objects(undisturbed.storage)
    old = in_order(undisturbed.records)
    spool = tmp_path / "renormalize"
    for at in range(200):
        world = await fresh()
        mortal = Mortal(world.storage, world.application, at)
        try:
            await renormalizer(world, spool, mortal=mortal).run(DATE, is_dry=False, progress=quiet)
        except Killed:
            pass
        else:
            break
        await world.manifests()
        done = {one.envelope.aggregate_key.parts[3] async for one in renormalized_events(world)}
        sessions = {line.session: line.connection for line in world.lines}
        expected = [later(one) if sessions[one.session] in done else one for one in old]
        assert await read(world.storage) == expected, f"killed at change {at}"
        # What no event names yet is all there is to complain of.
        told = await verify(world.storage, world.journal, SCOPE)
        assert {one.problem for one in told.findings} <= {"extra"}, f"killed at change {at}"
        await renormalize(world, spool)
        assert await objects(world.storage) == wanted, f"killed at change {at}"
        assert (await verify(world.storage, world.journal, SCOPE)).findings == ()
    assert at > 12


async def renormalized_events(world: Any) -> AsyncIterator[Any]:
    async for batch in world.journal.replay(filters=[archive.AGGREGATE]):
        for recorded in batch:
            if recorded.envelope.type == "archive.renormalized.v1":
                yield recorded


class Half:
    """A storage that is away for manifests after the first few."""

    def __init__(self, storage: Storage, left: int) -> None:
        self._storage = storage
        self.left = left

    async def get(self, key: str) -> bytes | None:
        return await self._storage.get(key)

    async def put(self, key: str, data: bytes) -> None:
        if not self.left:
            raise Unavailable("the storage is away")
        self.left -= 1
        await self._storage.put(key, data)


async def test_while_manifests_are_written_readers_have_the_old_or_the_new(make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    await world.session(count=60)
    await world.complete()
    old = in_order(world.records)
    await renormalizer(world, tmp_path / "renormalize").run(DATE, is_dry=False, progress=quiet)
    rows = await fold_in_memory(world.journal, [MANIFESTS])
    seen = []
    for _ in range(100):
        seen.append(await read(world.storage))
        try:
            await ManifestSink(rows, Half(world.storage, 1)).reconcile()
        except Unavailable:
            continue
        break
    seen.append(await read(world.storage))
    new = [later(record) for record in old]
    assert [found for number, found in enumerate(seen) if number == 0 or found != seen[number - 1]] == [old, new]
    assert len(seen) > 4


async def test_a_manifest_that_is_behind_is_no_answer(make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    await world.session(count=60)
    await world.complete()
    key = f"normalized/{ENV}/{FEED}/market-v1/book/m{OLD}/2026/05/14/manifest.json"
    behind = await world.storage.get(key)
    await renormalize(world, tmp_path / "renormalize")
    await world.storage.put(key, behind)
    with pytest.raises(Unavailable, match=f"{key} is of journal position"):
        await read(world.storage)


async def test_what_comes_late_is_read_too_and_made_anew_the_next_time(make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    await world.session(count=60)
    await world.complete()
    await renormalize(world, tmp_path / "renormalize")
    first = len(world.records)
    await world.session(count=30)
    await world.manifests()
    old = in_order(world.records)
    assert await read(world.storage) == [later(one) for one in old[:first]] + old[first:]
    held = await renormalizer(world, tmp_path / "renormalize").run(DATE, is_dry=False, progress=quiet)
    (told,) = held.partitions
    assert (held.is_well, told.state, told.mappers) == (False, "left", (OLD, NEW))
    assert told.why_not == f"its day is open: ssmd day end --date {DATE}"
    await world.complete()
    found = await renormalize(world, tmp_path / "renormalize")
    assert [one.state for one in found.partitions] == ["written"]
    new = [later(one) for one in old]
    assert await read(world.storage) == await read(world.storage, mapper=NEW) == new
    assert await read(world.storage, mapper=OLD) == old
    assert (await verify(world.storage, world.journal, SCOPE)).findings == ()


async def test_a_connector_renewed_during_the_day(make_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the day of each version, both current; made anew, the new version's own half is not read twice."""
    world = make_world()
    await world.session(count=60)
    first = len(world.records)
    with monkeypatch.context() as patched:
        patched.setattr(KalshiMapper, "version", NEW)
        await world.session(count=60)
    await world.complete()
    old = in_order(world.records)
    assert await read(world.storage) == old
    assert await read(world.storage, mapper=OLD) == old[:first]
    assert await read(world.storage, mapper=NEW) == old[first:]
    await renormalize(world, tmp_path / "renormalize")
    new = [later(one) for one in old]
    assert await read(world.storage) == await read(world.storage, mapper=NEW) == new
    assert await read(world.storage, mapper=OLD) == old[:first]
    manifest = await read_manifest(
        world.storage, parse_segment(next(key for key in newer(await objects(world.storage)) if key.endswith(".zst"))).shelf
    )
    assert manifest is not None
    assert manifest.record_count == sum(KIND_OF[type(one)] == manifest.kind for one in new)
    assert (await verify(world.storage, world.journal, SCOPE)).findings == ()


async def test_an_older_ssmd_does_not_take_the_place_of_newer_records(make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    await world.session(count=60)
    await world.complete()
    await renormalize(world, tmp_path / "renormalize")
    found = await renormalize(world, tmp_path / "renormalize", today)
    (told,) = found.partitions
    assert (found.is_well, told.state, told.why_not) == (
        False, "left", f"mapper {NEW} made its records, this ssmd has mapper {OLD}",
    )  # fmt: skip


async def test_without_its_raw_lines_a_day_is_left_as_it_is(make_world: Any, tmp_path: Path) -> None:
    """Made from nothing, the new version would be nothing, and take the place of all there is."""
    world = make_world()
    await world.session(count=60)
    await world.complete()
    lines = await objects(world.storage, "raw/")
    await world.handle("raw", DATE, "main", archive.RecordPruning(tuple(lines), 1, "old"))
    for key in lines:
        await world.storage.delete(key)
    await world.manifests()
    found = await renormalize(world, tmp_path / "renormalize")
    assert [(one.state, one.why_not) for one in found.partitions] == [
        ("left", "its raw lines were pruned: nothing to make records from"),
    ]  # fmt: skip
    assert not found.is_well
    assert await read(world.storage) == in_order(world.records)


def test_raw_lines_that_end_before_the_records_are_not_enough() -> None:
    file = archive.SegmentFile(
        f"normalized/test/kalshi/market-v1/trade/m{OLD}/2026/05/14/main-ab-{1:020}-{9:020}.capnp.zst",
        "trade", 1, "ab", 1, "cd", 1, 1, 1,
    )  # fmt: skip

    def sealed(last_n: int) -> archive.SegmentSealed:
        return archive.SegmentSealed("ab", 1, 9, "m", (file,), (archive.SessionReached(7, last_n),))

    standing = RecordStanding("main")
    for event in (sealed(20), sealed(15), archive.Completed("day-mark", 1, 1, 1)):
        standing = with_record_event(standing, event)
    for event in (sealed(12), archive.Completed("day-mark", 1, 1, 1)):
        standing = with_raw_event(standing, event)
    assert standing.why_not(NEW, DATE) == "its raw lines end at entry 12 of session 7, records at 20"
    assert with_raw_event(standing, sealed(20)).why_not(NEW, DATE) == ""
    assert standing.is_due(NEW)


async def test_a_damaged_raw_archive_gives_no_new_version(make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    await world.session(count=60)
    await world.complete()
    before = await objects(world.storage)
    key = next(iter(await objects(world.storage, "raw/")))
    await world.storage.delete(key)
    with pytest.raises(Malformed, match="is named by its manifest, but not in the storage"):
        await renormalize(world, tmp_path / "renormalize")
    assert await objects(world.storage) == before
    assert list((tmp_path / "renormalize").iterdir()) == []
    with pytest.raises(Rejected, match="nothing of kalshi is archived for 2020-01-01"):
        await renormalizer(world, tmp_path / "renormalize").run("2020-01-01", is_dry=False, progress=quiet)


async def test_a_damaged_object_of_the_new_version_is_made_again_from_raw(make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    for connection in ("east", "west"):
        await world.session(count=80, connection=connection)
    await world.complete()
    await renormalize(world, tmp_path / "renormalize")
    whole = await objects(world.storage)
    spool = tmp_path / "repair"
    spool.mkdir()
    rng = seeded.Random(3)
    segments = [key for key in newer(whole) if key.endswith(".zst")]
    for key in rng.sample(segments, 3):
        await world.storage.put(key, whole[key][:-1])
    found = await verify(world.storage, world.journal, SCOPE)
    assert {one.problem for one in found.findings} == {"truncated"}
    source = RawSource(world.storage, Made(ENV, FEED, "UTC", 3, 9_000), tomorrow)
    repairer = Repairer(world.storage, world.journal, world.application, [source], spool, "cli:test")
    repairs = await repairer.repair(SCOPE, found, is_dry=False, progress=quiet)
    assert [(one.source, one.fit) for one in repairs] == [("raw", "same object")] * 3
    assert await objects(world.storage) == whole
    assert list(spool.iterdir()) == []
    other = RawSource(world.storage, Made(ENV, FEED, "UTC", 3, 1 << 20), tomorrow)
    await world.storage.put(segments[0], b"")
    found = await verify(world.storage, world.journal, SCOPE)
    (told,) = await repairer._replace(sources=[other]).repair(SCOPE, found, is_dry=True, progress=quiet)
    assert (told.source, told.tried) == (
        "", {"raw": "made anew today its records are others, or cut otherwise (archive.segment_bytes)"},
    )  # fmt: skip


async def test_a_session_over_midnight_keeps_its_days_apart(make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    world.ts = MIDNIGHT - 60_000_000
    await world.session(count=200)
    await world.complete()
    later_day = "2026-05-15"
    for date in (DATE, later_day):
        run = renormalizer(world, tmp_path / "renormalize").run(date, is_dry=False, progress=quiet)
        assert (await run).is_well
    await world.manifests()
    for date in (DATE, later_day):
        new = [later(one) for one in in_order(world.records) if date_of(one.ts_recv_ns) == date]
        assert await read(world.storage, date=date) == new
        assert len(new) > 20


def test_the_writer_cuts_by_content_alone(tmp_path: Path, make_world: Any) -> None:
    world = make_world()
    session = world.ts
    entries = world.entries("main", 300, ("A", "B"))
    mapper = KalshiMapper(FEED, session)
    made = [(entry.n, mapper.map(entry).records) for entry in entries]

    def write(name: str, sizes: Callable[[], int]) -> list[tuple[str, bytes]]:
        (tmp_path / name).mkdir()
        writer = PartitionWriter(Making(ENV, FEED, DATE, NEW, 3, 20_000), "main", tmp_path / name, "s")
        at = 0
        while at < len(made):
            step = sizes()
            writer.take(made[at : at + step])
            at += step
        found = [(one.file().key, one.path.read_bytes()) for one in writer.finish()]
        writer.discard()
        assert list((tmp_path / name).iterdir()) == []
        return found

    rng = seeded.Random(1)
    found = write("one", lambda: len(made))
    assert write("two", lambda: rng.randrange(1, 40)) == found
    assert {parse_segment(key).shelf.kind for key, _ in found} <= set(KINDS)
    assert len({parse_segment(key).first_seq for key, _ in found}) > 1


async def test_what_was_sealed_meanwhile_is_not_lost(make_world: Any, tmp_path: Path) -> None:
    """A segment sealed while the records were made: refused, nothing changes for readers."""
    world = make_world()
    await world.session(count=60)
    await world.complete()
    clock = ManualClock(1)
    application = Application(world.journal, CATALOGUE, clock, seeded.Random(2).randbytes)

    class Meanwhile:
        async def handle(self, *given: Any, **more: Any) -> Any:
            await world.session(count=10)
            await world.complete()
            return await application.handle(*given, **more)

    run = renormalizer(world, tmp_path / "renormalize")._replace(application=Meanwhile())  # type: ignore[arg-type]
    with pytest.raises(Rejected) as refused:
        await run.run(DATE, is_dry=False, progress=quiet)
    assert refused.value.rule == "archive-moved"
    await world.manifests()
    assert await read(world.storage) == in_order(world.records)
