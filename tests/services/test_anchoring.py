"""Anchors: taken at seals and by time, and a journal that lost or changed its end is found with the range."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from ssmd.clock import ManualClock
from ssmd.domain import archive, trading_day
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import AggregateId, Envelope, encode_envelope
from ssmd.errors import Malformed
from ssmd.identifiers import system_random
from ssmd.projections.journal_guard import Latest, check_latest, decode_latest, latest_key
from ssmd.projections.store_memory import MemoryRowStore
from ssmd.services.anchoring import Anchoring
from ssmd.services.projector import ProjectorService, ProjectorSettings
from ssmd.streams.journal_anchor import Anchor, RollingDigest, anchor_key, decode_anchor
from ssmd.streams.journal_memory import MemoryJournal

NOON = 1_778_760_000_000_000_000
SEAL = archive.SegmentSealed("a1", 1, 2, "m", (), ())


class Objects(dict[str, bytes]):
    async def put(self, key: str, data: bytes) -> None:
        self[key] = data

    async def get(self, key: str) -> bytes | None:  # type: ignore[override]
        return dict.get(self, key)


def tell(journal: MemoryJournal, event: msgspec.Struct, number: int) -> None:
    kind = tag_of(event).partition(".")[0]
    aggregate = AggregateId(kind, ("2026-05-14",) if kind == "trading-day" else ("kalshi", "2026-05-14", "raw", "main"))
    data = msgspec.Raw(msgspec.json.encode(event))
    envelope = Envelope(f"e{number}", tag_of(event), kind, aggregate.key, number, NOON, "t", "", "", "", data)
    journal.put(f"t.journal.{kind}.{aggregate.key}", encode_envelope(envelope))


def journal_of(count: int, *, odd: int = 0) -> MemoryJournal:
    """`odd`: the event that is another one than in all other journals."""
    journal = MemoryJournal("t")
    for number in range(1, count + 1):
        tell(journal, trading_day.EndRequested("odd") if number == odd else trading_day.Activated(), number)
    return journal


async def anchored(journal: MemoryJournal, objects: Objects, until: int, *, anchor_s: float) -> None:
    anchoring = Anchoring("t", journal, objects, ManualClock(NOON), anchor_s=anchor_s)
    task = asyncio.create_task(anchoring.run())
    try:
        async with asyncio.timeout(60):
            while anchoring.position < until and not task.done():
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def expected_digest(journal: MemoryJournal) -> str:
    digest = RollingDigest("t")
    async for batch in journal.replay():
        for message in batch:
            digest.add(message)
    return digest.sha256


async def test_an_anchor_is_taken_at_a_seal_and_goes_on_after_a_restart() -> None:
    journal, objects = journal_of(5), Objects()
    tell(journal, SEAL, 1)
    await anchored(journal, objects, 6, anchor_s=3600)
    first = decode_anchor(objects[anchor_key("t", 6)])
    assert first == Anchor(6, await expected_digest(journal), NOON)
    for number in range(6, 9):
        tell(journal, trading_day.Activated(), number)
    tell(journal, SEAL, 2)
    await anchored(journal, objects, 10, anchor_s=3600)
    second = decode_anchor(objects[anchor_key("t", 10)])
    assert second.sha256 == await expected_digest(journal)
    assert decode_latest(objects[latest_key("t")]) == Latest(first, second)
    await check_latest(journal, "t", Latest(first, second))


async def test_an_anchor_is_taken_when_it_is_time_and_there_is_something_new() -> None:
    journal, objects = journal_of(3), Objects()
    await anchored(journal, objects, 3, anchor_s=0.01)
    assert sorted(objects) == [latest_key("t"), anchor_key("t", 3)] or sorted(objects) == [anchor_key("t", 3), latest_key("t")]


@pytest.mark.parametrize(
    ("journal", "words"),
    [
        (journal_of(4), "ends at position 4, an anchor was taken at 6: events 5..6 are lost"),
        (journal_of(6, odd=5), "off its anchor at 6: events 1..6 are not those that were folded"),
        (journal_of(9, odd=2), "off its anchor at 6: events 1..6 are not those that were folded"),
    ],
)
async def test_a_journal_that_lost_or_changed_its_end_stops_the_projector_with_the_range(journal: Any, words: str) -> None:
    objects = Objects()
    await anchored(journal_of(6), objects, 6, anchor_s=0.01)
    latest = decode_latest(objects[latest_key("t")])
    with pytest.raises(Malformed, match=words):
        await check_latest(journal, "t", latest)
    settings = ProjectorSettings(head_s=0.05, retry_max_s=0.05)
    anchoring = Anchoring("t", journal, objects, ManualClock(NOON))
    service = ProjectorService(journal, MemoryRowStore(), None, random=system_random, settings=settings, anchoring=anchoring)
    task = asyncio.create_task(service.run())
    async with asyncio.timeout(60):
        while words not in service.health().reason:
            await asyncio.sleep(0.005)
    await service.stop()
    await asyncio.wait_for(task, 60)
    assert [key for key in objects if key.startswith("anchors/")] == [anchor_key("t", 6)]
