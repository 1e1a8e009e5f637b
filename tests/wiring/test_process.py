import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from ssmd.errors import Misconfigured, Unavailable
from ssmd.wiring.process import log_level
from ssmd.wiring.system import LocalSystem, race_failure


@pytest.mark.parametrize(
    ("variables", "expected"), [({}, "info"), ({"SSMD_LOG_LEVEL": ""}, "info"), ({"SSMD_LOG_LEVEL": "Debug"}, "debug")]
)
def test_the_log_level_is_a_setting(variables: dict[str, str], expected: str) -> None:
    assert log_level(variables) == expected


def test_a_log_level_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(Misconfigured) as found:
        log_level({"SSMD_LOG_LEVEL": "loud"})
    assert found.value.message == "SSMD_LOG_LEVEL is 'loud'; expected debug, info, warning, error"
    assert found.value.mend == "export SSMD_LOG_LEVEL=info"


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
