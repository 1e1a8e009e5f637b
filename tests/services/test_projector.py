"""The projector as a running component, through everything its backends do to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ssmd.archive.storage_memory import MemoryStorage
from ssmd.domain import archive, trading_day
from ssmd.domain.archive import SegmentFile
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import AggregateId, Envelope, encode_envelope
from ssmd.errors import Unavailable
from ssmd.identifiers import system_random
from ssmd.projections import queries
from ssmd.projections.manifest_sink import ManifestSink
from ssmd.projections.rebuild import rebuild, verify
from ssmd.projections.store import RowStore
from ssmd.projections.store_memory import MemoryRowStore
from ssmd.projections.store_redis import RedisRowStore
from ssmd.projections.views import PROJECTIONS, open_views
from ssmd.services.embedded_servers import start_cache
from ssmd.services.projector import ProjectorService, ProjectorSettings
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.subjects import journal as journal_subject

DATE = "2026-05-14"
NOON = 1_778_760_000_000_000_000
FAST = ProjectorSettings(retry_max_s=0.1, standby_s=0.05, head_s=0.02, flush_s=10)
MANIFEST = "raw/t/kalshi/2026/05/14/manifest.json"


class Writer:
    """Puts events into a journal."""

    def __init__(self) -> None:
        self.journal = MemoryJournal("t")
        self._versions: Counter[AggregateId] = Counter()

    def tell(self, aggregate: AggregateId, event: msgspec.Struct) -> int:
        self._versions[aggregate] += 1
        version = self._versions[aggregate]
        data = msgspec.to_builtins(event)
        data.pop("type")
        raw = msgspec.Raw(msgspec.json.encode(data))
        envelope = Envelope(
            f"{aggregate}-{version}",
            tag_of(event),
            *(aggregate.aggregate, aggregate.key),
            version,
            NOON,
            "test",
            "",
            "",
            "c1",
            raw,
        )
        return self.journal.put(journal_subject("t", *aggregate), encode_envelope(envelope))

    def day(self, event: msgspec.Struct) -> int:
        return self.tell(AggregateId("trading-day", (DATE,)), event)

    def seal(self, number: int) -> int:
        key = f"raw/t/kalshi/2026/05/14/main-a1-{number:020}-{number:020}.jsonl.zst"
        file = SegmentFile(key, "raw", 10, "ab", 20, "cd", 3, NOON, NOON + 1)
        sealed = archive.SegmentSealed("a1", number, number, "id", (file,), (archive.SessionReached(7, number),))
        return self.tell(AggregateId("archive", ("kalshi", DATE, "raw", "main")), sealed)


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> str:
    """Where the cache is, "" for memory."""
    return "" if request.param == "memory" else str(request.getfixturevalue("cache_url"))


@pytest.fixture
async def store(cache: str, fresh_env: str) -> AsyncIterator[RowStore]:
    opened: RowStore = RedisRowStore(cache, fresh_env, random=system_random) if cache else MemoryRowStore()
    yield opened
    await opened.clear()
    await opened.close()


@asynccontextmanager
async def running(projector: ProjectorService) -> AsyncIterator[ProjectorService]:
    task = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        await projector.stop()
        await asyncio.wait_for(task, 30)


def projector_of(
    writer: Writer, store: RowStore, objects: MemoryStorage | None = None, settings: ProjectorSettings = FAST
) -> ProjectorService:
    sink = None if objects is None else ManifestSink(store, objects)
    return ProjectorService(writer.journal, store, sink, random=system_random, settings=settings)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_it_builds_follows_and_writes_manifests(writer: Writer, store: RowStore) -> None:
    writer.day(trading_day.StartRequested(DATE, ""))
    writer.seal(1)
    objects = MemoryStorage()
    async with running(projector_of(writer, store, objects)) as projector:
        await projector.flush()
        first = await objects.get(MANIFEST)
        writer.day(trading_day.Activated())
        last = writer.seal(2)
        await projector.flush()
        health = projector.health()
        assert (health.ok, health.reason) == (True, "")
        expected = {"position": last, "head": last, "lag": 0, "skipped": 0, "standing_by": 0, "manifests_pending": 0}
        assert expected.items() <= health.stats.items()
        views = await open_views(store)
        assert (await queries.day_status(views, DATE)).status == "active"
        assert [line.segments for line in await queries.inventory(views, "kalshi")] == [2]
    second = await objects.get(MANIFEST)
    assert first is not None
    assert second is not None
    assert (first != second, msgspec.json.decode(second)["journal_position"]) == (True, last)
    for projection in PROJECTIONS:
        assert (await verify(writer.journal, store, projection)).is_good


async def test_stop_before_anything_and_flush_of_nothing(writer: Writer, store: RowStore) -> None:
    projector = projector_of(writer, store, MemoryStorage())
    assert projector.health().reason == "not started"
    async with running(projector):
        await projector.flush()
        assert projector.position == 0
    await projector.stop()


async def test_everything_deleted_comes_back_equal(writer: Writer, store: RowStore) -> None:
    writer.day(trading_day.StartRequested(DATE, ""))
    writer.seal(1)
    objects = MemoryStorage()
    async with running(projector_of(writer, store, objects)) as projector:
        await projector.flush()
        before = await queries.day_history(await open_views(store), DATE)
        manifest = await objects.get(MANIFEST)
        await objects.delete(MANIFEST)
        await store.clear()
        # It notices by itself, without an event.
        await projector.flush()
        assert projector.health().stats["rebuilds"] == 2 * len(PROJECTIONS)
        assert await queries.day_history(await open_views(store), DATE) == before
        assert await objects.get(MANIFEST) == manifest
        writer.day(trading_day.Activated())
        await projector.flush()
        assert (await queries.day_status(await open_views(store), DATE)).status == "active"


async def test_a_journal_that_is_away_is_named_and_survived(writer: Writer, store: RowStore) -> None:
    writer.day(trading_day.StartRequested(DATE, ""))
    async with running(projector_of(writer, store)) as projector:
        await projector.flush()
        writer.journal.is_away = True
        await until(lambda: not projector.health().ok)
        assert "away" in projector.health().reason
        writer.journal.is_away = False
        writer.day(trading_day.Activated())
        await projector.flush()
        assert projector.health().ok
        assert (await queries.day_status(await open_views(store), DATE)).status == "active"


async def test_object_storage_that_is_away_delays_manifests_alone(writer: Writer, store: RowStore) -> None:
    objects = MemoryStorage()
    objects.is_away = True
    last = writer.seal(1)
    async with running(projector_of(writer, store, objects)) as projector:
        await until(lambda: "manifests are not written" in projector.health().reason)
        assert projector.position == last
        assert [line.segments for line in await queries.inventory(await open_views(store), "kalshi")] == [1]
        objects.is_away = False
        await projector.flush()
        assert projector.health().ok
        assert await objects.get(MANIFEST) is not None


async def test_an_event_nobody_understands_is_passed_over_and_alerted(writer: Writer, store: RowStore) -> None:
    async with running(projector_of(writer, store)) as projector:
        writer.day(trading_day.StartRequested(DATE, ""))
        writer.journal.put(f"t.journal.trading-day.{DATE}", b"nonsense")
        writer.day(trading_day.Activated())
        await projector.flush()
        health = projector.health()
        assert (health.ok, health.reason, health.stats["skipped"]) == (
            False,
            "1 events could not be folded into days: ssmd journal verify",
            1,
        )
        views = await open_views(store)
        assert ((await queries.day_status(views, DATE)).status, len(views.warnings())) == ("active", 1)


async def test_a_journal_that_lost_its_tail_stops_it_with_the_range(writer: Writer, store: RowStore) -> None:
    writer.day(trading_day.StartRequested(DATE, ""))
    writer.day(trading_day.Activated())
    for projection in PROJECTIONS:
        await rebuild(writer.journal, store, projection)
    shorter = Writer()
    shorter.day(trading_day.StartRequested(DATE, ""))
    async with running(projector_of(shorter, store)) as projector:
        await until(lambda: "lost" in projector.health().reason)
        assert "events 2..2 are lost from the journal" in projector.health().reason


async def test_of_two_projectors_one_stands_by_and_takes_over(writer: Writer, cache_url: str, fresh_env: str) -> None:
    stores = [RedisRowStore(cache_url, fresh_env, random=system_random) for _ in range(2)]
    patient = replace(FAST, standby_s=0.5)
    first, second = (projector_of(writer, store, settings=patient) for store in stores)
    tasks = {one: asyncio.create_task(one.run()) for one in (first, second)}
    try:
        # Events come until the two have found their places: both may stand by at first, each for the other's commit.
        async with asyncio.timeout(60):
            calm, places = 0, (0, 0)
            while calm < 100 or sum(places) != 1:
                writer.day(trading_day.Activated())
                await asyncio.sleep(0.002)
                found = int(first.health().stats["standing_by"]), int(second.health().stats["standing_by"])
                calm, places = (calm + 1 if found == places else 0), found
        waiting, working = (first, second) if places[0] else (second, first)
        await working.flush()
        assert waiting.health().ok
        await working.stop()
        await asyncio.wait_for(tasks[working], 30)
        last = writer.day(trading_day.EndRequested(""))
        await waiting.flush()
        assert (waiting.health().stats["standing_by"], waiting.position) == (0, last)
        for projection in PROJECTIONS:
            assert (await verify(writer.journal, stores[0], projection)).is_good
    finally:
        for one, task in tasks.items():
            await one.stop()
            await asyncio.wait_for(task, 30)
        await stores[0].clear()
        for store in stores:
            await store.close()


async def test_a_rebuild_beside_it_is_taken_over_at_once(writer: Writer, store: RowStore) -> None:
    writer.day(trading_day.StartRequested(DATE, ""))
    async with running(projector_of(writer, store)) as projector:
        await projector.flush()
        for projection in PROJECTIONS:
            assert (await rebuild(writer.journal, store, projection)).outcome == "swapped"
        writer.day(trading_day.Activated())
        await projector.flush()
        assert projector.health().stats["standing_by"] == 0
        assert (await queries.day_status(await open_views(store), DATE)).status == "active"


async def test_it_survives_the_restart_of_its_cache(writer: Writer, tmp_path: Path) -> None:
    server = await start_cache(tmp_path / "cache")
    store = RedisRowStore(server.url, "t", random=system_random, deadline_seconds=1)
    try:
        writer.day(trading_day.StartRequested(DATE, ""))
        async with running(projector_of(writer, store)) as projector:
            await projector.flush()
            await server.stop()
            writer.day(trading_day.Activated())
            await until(lambda: "did not answer" in projector.health().reason)
            server = await start_cache(tmp_path / "cache", port=server.prepared.port)
            await projector.flush()
            assert projector.health().ok
            assert (await queries.day_status(await open_views(store), DATE)).status == "active"
    finally:
        await store.close()
        await server.stop()


async def test_a_flush_that_cannot_be_done_says_why(writer: Writer) -> None:
    writer.day(trading_day.StartRequested(DATE, ""))
    away = RedisRowStore("redis://127.0.0.1:1/0", "t", random=system_random, deadline_seconds=0.2)
    settings = ProjectorSettings(retry_max_s=0.05, flush_s=0.5)
    projector = ProjectorService(writer.journal, away, None, random=system_random, settings=settings)
    async with running(projector):
        with pytest.raises(Unavailable, match=r"position 0 of 1 after 0\.5 s: cache at 127\.0\.0\.1:1 did not answer"):
            await projector.flush()
    await away.close()
