"""From entries through the real mapper and archivers into an archive, and back out: the same records come again.

By today's mapper over the raw lines (renormalize), and by replaying the raw lines into a new archive.
"""

from __future__ import annotations

import asyncio
import io
import json
import random as seeded
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.services.test_archivers import World

from ssmd.application.handler import Application
from ssmd.archive.reading import Wanted, raw_content, records
from ssmd.archive.shelf_manifest import raw_shelf
from ssmd.archive.storage import Storage
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import ManualClock, date_of
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.projections.manifest_sink import ManifestSink
from ssmd.projections.manifests import MANIFESTS
from ssmd.projections.rebuild import fold_in_memory
from ssmd.registry.documents import ArchiveSettings
from ssmd.schemas.blocks import NO_DIGEST, Entry, EntryKind, decode_block, encode_block
from ssmd.schemas.control import Connected, Disconnected, PreviousSession, Repair, encode_fact
from ssmd.schemas.raw_line import read_lines
from ssmd.schemas.records import KIND_OF, Record
from ssmd.services.connector.tape_follower import BlockMapper, Names
from ssmd.services.renormalizer import Renormalization, Renormalizer
from ssmd.services.replayer import Replayer

ENV, FEED, DATE = "test", "kalshi", "2026-05-14"
WANTED = Wanted(ENV, FEED, DATE, KalshiMapper.version)
Sessions = dict[tuple[str, int], list[Entry]]
"""(connection, session) -> its entries, whole."""


def mapper(session: int) -> KalshiMapper:
    return KalshiMapper(FEED, session)


class Renewed(KalshiMapper):
    """The next version, which sees nothing otherwise."""

    version = KalshiMapper.version + 1


async def archived(sessions: Sessions, spool: Path, *, block: int, segment_bytes: int) -> World:
    """An archive of these sessions: blocks, mapper, streams and both archivers, as in a capture."""
    world = World(MemoryStorage(), spool)
    mappers: dict[str, BlockMapper] = {}
    digests: dict[str, bytes] = {}
    for (connection, session), entries in sorted(sessions.items(), key=lambda item: item[0][1]):
        of_connection = mappers.setdefault(connection, BlockMapper(Names(ENV, FEED, connection), mapper))
        for start in range(0, len(entries), block):
            part = entries[start : start + block]
            packed = [(entry.kind, entry.ts_recv_ns, entry.payload) for entry in part]
            data = encode_block(session, part[0].n, packed, digests.get(connection, NO_DIGEST))
            decoded = decode_block(data)
            digests[connection] = decoded.digest
            unit, _ = of_connection.map(decoded, data, is_wanted=True)
            assert unit is not None
            world.publish([unit.raw, *unit.market])
    for kind, stream in (("raw", "raw"), ("normalized", "market")):
        archiver = world.archiver(kind, settings=ArchiveSettings(segment_bytes=segment_bytes, zstd_level=1))
        running = asyncio.create_task(archiver.run())
        last_seq = len(world.transport.stored(stream))  # type: ignore[arg-type]
        async with asyncio.timeout(60):
            while int(archiver.health().stats["stream_seq"]) < last_seq:
                await asyncio.sleep(0.01)
        await archiver.stop()
        await running
        assert archiver.health().ok, archiver.health()
    await manifests(world)
    return world


async def manifests(world: World) -> None:
    await ManifestSink(await fold_in_memory(world.journal, [MANIFESTS]), world.storage).reconcile()


async def renormalized(world: World, connections: Iterable[str], spool: Path) -> Renormalization:
    """Its day completed, and made anew by the next version of the mapper."""
    application = Application(world.journal, CATALOGUE, world.clock, seeded.Random(3).randbytes)
    for type_ in ("raw", "normalized"):
        for connection in connections:
            await application.handle(
                archive.DECIDER, (FEED, DATE, type_, connection), archive.CompletePartition("day-mark"), actor="t"
            )
    await manifests(world)
    spool.mkdir()
    found = await Renormalizer(
        ENV, FEED, world.storage, world.journal, application, lambda session: Renewed(FEED, session), date_of, 1, 1 << 20,
        spool, "t",
    ).run(DATE, is_dry=False, progress=lambda *_: None)  # fmt: skip
    await manifests(world)
    return found


async def replayed(storage: Storage) -> Sessions:
    async def no_sleep(_: float) -> None:
        return

    found: Sessions = {}
    async for batch in Replayer(storage, ENV, FEED, clock=ManualClock(0), sleep=no_sleep).lines(DATE):
        for connection, session, entry in batch:
            found.setdefault((connection, session), []).append(entry)
    return found


async def every(batches: AsyncIterator[Sequence[Record]]) -> list[Record]:
    return [record async for batch in batches for record in batch]


async def check_full_circle(sessions: Sessions, tmp_path: Path, segment_bytes: int) -> list[Record]:
    """Replayed into a new archive, and made anew from raw lines, it is the same; its records."""
    world = await archived(sessions, tmp_path / "first", block=50, segment_bytes=segment_bytes)
    first = world.storage
    again = await replayed(first)
    assert again == sessions
    kept = await every(records(first, WANTED))
    second = (await archived(again, tmp_path / "second", block=37, segment_bytes=segment_bytes * 2)).storage
    assert await every(records(second, WANTED)) == kept
    shelf = raw_shelf(ENV, FEED, DATE)
    connections = {connection for connection, _ in sessions}
    if len(connections) == 1:
        pieces = [b"".join([piece async for piece in raw_content(one, shelf)]) for one in (first, second)]
        assert pieces[0] == pieces[1]
    found = await renormalized(world, connections, tmp_path / "renormalize")
    assert found.comparison.differences == ()
    assert found.comparison.made == found.comparison.archived
    assert [one.state for one in found.partitions] == ["written"] * len(connections)
    assert await every(records(first, WANTED._replace(mapper=Renewed.version))) == kept
    return kept


def check_kinds(kept: Iterable[Record], repaired: set[str]) -> None:
    """Gaps are among them, and what a repair brought."""
    kept = list(kept)
    assert any(KIND_OF[type(one)] == "gap" for one in kept)
    found = {getattr(one, "trade_id", "") for one in kept if KIND_OF[type(one)] == "trade" and one.seq == 0}
    assert found == repaired


def repair_entries(n: int, ts_ns: int, ticker: str, trade_ids: Sequence[str]) -> list[Entry]:
    rows = [
        {"trade_id": one, "ticker": ticker, "created_time": "2026-05-14T12:00:00Z", "yes_price_dollars": "0.4100",
         "count_fp": "3.00", "taker_book_side": "ask"}
        for one in trade_ids
    ]  # fmt: skip
    facts = [Repair("1-1", "/markets/trades", json.dumps(row)) for row in rows]
    return [Entry(EntryKind.CTL, n + at, ts_ns, encode_fact(fact)) for at, fact in enumerate(facts)]


@pytest.mark.parametrize("seed", [7, 8])
async def test_a_seeded_day_with_gaps_repairs_and_two_connections(make_world: Any, tmp_path: Path, seed: int) -> None:
    made = make_world(seed=seed)
    sessions: Sessions = {}
    for connection in ("east", "west") if seed == 8 else ("main",):
        for number in range(3):
            session = made.ts
            entries = made.entries(connection, 200, ("A-1", "B.2"))
            *body, last = entries
            if number:
                body += repair_entries(last.n, last.ts_recv_ns, "A-1", [f"r-{connection}-{number}"])
            sessions[connection, session] = [*body, last._replace(n=len(body) + 1)]
    kept = await check_full_circle(sessions, tmp_path, 65_536)
    check_kinds(kept, {f"r-{connection}-{number}" for connection, _ in sessions for number in (1, 2)})


async def test_the_genuine_capture(shared_dir: Path, tmp_path: Path) -> None:
    """Its frames as two sessions of one connection, a hole and a repair between them."""
    path = shared_dir / "captures" / "kalshi-btc15m-2026-05-14.jsonl.zst"
    with path.open("rb") as stored, zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True) as content:
        frames = [line.entry for line in read_lines(io.BufferedReader(content))]
    middle = len(frames) // 2
    sessions: Sessions = {}
    previous = None
    for part in (frames[:middle], frames[middle:]):
        session, end_ns = part[0].ts_recv_ns - 1, part[-1].ts_recv_ns
        connected = Connected(FEED, "main", "wss://x", "kalshi-dollars", "i", 1, "1", "", previous)
        entries = [Entry(EntryKind.CTL, 1, session, encode_fact(connected))]
        entries += [entry._replace(n=at) for at, entry in enumerate(part, 2)]
        if previous is not None:
            entries += repair_entries(len(entries) + 1, end_ns, "KXBTC15M-26MAY141445-45", ["r-1", "r-2"])
        entries.append(
            Entry(EntryKind.CTL, len(entries) + 1, end_ns, encode_fact(Disconnected("closed-by-venue", 1000, "", end_ns)))
        )
        previous = PreviousSession(session, len(entries), end_ns, "closed-by-venue")
        sessions["main", session] = entries
    kept = await check_full_circle(sessions, tmp_path, 16 << 20)
    check_kinds(kept, {"r-1", "r-2"})
    assert len(kept) > 100_000
