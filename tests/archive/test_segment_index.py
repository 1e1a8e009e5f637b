"""Sidecars: the same answers with them, without them and with damaged ones; made again from the segments; known to verify."""

from __future__ import annotations

from typing import Any

import pytest
import zstandard

from ssmd.archive import segment
from ssmd.archive.reading import Wanted, records
from ssmd.archive.reindexing import reindex
from ssmd.archive.segment_index import build, decode_groups, decode_head, decode_prefix, index_key, segment_key_of
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.archive.ticker_reading import part_records, parts
from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.codecs import encode_record
from ssmd.schemas.records import BookDelta, BookSnapshot, Side, SizeMeaning
from ssmd.services.verifier import Scope, verify
from ssmd.transforms.book_at import BookAt, book_at

WANTED = Wanted("test", "kalshi", "2026-05-14", KalshiMapper.version)
TICKERS = ("A-1", "B.2", "LONGER-NAME-3")


class CountingStorage(MemoryStorage):
    """Counts whole reads of segments, and the bytes asked for in ranges."""

    whole = 0
    ranges = 0

    def read(self, key: str) -> Any:
        self.whole += 1
        return super().read(key)

    async def read_range(self, key: str, start: int, size: int) -> bytes | None:
        self.ranges += 1
        return await super().read_range(key, start, size)


@pytest.fixture
async def world(make_world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(segment, "FRAME_BYTES_MAX", 2048)
    made = make_world(CountingStorage())
    await made.session(count=900, tickers=TICKERS, cut=400)
    await made.session(count=500, tickers=TICKERS, cut=300)
    await made.complete()
    return made


async def answers(world: Any, instants: list[int]) -> list[BookAt]:
    return [await book_at(world.storage, WANTED, ticker, at_ns) for at_ns in instants for ticker in TICKERS]


def instants(world: Any) -> list[int]:
    lines = [line for line in world.lines if line.session == world.lines[-1].session]
    first = [line for line in world.lines if line.session != lines[0].session]
    return [line.entry.ts_recv_ns + extra for line in (*first[60::83], *lines[20::71]) for extra in (0, 1)]


def sidecars(world: Any) -> list[str]:
    return sorted(key for key in world.storage._objects if segment_key_of(key))


async def test_with_sidecars_answers_are_the_same_and_segments_are_not_read_whole(world: Any) -> None:
    without = await answers(world, instants(world))
    assert world.storage.whole > 0
    made = await reindex(world.storage, WANTED)
    assert list(made.written) == sorted(made.written, key=made.written.index)
    assert made.looked_at == len(made.written) == len(sidecars(world)) > 5
    world.storage.whole = 0
    assert await answers(world, instants(world)) == without
    assert world.storage.whole == 0
    assert (await reindex(world.storage, WANTED)).written == ()


async def test_damaged_or_absent_ones_cost_time_only(world: Any) -> None:
    without = await answers(world, instants(world)[::4])
    await reindex(world.storage, WANTED)
    keys = sidecars(world)
    for number, key in enumerate(keys):
        data = bytearray(world.storage._objects[key])
        match number % 5:
            case 0:
                data[world.random.randrange(len(data))] ^= 1 << world.random.randrange(8)
            case 1:
                del data[world.random.randrange(len(data)) :]
            case 2:
                data[:] = b"SSMDIDX1" + bytes(40)
            case 3:
                data[:] = world.storage._objects[keys[number - 1]]
            case _:
                await world.storage.delete(key)
                continue
        await world.storage.put(key, bytes(data))
    assert await answers(world, instants(world)[::4]) == without
    assert await reindex(world.storage, WANTED)
    whole = await verify(world.storage, world.journal, Scope("test", "kalshi"))
    assert whole.findings == ()


def read_all(data: bytes) -> dict[str, Any]:
    head, start = decode_head(data), 28 + decode_prefix(data)
    return {
        name: decode_groups(data[start + at : start + at + length], crc) for name, (at, length, crc) in head.tickers.items()
    }


async def test_every_flipped_bit_of_a_sidecar_is_noticed(world: Any) -> None:
    await reindex(world.storage, WANTED)
    key = next(key for key in sidecars(world) if "/book/" in key)
    data = world.storage._objects[key]
    blocks = read_all(data)
    assert sorted(blocks) == sorted(TICKERS)
    assert sum(group.records for groups in blocks.values() for group in groups) > 0
    for _ in range(200):
        place = world.random.randrange(len(data))
        damaged = bytearray(data)
        damaged[place] ^= 1 << world.random.randrange(8)
        with pytest.raises(Malformed):
            read_all(bytes(damaged))


async def test_damage_of_the_segment_is_an_error_even_where_little_of_it_is_read(world: Any) -> None:
    await reindex(world.storage, WANTED)
    [key, *_] = [segment_key_of(key) for key in sidecars(world) if "/book/" in key]
    data = bytearray(world.storage._objects[key])
    head = decode_head(world.storage._objects[index_key(key)])
    for frame in head.frames:
        data[frame.offset + frame.size // 2] ^= 4
    await world.storage.put(key, bytes(data))
    found = [part for part in await parts(world.storage, WANTED, "book", "A-1") if part.segment.sha256 == head.sha256]
    assert found
    for part in found:
        with pytest.raises(Malformed, match="is damaged: bytes"):
            await anext(aiter(part_records(world.storage, part, "book", "A-1")))


async def test_parts_hold_what_reading_all_gives(world: Any) -> None:
    await reindex(world.storage, WANTED)
    for kind in ("book", "snapshot", "gap"):
        for ticker in TICKERS:
            wanted = [one async for batch in records(world.storage, WANTED._replace(kinds=(kind,))) for one in batch]
            found: list[Any] = []
            for part in await parts(world.storage, WANTED, kind, ticker):
                async for batch in part_records(world.storage, part, kind, ticker):
                    found += batch
            assert found == [one for one in wanted if one.ticker == ticker]


async def test_verify_names_a_sidecar_that_differs(world: Any) -> None:
    await reindex(world.storage, WANTED)
    clean = await verify(world.storage, world.journal, Scope("test", "kalshi"))
    assert clean.is_clean
    key = sidecars(world)[0]
    await world.storage.put(key, world.storage._objects[key][:-1])
    found = await verify(world.storage, world.journal, Scope("test", "kalshi"))
    assert [(one.key, one.problem) for one in found.findings] == [(key, "sidecar-differs")]
    stray = key.replace(".capnp.index", "0.capnp.index").replace("/book/", "/gap/")
    await world.storage.delete(key)
    await world.storage.put(stray.replace("main-ab12", "main-ff"), b"x")
    found = await verify(world.storage, world.journal, Scope("test", "kalshi"))
    assert [one.problem for one in found.findings] == ["extra"]


def delta(n: int, price_exponent: int, size: int, meaning: SizeMeaning) -> BookDelta:
    return BookDelta("kalshi", "A-1", 5, 5 + n, 5, n, 0, 1, n, price_exponent, -2, 40, size, Side.BID, meaning)


def test_totals_are_not_summed_and_exponents_are_kept() -> None:
    def groups_of(*changes: BookDelta) -> Any:
        stored = zstandard.ZstdCompressor(level=3).compress(b"".join(map(encode_record, changes)))
        data = build("book", "0" * 64, [stored])
        assert data is not None
        return read_all(data)["A-1"]

    change, total = SizeMeaning.CHANGE, SizeMeaning.TOTAL
    [group] = groups_of(delta(1, -4, 7, change), delta(2, -4, -7, change), delta(3, -5, 9, change))
    assert group.sums == [(-4, -2, 1, 40, 0), (-5, -2, 1, 40, 9)]
    assert (group.records, group.first.n, group.last.n, group.ts_min_ns, group.ts_max_ns) == (3, 1, 3, 6, 8)
    [group] = groups_of(delta(1, -4, 7, change), delta(2, -4, 3, total))
    assert group.sums is None
    other = BookSnapshot("kalshi", "A-1", 5, 5, 5, 1, 0, 1, 1, -4, -2, (), (), False)
    with pytest.raises(Malformed, match="stands among book changes"):
        build("book", "0" * 64, [zstandard.ZstdCompressor().compress(encode_record(other))])
