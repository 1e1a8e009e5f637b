"""`archive.duplicates`: a trade that was captured and backfilled is read once, as captured; or twice, if one asks."""

from __future__ import annotations

import asyncio
import json
import random as seeded
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ssmd.api.archive import Archive
from ssmd.archive.duplicates import _Ids
from ssmd.archive.reading import Wanted, Window, records
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Connected, Repair, encode_fact
from ssmd.schemas.records import Record, Trade
from ssmd.transforms.export import Request, export
from ssmd.transforms.renormalize import compare

ENV, FEED, DATE = "test", "kalshi", "2026-05-14"
NOON = 1_778_760_000_000_000_000


async def backfill(world: Any, scope: str, session: int, trades: Sequence[tuple[str, str, int]]) -> None:
    """Archive (trade id, ticker, ns) as `ssmd data backfill` would, the venue's time as the time of receiving."""
    partition = f"backfill:{scope}"
    facts: list[tuple[int, Any]] = [(session, Connected(FEED, partition, "", wire="kalshi-rest"))]
    for trade_id, ticker, ts_ns in trades:
        row = {
            "trade_id": trade_id, "ticker": ticker, "created_time": "2026-05-14T12:00:00Z", "yes_price_dollars": "0.3000",
            "count_fp": "2.50", "taker_book_side": "bid",
        }  # fmt: skip
        facts.append((ts_ns, Repair("backfill:2026-05-14", "/markets/trades", json.dumps(row))))
    entries = [Entry(EntryKind.CTL, n, ts_ns, encode_fact(fact)) for n, (ts_ns, fact) in enumerate(facts, 1)]
    await world.write(partition, session, entries)


@pytest.fixture
async def world(make_world: Any) -> Any:
    """Captured trades, all but two of them backfilled with one that was missed; and a market by itself."""
    made = make_world()
    await made.session(count=200)
    captured = [one for one in made.records if isinstance(one, Trade)]
    told = [(one.trade_id, one.ticker, one.ts_recv_ns - 40_000_000) for one in captured[:-2]]
    missed = ("missed", "A-1", captured[4].ts_recv_ns - 1)
    await backfill(made, "all", NOON - 1_000_000_000, sorted([*told, missed], key=lambda one: one[2]))
    only = ("only here", "A-1", captured[5].ts_recv_ns)
    own = [missed, only, (captured[6].trade_id, "A-1", captured[6].ts_recv_ns - 1)]
    await backfill(made, "A-1", NOON - 2_000_000_000, own)
    await made.complete()
    return made


async def read(world: Any, **given: Any) -> list[Record]:
    wanted = Wanted(ENV, FEED, DATE)._replace(**given)
    return [record async for batch in records(world.storage, wanted) for record in batch]


def trades_of(found: Sequence[Record]) -> list[Trade]:
    return [one for one in found if isinstance(one, Trade)]


async def test_each_trade_once_as_captured(world: Any) -> None:
    everything = await read(world, keeps_duplicates=True)
    assert everything == sorted(world.records, key=lambda one: (one.ts_recv_ns, one.session, one.n, one.index))
    captured = [one for one in trades_of(world.records) if one.sid]
    found = await read(world)
    assert [one for one in trades_of(found) if one.sid] == captured
    assert [(one.trade_id, one.session) for one in trades_of(found) if not one.sid] == [
        ("missed", NOON - 1_000_000_000), ("only here", NOON - 2_000_000_000),
    ]  # fmt: skip
    assert [one for one in found if not isinstance(one, Trade)] == [one for one in everything if not isinstance(one, Trade)]
    assert len(trades_of(everything)) == 2 * len(captured) - 2 + 1 + 3


async def test_within_a_window_and_for_a_ticker_too(world: Any) -> None:
    captured = [one for one in trades_of(world.records) if one.sid]
    # The backfilled row lies in the window, the captured trade behind it.
    at = captured[3].ts_recv_ns
    window = Window(at - 50_000_000, at)
    assert captured[3].trade_id not in {one.trade_id for one in trades_of(await read(world, window=window))}
    of_ticker = [one for one in trades_of(await read(world)) if one.ticker == "A-1"]
    assert trades_of(await read(world, tickers=frozenset({"A-1"}))) == of_ticker
    assert len(of_ticker) > 3


async def test_python_and_files_get_them_once_and_a_comparison_all(world: Any, tmp_path: Path) -> None:
    once = [one.trade_id for one in trades_of(await read(world))]
    (made,) = await export(world.storage, Request(Wanted(ENV, FEED, DATE, kinds=("trade",)), "jsonl", tmp_path))
    assert [json.loads(line)["trade_id"] for line in Path(made.path).read_text().splitlines()] == once
    both = Wanted(ENV, FEED, DATE, kinds=("trade",), keeps_duplicates=True)
    (made,) = await export(world.storage, Request(both, "capnp", tmp_path))
    assert made.records == len(trades_of(world.records))
    assert (await compare(world.storage, Wanted(ENV, FEED, DATE), lambda session: KalshiMapper(FEED, session))).is_equal


def test_the_archive_of_a_notebook(make_world: Any) -> None:
    made = make_world()

    async def fill() -> None:
        await made.session(count=100)
        captured = [one for one in made.records if isinstance(one, Trade)]
        await backfill(made, "all", NOON - 9, [(one.trade_id, one.ticker, one.ts_recv_ns) for one in captured])
        await made.complete()

    asyncio.run(fill())
    with Archive(made.storage, ENV, FEED) as archive:
        once = Counter(one.trade_id for one in trades_of([*archive.replay(DATE)]))
        twice = Counter(one.trade_id for one in trades_of([*archive.replay(DATE, duplicates=True)]))
    assert set(once.values()) == {1}
    assert twice == once + once


def test_ids_are_found_and_no_others() -> None:
    rng = seeded.Random(4)
    names = [rng.randbytes(16).hex() for _ in range(5_000)]
    ids = _Ids()
    for name in names[:2_500]:
        ids.add(name)
    assert all(name in ids for name in names[:2_500])
    assert not any(name in ids for name in names[2_500:])
    assert sum(len(bucket) * bucket.itemsize for bucket in ids._buckets) == 8 * 2_500
