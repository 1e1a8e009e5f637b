"""Two archivers of one name, on two machines that began at once: neither heard the other when it chose its name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.services.test_archivers import Feeder, World, raw_lines

from ssmd.archive.storage_memory import MemoryStorage
from ssmd.errors import Rejected, Unavailable


async def test_one_that_is_fenced_by_its_own_name_ends_and_does_not_fence_back(tmp_path: Path) -> None:
    async def is_alive(_: str) -> bool:
        return True

    world, feeder = World(MemoryStorage(), tmp_path / "a"), Feeder()
    first = world.archiver("raw", is_alive=is_alive)
    running_first = asyncio.create_task(first.run())
    await asyncio.sleep(0)
    world.publish(feeder.connect())
    world.publish(feeder.frames(10))
    await first.flush()
    world.spool = tmp_path / "b"
    second = world.archiver("raw", is_alive=is_alive)
    running_second = asyncio.create_task(second.run())
    await asyncio.sleep(0)
    world.publish(feeder.frames(10))
    await second.flush()
    world.publish(feeder.frames(10))
    flushing = asyncio.create_task(first.flush())
    # Started anew it asks who answers as main, takes the next name, and stands by.
    with pytest.raises(Rejected, match="another raw-archiver 'main'") as caught:
        await asyncio.wait_for(running_first, 30)
    with pytest.raises(Unavailable, match="ended before the flush"):
        await flushing
    assert caught.value.rule == "archive-twin"
    await second.stop()
    await running_second
    assert raw_lines(await world.content("raw")) == feeder.lines
    await world.check_seals("raw")


async def test_of_two_that_read_the_journal_before_either_wrote_one_ends(tmp_path: Path) -> None:
    async def is_alive(_: str) -> bool:
        return True

    world, feeder = World(MemoryStorage(), tmp_path / "a"), Feeder()
    twins = [world.archiver("raw", is_alive=is_alive)]
    world.spool = tmp_path / "b"
    twins.append(world.archiver("raw", is_alive=is_alive))
    running = {asyncio.create_task(twin.run()): twin for twin in twins}
    async with asyncio.timeout(60):
        while not all(twin._reader for twin in twins):
            await asyncio.sleep(0.001)
        world.publish(feeder.connect())
        world.publish(feeder.frames(10))
        while not all(twin._sealer.segments for twin in twins):
            await asyncio.sleep(0.001)
    flushed = await asyncio.wait_for(asyncio.gather(*(twin.flush() for twin in twins), return_exceptions=True), 60)
    assert [type(one) for one in flushed if one is not None] == [Unavailable]
    (ended,), (goes_on,) = await asyncio.wait(running, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(Rejected) as caught:
        await ended
    assert caught.value.rule == "archive-twin"
    world.publish(feeder.frames(10))
    await running[goes_on].stop()
    await goes_on
    assert raw_lines(await world.content("raw")) == feeder.lines
    await world.check_seals("raw")
