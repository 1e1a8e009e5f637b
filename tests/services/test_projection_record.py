"""Rebuilds, swaps, rollbacks and omissions are events; a diverged fold is one too, and is not put in place."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import Envelope, encode_envelope
from ssmd.identifiers import system_random
from ssmd.projections import queries
from ssmd.projections.projection import Projection, Rows, row_key
from ssmd.projections.rebuild import Rebuilt
from ssmd.projections.store_memory import MemoryRowStore
from ssmd.projections.views import PROJECTIONS, fold_views
from ssmd.services.projection_record import ProjectionRecord
from ssmd.services.projector import ProjectorService, ProjectorSettings
from ssmd.streams.journal import PoisonEvent, RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal

DATE = "2026-05-14"
NOON = 1_778_760_000_000_000_000
DAY = frozenset({"trading-day"})


class Count(msgspec.Struct, frozen=True):
    events: int


def _count(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    del recorded, event
    before = rows.get(row_key("n"), Count) or Count(0)
    rows.put(row_key("n"), Count(before.events + 1))


def _count_double(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    _count(rows, recorded, event)
    _count(rows, recorded, event)


COUNTS = Projection("counts", 1, DAY, _count)


def told(journal: MemoryJournal, event: msgspec.Struct, version: int) -> None:
    data = msgspec.to_builtins(event)
    data.pop("type")
    envelope = Envelope(
        f"e{version}",
        tag_of(event),
        "trading-day",
        DATE,
        version,
        NOON,
        "cli:anna",
        "",
        "",
        "",
        msgspec.Raw(msgspec.json.encode(data)),
    )
    journal.put(f"t.journal.trading-day.{DATE}", encode_envelope(envelope))


def journal_of(count: int) -> MemoryJournal:
    journal = MemoryJournal("t")
    for version in range(1, count + 1):
        told(journal, trading_day.Activated(), version)
    return journal


def record_of(journal: MemoryJournal) -> ProjectionRecord:
    return ProjectionRecord(Application(journal, CATALOGUE, ManualClock(NOON), system_random), "cli:anna")


async def events_of(journal: MemoryJournal, kind: str) -> list[Any]:
    messages = [message async for batch in journal.replay(filters=[kind]) for message in batch]
    assert not any(isinstance(message, PoisonEvent) for message in messages)
    return [CATALOGUE.decode(one.envelope.type, one.envelope.data) for one in messages if isinstance(one, RecordedEvent)]


async def test_a_rebuild_is_told_before_and_after_its_swap_and_a_new_version_says_that_it_differs() -> None:
    journal, store = journal_of(3), MemoryRowStore()
    record = record_of(journal)
    first = await record.rebuild(journal, store, COUNTS)
    second = await record.rebuild(journal, store, Projection("counts", 2, DAY, _count_double))
    told_events = await events_of(journal, "projection")
    assert [tag_of(event) for event in told_events] == [
        "projection.rebuilt.v1",
        "projection.swapped.v1",
        "projection.rebuilt.v1",
        "projection.swapped.v1",
    ]
    before, swap, after, last = told_events
    assert (before.before, before.is_different, before.made.position) == (None, False, 3)
    assert (swap.generation, swap.previous) == (first.after.generation, "")
    assert (after.before.generation, after.is_different, after.made.version) == (first.after.generation, True, 2)
    assert (last.generation, last.previous) == (second.after.generation, first.after.generation)


async def test_a_wrong_fold_is_an_event_and_readers_keep_what_they_have() -> None:
    journal, store = journal_of(3), MemoryRowStore()
    record = record_of(journal)
    await record.rebuild(journal, store, COUNTS)
    live = await store.current("counts")
    outcome = await record.rebuild(journal, store, Projection("counts", 1, DAY, _count_double))
    assert (outcome.outcome, await store.current("counts")) == ("diverged", live)
    last = (await events_of(journal, "projection"))[-1]
    assert tag_of(last) == "projection.diverged.v1"
    assert last.made.digest != last.before.digest
    assert last.before.generation == live.generation  # type: ignore[union-attr]


async def test_a_rollback_is_told_with_its_reason_and_what_it_replaced() -> None:
    journal, store = journal_of(3), MemoryRowStore()
    record = record_of(journal)
    first = await record.rebuild(journal, store, COUNTS)
    second = await record.rebuild(journal, store, COUNTS)
    assert await record.rollback(store, "counts", "wrong totals") == first.after
    last = (await events_of(journal, "projection"))[-1]
    assert (last.generation, last.replaced, last.reason) == (first.after.generation, second.after.generation, "wrong totals")


async def test_a_swap_nobody_had_time_to_tell_is_told_once() -> None:
    journal, store = journal_of(1), MemoryRowStore()
    stamp = await store.begin("counts", 1)
    await store.swap(stamp, None)
    await record_of(journal).compared(Rebuilt("counts", "swapped", None, stamp._replace(rows=1)))
    for _ in range(2):
        await record_of(journal).swapped(stamp)
    rebuilt, swapped = await events_of(journal, "projection")
    assert (rebuilt.made.generation, swapped.generation) == (stamp.generation, stamp.generation)


class CountingJournal(MemoryJournal):
    """Counts its readings."""

    readings = 0

    def replay(self, *, after: int = 0, until: int | None = None, filters: Sequence[str] = ()) -> Any:
        self.readings += 1
        return super().replay(after=after, until=until, filters=filters)


async def test_a_fresh_environment_has_nothing_to_tell_of_its_views() -> None:
    journal, store = MemoryJournal("t"), MemoryRowStore()
    for _ in range(2):
        service = ProjectorService(journal, store, None, random=system_random, record=record_of(journal))
        await _flushed(service)
    assert await journal.head() == 0
    assert [one.name for one in PROJECTIONS if await store.current(one.name) is None] == []


async def test_views_that_are_not_there_are_built_by_one_reading_and_told_of_where_they_have_rows() -> None:
    journal, store = CountingJournal("t"), MemoryRowStore()
    told(journal, trading_day.Activated(), 1)
    service = ProjectorService(journal, store, None, random=system_random, record=record_of(journal))
    await _flushed(service)
    assert journal.readings == 1
    told_of = [
        message.envelope.aggregate_id
        async for batch in journal.replay(filters=["projection"])
        for message in batch
        if isinstance(message, RecordedEvent)
    ]
    with_rows = [one.name for one in PROJECTIONS if (stamp := await store.current(one.name)) and stamp.rows]
    assert sorted(told_of) == sorted([*with_rows, *with_rows])
    assert with_rows


async def _flushed(service: ProjectorService) -> None:
    task = asyncio.create_task(service.run())
    try:
        await service.flush()
    finally:
        await service.stop()
        await task


@pytest.mark.parametrize("is_told_at_once", [True, False])
async def test_an_event_passed_over_is_a_dead_letter_once_and_closed_when_folded_after_all(
    is_told_at_once: bool,
) -> None:
    journal, store = journal_of(1), MemoryRowStore()
    record = record_of(journal) if is_told_at_once else None
    settings = ProjectorSettings(standby_s=0.05, head_s=0.05, retry_max_s=0.1)
    for record_now in (record, record_of(journal)):
        service = ProjectorService(journal, store, None, random=system_random, settings=settings, record=record_now)
        task = asyncio.create_task(service.run())
        await service.flush()
        if record_now is record:
            journal.put(f"t.journal.trading-day.{DATE}", b"nonsense")
            told(journal, trading_day.EndRequested("later"), 2)
        await service.flush()
        async with asyncio.timeout(60):
            while record_now is not None and not await events_of_poisoned(journal):
                await asyncio.sleep(0.01)
        await service.stop()
        await asyncio.wait_for(task, 60)
    views = await fold_views(journal)
    (letter,) = await queries.dead_letters(views)
    assert (letter.component, letter.source, letter.subject) == ("projector", "journal", "trading-day")
    assert letter.id == f"days-{letter.message_position}"
    assert letter.reason.startswith("not an event envelope")
    assert {skipped for name, skipped in views.skipped.items() if name != "days"} == {0}
    assert views.skipped["days"] == 1
    # A program that can read it: the journal in which those bytes are an event is told here by one without them.
    days = next(one for one in PROJECTIONS if one.name == "days")
    mended = MendedJournal(journal)
    await record_of(journal).rebuild(mended, store, days)
    (closed,) = await queries.dead_letters(await fold_views(journal), is_open=False)
    assert (closed.status, closed.closed_why) == ("replayed", "rebuild of days")


async def events_of_poisoned(journal: MemoryJournal) -> list[Any]:
    return await events_of(journal, "dead-letter")


class MendedJournal:
    """The same journal for a program that understands every message."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def replay(self, **options: Any) -> Any:
        async for batch in self._journal.replay(**options):
            kept = [message for message in batch if isinstance(message, RecordedEvent)]
            if kept:
                yield kept


async def test_omissions_of_the_record_itself_are_not_recorded_without_end() -> None:
    """A fold that cannot take dead letters makes no dead letters of them."""

    def fails(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
        raise ValueError("not in this build")

    journal, store = journal_of(1), MemoryRowStore()
    broken = Projection("broken", 1, frozenset({"trading-day", "dead-letter", "projection"}), fails)
    settings = ProjectorSettings(standby_s=0.05, head_s=0.02, retry_max_s=0.1)
    service = ProjectorService(
        journal, store, None, random=system_random, projections=[broken], settings=settings, record=record_of(journal)
    )
    task = asyncio.create_task(service.run())
    await service.flush()
    told(journal, trading_day.Activated(), 2)
    for _ in range(5):
        await service.flush()
        await asyncio.sleep(0.05)
    await service.stop()
    await asyncio.wait_for(task, 60)
    assert len(await events_of(journal, "dead-letter")) == 2
    assert service.health().ok is False
