"""Rebuilding: beside a live view, under fire, against a wrong fold, over damage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from ssmd.domain import capture, trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Conflict, Malformed, Unavailable
from ssmd.identifiers import system_random
from ssmd.projections.days import DAYS
from ssmd.projections.folder import Folder, decode_events
from ssmd.projections.projection import Projection, Rows, row_key
from ssmd.projections.rebuild import fold_in_memory, rebuild, verify
from ssmd.projections.store import Changes, RowStore, Stamp
from ssmd.projections.store_memory import MemoryRowStore
from ssmd.projections.store_redis import RedisRowStore
from ssmd.projections.working_set import RowDamaged, decode_row
from ssmd.streams.journal import RecordedEvent

NOON = 1_778_760_000_000_000_000


class Count(msgspec.Struct, frozen=True):
    events: int
    position: int


def _count(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    """Two rows that must always agree: a mixture shows."""
    for name in ("left", "right"):
        before = rows.get(row_key(name), Count) or Count(0, 0)
        rows.put(row_key(name), Count(before.events + 1, recorded.position))


def _count_wrongly(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    if recorded.position != 3:
        _count(rows, recorded, event)


AGGREGATES = frozenset({"trading-day", "capture"})
COUNTS = Projection("counts", 1, AGGREGATES, _count)


async def follow_once(journal: Any, store: RowStore, projection: Projection = COUNTS) -> Stamp:
    """What a live projector does with all there is now."""
    stamp = await store.current(projection.name)
    assert stamp is not None
    folder = Folder(projection, store, stamp)
    async for batch in journal.replay(after=stamp.position):
        await folder.apply(decode_events(batch, CATALOGUE, projection.aggregates), batch[-1].position)
    return folder.stamp


@pytest.fixture
async def redis_store(cache_url: str, fresh_env: str) -> AsyncIterator[RedisRowStore]:
    opened = RedisRowStore(cache_url, fresh_env, random=system_random)
    yield opened
    await opened.clear()
    await opened.close()


async def test_the_first_build_and_a_rebuild_of_the_same(story: Any, store: RowStore) -> None:
    for _ in range(5):
        story.day(trading_day.Activated())
    first = await rebuild(story.journal, store, COUNTS)
    assert (first.outcome, first.before, first.after.position, first.after.rows) == ("swapped", None, 5, 2)
    story.day(trading_day.Activated())
    live = await follow_once(story.journal, store)
    again = await rebuild(story.journal, store, COUNTS)
    assert (again.outcome, again.before) == ("swapped", live)
    assert again.after == live._replace(generation=again.after.generation)
    assert await store.generations("counts") == {"current": again.after, "previous": live}
    assert (await verify(story.journal, store, COUNTS)).is_good


async def test_a_wrong_fold_of_the_same_version_diverges_and_is_not_swapped(story: Any, store: RowStore) -> None:
    for _ in range(5):
        story.day(trading_day.Activated())
    await rebuild(story.journal, store, COUNTS)
    live = await store.current("counts")
    wrong = Projection("counts", 1, AGGREGATES, _count_wrongly)
    outcome = await rebuild(story.journal, store, wrong)
    assert (outcome.outcome, outcome.before) == ("diverged", live)
    assert await store.current("counts") == live
    newer = await rebuild(story.journal, store, Projection("counts", 2, AGGREGATES, _count_wrongly))
    assert newer.outcome == "swapped"
    assert newer.after.digest != newer.before.digest  # type: ignore[union-attr]


async def test_verify_finds_rows_that_were_changed_and_folds_that_were_wrong(story: Any, store: RowStore) -> None:
    for _ in range(5):
        story.day(trading_day.Activated())
    await rebuild(story.journal, store, Projection("counts", 1, AGGREGATES, _count_wrongly))
    wrong = await verify(story.journal, store, COUNTS)
    assert (wrong.is_good, wrong.stamp.digest == wrong.rows_digest) == (False, True)
    stamp = await store.current("counts")
    assert stamp is not None
    # Somebody writes a row and leaves the digest as it was.
    await store.commit(stamp, Changes({"left": b'{"events":9,"position":9}'}, (), (), stamp.position, stamp.digest, 0))
    changed = await verify(story.journal, store, Projection("counts", 1, AGGREGATES, _count_wrongly))
    assert (changed.stamp.digest == changed.journal_digest, changed.stamp.digest == changed.rows_digest) == (True, False)
    with pytest.raises(Unavailable, match="nothing-here"):
        await verify(story.journal, store, Projection("nothing-here", 1, AGGREGATES, _count))


async def test_an_event_that_cannot_be_folded_stops_a_rebuild_and_says_where(story: Any, store: RowStore) -> None:
    story.day(trading_day.Activated())
    story.journal.put("t.journal.trading-day.2026-05-14", b"\xff not an event")
    with pytest.raises(Malformed, match="counts cannot fold the event at journal position 2"):
        await rebuild(story.journal, store, COUNTS)
    assert await store.current("counts") is None


async def test_live_an_event_that_cannot_be_folded_is_passed_over_and_recorded(story: Any, store: RowStore) -> None:
    def fails_at_two(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
        _count(rows, recorded, event)
        if recorded.position == 2:
            raise KeyError("two")

    story.day(trading_day.Activated())
    story.day(trading_day.Activated())
    story.journal.put("t.journal.trading-day.2026-05-14", b"\xff not an event")
    story.journal.put("t.journal.listing.kalshi.X", b"not for this projection")
    story.day(trading_day.Activated())
    await store.swap(await store.begin("counts", 1), None)
    stamp = await follow_once(story.journal, store, Projection("counts", 1, AGGREGATES, fails_at_two))
    assert (stamp.position, stamp.skipped) == (5, 2)
    rows = (await store.read("counts", prefixes=[""])).rows
    assert decode_row(rows["left"], Count) == Count(2, 5)
    poison = [msgspec.json.decode(value) for key, value in rows.items() if key.startswith("poison/")]
    assert [(one["position"], one["type"], one["aggregate"], one["reason"].partition(":")[0]) for one in poison] == [
        (2, "trading-day.activated.v1", "trading-day/2026-05-14", "KeyError"),
        (3, "", "trading-day", "not an event envelope"),
    ]


async def test_a_rebuild_without_the_omission_is_no_divergence(story: Any, store: RowStore) -> None:
    """A view that passed an event over differs for a known reason: a program that can fold it takes its place."""

    def fails(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
        raise ValueError("not in this build")

    story.day(trading_day.Activated())
    await rebuild(story.journal, store, Projection("counts", 1, AGGREGATES, fails), is_strict=False)
    assert (await store.current("counts")).skipped == 1  # type: ignore[union-attr]
    outcome = await rebuild(story.journal, store, COUNTS)
    assert (outcome.outcome, outcome.after.skipped, outcome.after.rows) == ("swapped", 0, 2)


async def test_a_stored_row_of_another_shape_is_no_poison(story: Any, store: RowStore) -> None:
    story.day(trading_day.Activated())
    change = Changes({"left": b'{"events":"many"}'}, ("left",), (), 0, "0" * 64, 0)
    stamp = await store.commit(await store.begin("counts", 1), change)
    (batch,) = [batch async for batch in story.journal.replay()]
    with pytest.raises(RowDamaged, match="no Count"):
        await Folder(COUNTS, store, stamp).apply(decode_events(batch, CATALOGUE, AGGREGATES), 1)


async def test_a_journal_that_lost_its_tail_is_rebuilt_as_it_is_and_says_so(story: Any, store: RowStore) -> None:
    for _ in range(5):
        story.day(trading_day.Activated())
    await rebuild(story.journal, store, COUNTS)
    shorter = type(story)()
    for _ in range(3):
        shorter.day(trading_day.Activated())
    outcome = await rebuild(shorter.journal, store, COUNTS)
    assert (outcome.outcome, outcome.is_regressed, outcome.after.position) == ("swapped", True, 3)


async def test_of_two_rebuilds_at_once_one_ends_in_conflict_and_the_view_is_whole(
    story: Any, redis_store: RedisRowStore
) -> None:
    for _ in range(3000):
        story.day(trading_day.Activated())
    results = await asyncio.gather(
        *(rebuild(story.journal, redis_store, COUNTS, batch_events=100) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "Rebuilt"]
    current = await redis_store.current("counts")
    expected = await (await fold_in_memory(story.journal, [COUNTS])).current("counts")
    assert current is not None
    assert expected is not None
    assert current == expected._replace(generation=current.generation)


class Fire:
    """A writer, a live projector and a reader that never stops, around one store."""

    def __init__(self, story: Any, store: RowStore) -> None:
        self.story = story
        self.store = store
        self.stop = asyncio.Event()
        self.seen: list[tuple[int, str]] = []

    async def write(self) -> None:
        while not self.stop.is_set():
            for _ in range(5):
                self.story.day(trading_day.Activated())
            await asyncio.sleep(0.004)

    async def project(self) -> None:
        while not self.stop.is_set():
            stamp = await self.store.current("counts")
            assert stamp is not None
            try:
                await follow_once(self.story.journal, self.store, Projection("counts", stamp.version, AGGREGATES, _count))
            except Conflict:
                continue
            await asyncio.sleep(0)

    async def read(self) -> None:
        while not self.stop.is_set():
            page = await self.store.read("counts", keys=["left", "right"])
            counts = {decode_row(value, Count) for value in page.rows.values()}
            # The story has only events that count: a view at position P has counted P of them, in both rows.
            assert counts == ({Count(page.stamp.position, page.stamp.position)} if page.stamp.position else set())
            self.seen.append((page.stamp.position, page.stamp.generation))
            await asyncio.sleep(0)

    async def until_read(self, generation: str) -> None:
        while not self.seen or self.seen[-1][1] != generation:
            await asyncio.sleep(0.001)


async def test_rebuilds_under_fire_show_readers_old_or_new_and_never_go_back(story: Any, redis_store: RedisRowStore) -> None:
    """Twenty rebuilds of alternating versions at about 1,000 events/s."""
    await rebuild(story.journal, redis_store, COUNTS)
    fire = Fire(story, redis_store)
    async with asyncio.timeout(30):
        tasks = [asyncio.create_task(work) for work in (fire.write(), fire.project(), fire.read())]
        for number in range(20):
            await asyncio.sleep(0.02)
            projection = Projection("counts", 1 + number % 2, AGGREGATES, _count)
            outcome = await rebuild(story.journal, redis_store, projection, swap_seconds=10)
            assert outcome.outcome == "swapped"
            await fire.until_read(outcome.after.generation)
        fire.stop.set()
        await asyncio.gather(*tasks)
    positions = [position for position, _ in fire.seen]
    assert positions == sorted(positions)
    assert len({generation for _, generation in fire.seen}) in {20, 21}


async def test_a_cache_flushed_at_every_step_of_a_rebuild_never_shows_a_mixture(story: Any, redis_store: RedisRowStore) -> None:
    """All keys go away after each step in turn: the rebuild ends in Conflict or swaps a whole view, never a part of one."""
    for _ in range(30):
        story.day(trading_day.Activated())
    outcomes = []
    for step in range(12):
        await redis_store.clear()
        store = FlushedAfter(redis_store, step)
        try:
            await rebuild(story.journal, store, COUNTS, batch_events=10)
            outcomes.append("swapped")
        except Conflict:
            outcomes.append("conflict")
        current = await redis_store.current("counts")
        if current is not None:
            assert (await verify(story.journal, redis_store, COUNTS)).is_good
        again = await rebuild(story.journal, redis_store, COUNTS)
        assert (again.outcome, again.after.position) == ("swapped", 30)
    assert set(outcomes) == {"swapped", "conflict"}


class FlushedAfter:
    """A store whose server loses everything after the `step`-th call."""

    def __init__(self, store: RedisRowStore, step: int) -> None:
        self._store = store
        self._left = step

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **keywords: Any) -> Any:
            result = await getattr(self._store, name)(*args, **keywords)
            if self._left == 0:
                await self._store.clear()
            self._left -= 1
            return result

        return call


async def test_views_of_a_real_fold_are_equal_in_memory_and_on_a_server(story: Any, redis_store: RedisRowStore) -> None:
    story.connect(7, NOON)
    story.day(trading_day.StartRequested("2026-05-14", "é"))
    story.capture(capture.ClockStepped(7, 2, 0, NOON, -5))
    await rebuild(story.journal, redis_store, DAYS)
    memory = MemoryRowStore()
    await rebuild(story.journal, memory, DAYS)
    found, expected = [await one.read("days", prefixes=[""]) for one in (redis_store, memory)]
    assert found.rows == expected.rows
    assert found.stamp._replace(generation="") == expected.stamp._replace(generation="")
