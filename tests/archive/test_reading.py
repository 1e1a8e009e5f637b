"""Reading back: what was archived, all of it, in order; and what is not whole is told, not skipped."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.archive.ordering import merge
from ssmd.archive.reading import (
    Wanted,
    Window,
    chains,
    count_chains,
    raw_content,
    raw_lines,
    record_contents,
    records,
)
from ssmd.archive.shelf_manifest import KINDS, ArchivedSegment, raw_shelf, read_manifest, record_shelf
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.archive.versions import Placed
from ssmd.errors import Malformed, Rejected
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.codecs import decode_records, encode_record, find_records, whole_messages
from ssmd.schemas.control import Connected, Disconnected, PreviousSession, encode_fact
from ssmd.schemas.raw_line import RawLine, read_lines
from ssmd.schemas.records import KIND_OF, BookDelta, Record, Side, SizeMeaning

ENV, FEED, DATE = "test", "kalshi", "2026-05-14"
WANTED = Wanted(ENV, FEED, DATE, KalshiMapper.version)


def by_time(record: Record) -> tuple[int, ...]:
    return record.ts_recv_ns, record.session, record.n, record.index


async def all_of(batches: AsyncIterator[Sequence[Any]]) -> list[Any]:
    return [item for batch in [batch async for batch in batches] for item in batch]


@pytest.fixture
async def world(make_world: Any) -> Any:
    """Three sessions of one connection and, at the same time, none of another."""
    made = make_world()
    for _ in range(3):
        await made.session()
    await made.complete()
    return made


async def test_a_days_lines_come_back_in_order(world: Any) -> None:
    assert await all_of(raw_lines(world.storage, raw_shelf(ENV, FEED, DATE))) == world.lines
    content = b"".join([piece async for piece in raw_content(world.storage, raw_shelf(ENV, FEED, DATE))])
    assert content.count(b"\n") == len(world.lines)
    assert await count_chains(world.storage, raw_shelf(ENV, FEED, DATE)) == 1


async def test_a_days_records_come_back_in_order(world: Any) -> None:
    assert {KIND_OF[type(record)] for record in world.records} == {"book", "gap", "snapshot", "trade"}
    found = await all_of(records(world.storage, WANTED))
    assert found == sorted(world.records, key=by_time)
    trades = await all_of(records(world.storage, WANTED._replace(kinds=("trade",))))
    assert trades == [record for record in found if KIND_OF[type(record)] == "trade"]


async def test_records_of_a_ticker_are_those_with_its_name_and_gaps_of_all(world: Any) -> None:
    everything = sorted(world.records, key=by_time)
    found = await all_of(records(world.storage, WANTED._replace(tickers=frozenset({"B.2"}))))
    assert found == [record for record in everything if record.ticker in {"B.2", "*"}]
    assert {KIND_OF[type(record)] for record in found} == {"book", "gap", "snapshot", "trade"}
    many = frozenset({"B.2", *(f"other-{number}" for number in range(9))})
    assert await all_of(records(world.storage, WANTED._replace(tickers=many))) == found
    assert await all_of(records(world.storage, WANTED._replace(tickers=frozenset({"B"})))) == []


async def test_a_window_has_its_start_and_not_its_end(world: Any) -> None:
    everything = sorted(world.records, key=by_time)
    window = Window(everything[40].ts_recv_ns, everything[333].ts_recv_ns)
    expected = [record for record in everything if window.start_ns <= record.ts_recv_ns < window.end_ns]
    assert await all_of(records(world.storage, WANTED._replace(window=window))) == expected
    lines = [line for line in world.lines if window.start_ns <= line.entry.ts_recv_ns < window.end_ns]
    assert await all_of(raw_lines(world.storage, raw_shelf(ENV, FEED, DATE), window)) == lines


async def test_connections_are_merged_by_receive_time(make_world: Any) -> None:
    world = make_world()
    start = world.ts
    await world.session(connection="east")
    world.ts = start + 5_000  # the other one captures meanwhile
    await world.session(connection="west", tickers=("C",))
    await world.complete()
    lines = await all_of(raw_lines(world.storage, raw_shelf(ENV, FEED, DATE)))
    assert lines == sorted(world.lines, key=lambda line: (line.entry.ts_recv_ns, line.session, line.entry.n))
    assert {line.connection for line in lines[:50]} == {"east", "west"}
    assert await all_of(records(world.storage, WANTED)) == sorted(world.records, key=by_time)
    assert await count_chains(world.storage, raw_shelf(ENV, FEED, DATE)) == 2


async def test_what_was_filled_in_later_stands_where_it_belongs(make_world: Any) -> None:
    world = make_world()
    session = world.ts
    entries = world.entries("main", 200, ("A",))
    await world.write("main", session, entries[:50])
    await world.write("main", session, entries[120:])
    late = entries[50:120]
    await world._segment("main", session, DATE, late, 9, _Nothing())
    await world.complete()
    lines: list[RawLine] = await all_of(raw_lines(world.storage, raw_shelf(ENV, FEED, DATE)))
    assert [line.entry for line in lines] == entries


class _Nothing:
    def map(self, _entry: object) -> Any:
        return type("Mapped", (), {"records": ()})


async def test_contents_are_whole_messages(world: Any) -> None:
    found: dict[str, list[Record]] = {}
    async for kind, content in record_contents(world.storage, WANTED):
        found.setdefault(kind, []).extend(decode_records(content))
    assert sorted((record for kind in found for record in found[kind]), key=by_time) == sorted(world.records, key=by_time)


async def test_a_block_of_more_than_a_frame_is_in_order(make_world: Any) -> None:
    """A connection of all markets that ends before their books came: for each, one hole ends and one opens, in one entry."""
    made = make_world()
    tickers = [f"T-{number:04}" for number in range(1_000)]
    asked = {"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"], "market_tickers": tickers}}
    session, why = made.ts, "e" * 900
    before = PreviousSession(session - 9, 9, session - 5, "killed", why)
    payloads = [
        (EntryKind.CTL, encode_fact(Connected(FEED, "a", "ws://127.0.0.1", previous=before))),
        (EntryKind.OUT, json.dumps(asked).encode()),
        (EntryKind.IN, b'{"id":1,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":1}}\n'),
        (EntryKind.CTL, encode_fact(Disconnected("stale", last_recv_ns=session + 3, evidence=why))),
    ]
    await made.write("a", session, [Entry(kind, n, session + n, data) for n, (kind, data) in enumerate(payloads, 1)])
    await made.complete()
    found = await all_of(records(made.storage, WANTED))
    assert [(one.ticker, one.state) for one in found] == [(one, how) for how in ("closed", "opened") for one in tickers]
    assert found == sorted(made.records, key=by_time)


async def test_an_empty_date_has_nothing(world: Any) -> None:
    elsewhere = WANTED._replace(date="2026-05-15")
    assert await all_of(records(world.storage, elsewhere)) == []
    assert await read_manifest(world.storage, raw_shelf(ENV, FEED, "2026-05-15")) is None
    with pytest.raises(Rejected, match='no kind of record "books"'):
        await all_of(records(world.storage, WANTED._replace(kinds=("books",))))


async def test_objects_without_a_manifest_are_not_nothing(world: Any) -> None:
    shelf = raw_shelf(ENV, FEED, DATE)
    await world.storage.delete(shelf.manifest_key)
    with pytest.raises(Malformed, match="no manifest"):
        await all_of(raw_lines(world.storage, shelf))
    await world.storage.put(shelf.manifest_key, b"{}")
    with pytest.raises(Malformed, match="is no manifest"):
        await all_of(raw_lines(world.storage, shelf))


@pytest.mark.parametrize("damage", ["absent", "cut", "cut at a frame", "flipped", "longer", "another"])
async def test_what_is_not_as_sealed_is_named(world: Any, damage: str) -> None:
    storage: MemoryStorage = world.storage
    shelf = record_shelf(ENV, FEED, DATE, "book", KalshiMapper.version)
    manifest = await read_manifest(storage, shelf)
    assert manifest is not None
    key = shelf.prefix + manifest.segments[1].name
    data = storage._objects[key]
    other = storage._objects[shelf.prefix + manifest.segments[2].name]
    changed = {
        "cut": data[:-1], "cut at a frame": b"", "flipped": data[:40] + bytes([data[40] ^ 1]) + data[41:],
        "longer": data + other, "another": other,
    }  # fmt: skip
    if damage == "absent":
        await storage.delete(key)
    else:
        await storage.put(key, changed[damage])
    with pytest.raises(Malformed, match=f"^{key} is ") as found:
        await all_of(records(storage, WANTED))
    assert found.value.mend == "ssmd data verify"


def segment(partition: str, first: int, last: int) -> ArchivedSegment:
    return ArchivedSegment(f"{partition}-{first}", partition, "ab", first, last, 1, 1, "", 1, "", first, last)


def test_chains_hold_what_does_not_overlap() -> None:
    parts = (segment("b", 5, 9), segment("a", 1, 10), segment("a", 10, 20), segment("a", 4, 12), segment("a", 13, 14))
    found = chains(Placed(raw_shelf(ENV, FEED, DATE), part) for part in parts)
    assert [[one.segment.name for one in chain] for chain in found] == [["a-1", "a-10"], ["a-4", "a-13"], ["b-5"]]


async def batches_of(items: list[int], sizes: list[int]) -> AsyncIterator[list[int]]:
    at = 0
    for size in sizes:
        yield items[at : at + size]
        at += size
    yield items[at:]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 50)), st.lists(st.integers(0, 9), max_size=6)), min_size=1, max_size=4),
    st.booleans(),
)
async def test_merging_is_sorting_however_it_comes_in_batches(sources: list[tuple[list[int], list[int]]], once: bool) -> None:
    made = [batches_of(sorted(items), [] if once else sizes) for items, sizes in sources]
    merged = await all_of(merge(made, lambda item: (item,)))
    assert merged == sorted(item for items, _ in sources for item in items)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 50)), st.lists(st.integers(0, 9), max_size=6)), min_size=2, max_size=4))
async def test_merging_loses_nothing_where_a_clock_stepped_back(sources: list[tuple[list[int], list[int]]]) -> None:
    pairs = [[(number, at, item) for at, item in enumerate(items)] for number, (items, _) in enumerate(sources)]
    made = [batches_of(items, sizes) for items, (_, sizes) in zip(pairs, sources, strict=True)]  # type: ignore[arg-type]
    merged: list[tuple[int, int, int]] = await all_of(merge(made, lambda item: (item[2],)))
    assert sorted(merged) == [item for items in pairs for item in items]
    for number, items in enumerate(pairs):
        assert [item for item in merged if item[0] == number] == items


def delta(ticker: str, n: int) -> BookDelta:
    return BookDelta(FEED, ticker, n, n, 1, n, 0, 1, n, -4, -2, n, 100, Side.BID, SizeMeaning.CHANGE)


@given(st.lists(st.sampled_from(["A", "AB", "B.2", "ünï", "A" * 40]), max_size=40), st.integers(0, 300))
def test_finding_is_filtering(tickers: list[str], cut: int) -> None:
    made = [delta(ticker, n) for n, ticker in enumerate(tickers, 1)]
    data = b"".join(map(encode_record, made))
    assert find_records(data, "book", FEED, ["A", "ünï"]) == [record for record in made if record.ticker in {"A", "ünï"}]
    assert find_records(data, "trade", FEED, ["A"]) == []
    assert whole_messages(data) == len(data)
    part = data[: max(0, len(data) - cut)]
    end = whole_messages(part)
    assert list(decode_records(part[:end])) == made[: len(list(decode_records(part[:end])))]
    assert len(part) - end < max([len(encode_record(record)) for record in made], default=1)


def test_every_kind_is_known() -> None:
    assert set(KINDS) == set(KIND_OF.values())
    assert list(read_lines([])) == []
