"""`services.replayer`: what is played is what was archived, whatever the pace; and it comes when it is due."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from ssmd.archive.reading import Wanted, Window, raw_content
from ssmd.archive.shelf_manifest import raw_shelf
from ssmd.clock import ManualClock
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.raw_line import read_lines
from ssmd.schemas.record_text import fields_of, to_lines
from ssmd.services.replayer import Replayer, paced

ENV, FEED, DATE = "test", "kalshi", "2026-05-14"
SECOND = 1_000_000_000


@pytest.fixture
async def world(make_world: Any) -> Any:
    made = make_world()
    for _ in range(2):
        await made.session(count=150)
    await made.complete()
    return made


class Waits:
    """A clock that moves when something waits for it."""

    def __init__(self, oversleep_ns: int = 0) -> None:
        self.clock = ManualClock(0)
        self._oversleep_ns = oversleep_ns
        self.waits = 0

    async def sleep(self, seconds: float) -> None:
        self.waits += 1
        self.clock.advance(max(1, round(seconds * 1e9)) + self._oversleep_ns)


def player(world: Any, waits: Waits) -> Replayer:
    return Replayer(world.storage, ENV, FEED, clock=waits.clock, sleep=waits.sleep)


async def joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def test_raw_lines_are_the_stored_ones_at_any_pace(world: Any) -> None:
    stored = await joined(raw_content(world.storage, raw_shelf(ENV, FEED, DATE)))
    waits = Waits()
    assert await joined(player(world, waits).raw(DATE)) == stored
    assert waits.waits == 0
    for speed in (1, 10):
        waits = Waits()
        played = await joined(player(world, waits).raw(DATE, speed=speed))
        assert list(read_lines(played.splitlines())) == list(read_lines(stored.splitlines())) == world.lines
        span = world.lines[-1].entry.ts_recv_ns - world.lines[0].entry.ts_recv_ns
        assert span / speed - 3_000_000 <= waits.clock.monotonic_ns() <= span / speed + 3_000_000


async def test_lines_of_a_ticker_and_a_window(world: Any) -> None:
    played = await joined(player(world, Waits()).raw(DATE, ticker="B.2"))
    expected = [line for line in world.lines if line.entry.kind != 1 or b'"B.2"' in line.entry.payload]
    assert list(read_lines(played.splitlines())) == expected
    window = Window(world.lines[20].entry.ts_recv_ns, world.lines[60].entry.ts_recv_ns)
    played = await joined(player(world, Waits()).raw(DATE, window=window))
    assert list(read_lines(played.splitlines())) == world.lines[20:60]


async def test_records_are_lines_of_exact_decimals(world: Any) -> None:
    wanted = Wanted(ENV, FEED, DATE, KalshiMapper.version)
    order = sorted(world.records, key=lambda one: (one.ts_recv_ns, one.session, one.n, one.index))
    played = await joined(player(world, Waits()).record_lines(wanted))
    assert played == to_lines(order)
    assert [msgspec.json.decode(line) for line in played.splitlines()] == [
        msgspec.json.decode(msgspec.json.encode(fields_of(record))) for record in order
    ]
    delta = msgspec.json.decode(next(line for line in played.splitlines() if b'"kind":"book"' in line))
    assert delta == {**delta, "feed": FEED, "meaning": "change"}
    assert len(delta["price"].partition(".")[2]) == 4


async def test_pacing_catches_up_with_what_a_slow_taker_lost() -> None:
    waits = Waits()

    async def one_batch() -> AsyncIterator[list[int]]:
        yield [at * SECOND for at in (5, 6, 7, 8, 20)]
        yield [19 * SECOND, 21 * SECOND]

    given: list[tuple[int, list[int]]] = []
    async for batch in paced(one_batch(), int, 1, clock=waits.clock, sleep=waits.sleep):
        given.append((waits.clock.monotonic_ns() // SECOND, [at // SECOND for at in batch]))
        if len(given) == 2:
            waits.clock.advance(SECOND * 3 // 2)  # a slow taker
    assert given == [(0, [5]), (1, [6]), (2, [7]), (3, [8]), (15, [20]), (15, [19]), (16, [21])]
