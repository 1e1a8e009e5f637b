import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from ssmd.errors import Unavailable
from ssmd.wiring.system import LocalSystem, race_failure


class _Children:
    """A supervisor whose children give up when told to."""

    def __init__(self) -> None:
        self.gave_up = asyncio.Event()

    async def failed(self) -> Unavailable:
        await self.gave_up.wait()
        return Unavailable("the gateway gave up")


def system_of(children: _Children) -> LocalSystem:
    return cast("LocalSystem", SimpleNamespace(supervisor=children))


async def test_work_that_is_done_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert await race_failure(system_of(_Children()), work()) == 7


async def test_a_child_that_gives_up_ends_the_work() -> None:
    children = _Children()
    told: list[str] = []

    async def work() -> None:
        children.gave_up.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    with pytest.raises(Unavailable, match="the gateway gave up"):
        await race_failure(system_of(children), work())
    assert told == ["cancelled"]


async def test_whoever_is_interrupted_takes_the_work_along() -> None:
    began, told = asyncio.Event(), list[str]()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            told.append("ended")

    racing = asyncio.create_task(race_failure(system_of(_Children()), work()))
    await began.wait()
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert told == ["ended"]
