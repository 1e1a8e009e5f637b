"""Manifests: what they say, when they change, and that they are always what the view says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from ssmd.archive.storage_memory import MemoryStorage
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Unavailable
from ssmd.projections.folder import Folder, decode_events
from ssmd.projections.manifest_sink import ManifestSink
from ssmd.projections.manifests import MANIFESTS
from ssmd.projections.rebuild import rebuild
from ssmd.projections.store import RowStore

SECOND = 1_000_000_000
NOON = 1_778_760_000 * SECOND
MIDNIGHT = NOON + 43_200 * SECOND
RAW = "raw/t/kalshi/2026/05/14/manifest.json"
TRADE = "normalized/t/kalshi/market%3A1/trade/m3/2026/05/14/manifest.json"
NEXT_RAW = "raw/t/kalshi/2026/05/15/manifest.json"


async def manifests_of(story: Any, store: RowStore) -> dict[str, Any]:
    """All manifests by key, written from nothing."""
    objects = MemoryStorage()
    await rebuild(story.journal, store, MANIFESTS)
    await ManifestSink(store, objects).reconcile()
    return {key: json.loads(await objects.get(key) or b"") async for key in objects.list()}


async def test_a_manifest_says_it_all(story: Any, store: RowStore, segment: Any) -> None:
    story.connect(7, NOON)
    story.archive(archive.Opened(1, "host-1"), ts_ns=NOON + 1)
    story.now_ns = NOON + 2
    story.seal(1, 5, segment(records=10))
    story.now_ns = NOON + 3
    story.seal(6, 9, segment(number=6, records=5, first_ns=NOON + 20 * SECOND))
    story.open_gap("g1", NOON + SECOND, ("KX-B", "KX-A"))
    story.close_gap("g1", NOON + SECOND, NOON + 2 * SECOND)
    last = story.archive(archive.Completed("day-mark", 2, 15, 1500))
    (manifest,) = (await manifests_of(story, store)).values()
    first, second = manifest.pop("segments")
    assert manifest == {
        "manifest_version": 1,
        "feed": "kalshi",
        "date": "2026-05-14",
        "data_type": "raw",
        "kind": "raw",
        "schema_version": "",
        "mapper_version": None,
        "status": "complete",
        "record_count": 15,
        "byte_size": 1500,
        "first_timestamp": NOON,
        "last_timestamp": NOON + 21 * SECOND,
        "gaps": [
            {
                "gap_id": "g1",
                "connection": "main",
                "session": 7,
                "cause": "sequence-jump",
                "evidence": "seq 9 after 4",
                "channel": "orderbook_delta",
                "start_ns": NOON + SECOND,
                "end_ns": NOON + 2 * SECOND,
                "tickers": ["KX-A", "KX-B"],
            }
        ],
        "quality_score": None,
        "connector_version": "0.1.0",
        "created_at": NOON + 2,
        "partitions": {"main": "complete"},
        "config_commit": "c0ffee",
        "journal_position": last,
        "pruned_segments": 0,
        "mapper_versions": [],
        "renormalized": {},
    }
    assert first == {
        "name": "main-a1-00000000000000000001-00000000000000000001.jsonl.zst",
        "partition": "main",
        "incarnation": "a1",
        "first_seq": 1,
        "last_seq": 5,
        "record_count": 10,
        "byte_size": 1000,
        "sha256": f"{1:064x}",
        "content_bytes": 4000,
        "content_sha256": f"{2:064x}",
        "ts_recv_first_ns": NOON,
        "ts_recv_last_ns": NOON + SECOND,
    }
    assert (second["first_seq"], second["record_count"]) == (6, 5)


async def test_keys_are_sorted_and_the_text_ends_in_one_newline(story: Any, store: RowStore, segment: Any) -> None:
    story.seal(1, 5, segment("trade"), type_="normalized")
    objects = MemoryStorage()
    await rebuild(story.journal, store, MANIFESTS)
    await ManifestSink(store, objects).reconcile()
    text = (await objects.get(TRADE) or b"").decode()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    manifest = json.loads(text)
    assert (manifest["kind"], manifest["schema_version"], manifest["mapper_version"]) == ("trade", "market:1", 3)


async def test_a_day_is_complete_when_every_partition_is(story: Any, store: RowStore, segment: Any) -> None:
    story.seal(1, 5, segment())
    story.archive(archive.Opened(1, "host-1"), partition="second")
    story.archive(archive.Completed("day-mark", 1, 10, 1000))
    manifest = (await manifests_of(story, store))[RAW]
    assert (manifest["status"], manifest["partitions"]) == ("open", {"main": "complete", "second": "open"})
    story.seal(1, 4, segment(partition="second"), partition="second")
    last = story.archive(archive.Completed("declared-dead", 1, 10, 1000), partition="second")
    manifest = (await manifests_of(story, store))[RAW]
    assert (manifest["status"], manifest["journal_position"], manifest["record_count"]) == ("complete", last, 20)
    last = story.archive(archive.Reopened("late-data"))
    manifest = (await manifests_of(story, store))[RAW]
    assert (manifest["status"], manifest["journal_position"]) == ("open", last)


async def test_a_gap_is_in_the_manifest_of_every_date_it_touches(story: Any, store: RowStore, segment: Any) -> None:
    story.seal(1, 5, segment())
    story.seal(6, 9, segment(date="2026-05-15", first_ns=MIDNIGHT), date="2026-05-15")
    opened = story.open_gap("g1", NOON)
    found = await manifests_of(story, store)
    assert [(found[key]["gaps"][0]["end_ns"], found[key]["journal_position"]) for key in (RAW, NEXT_RAW)] == [
        (None, opened)
    ] * 2
    # It ends on the first day: the second one never had it.
    closed = story.close_gap("g1", NOON, NOON + 5)
    found = await manifests_of(story, store)
    assert [len(found[key]["gaps"]) for key in (RAW, NEXT_RAW)] == [1, 0]
    assert [found[key]["journal_position"] for key in (RAW, NEXT_RAW)] == [closed, closed]


async def test_a_version_told_after_the_first_seal_is_filled_in(story: Any, store: RowStore, segment: Any) -> None:
    story.seal(1, 5, segment())
    assert (await manifests_of(story, store))[RAW]["connector_version"] == ""
    position = story.connect(7, NOON, version="0.3.0")
    manifest = (await manifests_of(story, store))[RAW]
    assert (manifest["connector_version"], manifest["journal_position"]) == ("0.3.0", position)


async def test_event_by_event_writes_the_same_bytes_as_all_at_once(story: Any, store: RowStore, segment: Any) -> None:
    story.seal(1, 5, segment())
    story.connect(7, NOON)
    story.open_gap("g1", NOON, ("KX-A", "KX-B"))
    story.seal(1, 5, segment("trade"), segment("book"), type_="normalized")
    story.close_gap("g1", NOON, NOON + 1, ("KX-A",))
    story.seal(6, 9, segment(date="2026-05-15", first_ns=MIDNIGHT), date="2026-05-15")
    story.close_gap("g1", NOON, MIDNIGHT + 1, ("KX-B",))
    story.archive(archive.Completed("day-mark", 1, 10, 1000))
    live = MemoryStorage()
    await store.swap(await store.begin("manifests", 1), None)
    sink = ManifestSink(store, live)
    stamp = await store.current("manifests")
    assert stamp is not None
    folder = Folder(MANIFESTS, store, stamp)
    async for batch in story.journal.replay():
        for message in batch:
            changes = await folder.apply(decode_events([message], CATALOGUE, MANIFESTS.aggregates), message.position)
            assert changes is not None
            sink.note(changes)
            await sink.write_pending()
    rebuilt = MemoryStorage()
    await rebuild(story.journal, store, MANIFESTS)
    assert await ManifestSink(store, rebuilt).reconcile() == 4
    assert [await live.get(key) for key in sorted([key async for key in live.list()])] == [
        await rebuilt.get(key) async for key in rebuilt.list()
    ]
    assert await sink.reconcile() == 0
    await live.delete(RAW)
    await live.put(TRADE, b"tampered")
    assert await sink.reconcile() == 2
    assert await live.get(TRADE) == await rebuilt.get(TRADE)


async def test_what_cannot_be_written_stays_pending(story: Any, store: RowStore, segment: Any) -> None:
    story.seal(1, 5, segment())
    await store.swap(await store.begin("manifests", 1), None)
    stamp = await store.current("manifests")
    assert stamp is not None
    objects = MemoryStorage()
    sink = ManifestSink(store, objects)
    (batch,) = [batch async for batch in story.journal.replay()]
    changes = await Folder(MANIFESTS, store, stamp).apply(decode_events(batch, CATALOGUE, MANIFESTS.aggregates), 1)
    assert changes is not None
    sink.note(changes)
    objects.is_away = True
    with pytest.raises(Unavailable):
        await sink.write_pending()
    assert sink.pending == 1
    objects.is_away = False
    assert await asyncio.wait_for(sink.write_pending(), 30) == 1
    assert (sink.pending, sink.written) == (0, 1)


async def test_a_seal_of_files_elsewhere_is_passed_over(story: Any, store: RowStore, segment: Any) -> None:
    story.seal(1, 5, msgspec.structs.replace(segment(), key="../../etc/passwd"))
    await rebuild(story.journal, store, MANIFESTS, is_strict=False)
    stamp = await store.current("manifests")
    assert stamp is not None
    assert (stamp.skipped, stamp.rows) == (1, 1)
