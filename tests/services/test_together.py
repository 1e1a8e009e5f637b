"""Two components as one: stopped together, ended by either's failure, and both heard."""

from __future__ import annotations

import asyncio

import pytest

from ssmd.errors import Unavailable
from ssmd.services import together
from ssmd.services.component import Health
from ssmd.services.together import Together


class Part:
    def __init__(self, name: str, health: Health) -> None:
        self.name = name
        self.instance = "main"
        self.said: list[str] = []
        self.failure: Exception | None = None
        self._told = asyncio.Event()
        self._health = health

    async def run(self) -> None:
        await self._told.wait()
        self.said.append("ended")
        if self.failure is not None:
            raise self.failure

    async def stop(self) -> None:
        self._told.set()

    async def flush(self) -> None:
        self.said.append("flushed")

    def fail(self, error: Exception) -> None:
        self.failure = error
        self._told.set()

    def health(self) -> Health:
        return self._health


def pair() -> tuple[Part, Part, Together]:
    main, beside = (
        Part("worker", Health(ok=True, stats={"temporal": "t"})),
        Part("secmaster", Health(False, "away", {"asked": 2})),
    )
    return main, beside, Together(main, beside, "secmaster_")


async def test_both_are_stopped_and_flushed_and_heard() -> None:
    main, beside, both = pair()
    running = asyncio.create_task(both.run())
    await both.flush()
    await both.stop()
    await asyncio.wait_for(running, 30)
    assert (main.said, beside.said) == (["flushed", "ended"], ["flushed", "ended"])
    assert (both.name, both.instance) == ("worker", "main")
    assert both.health() == Health(False, "secmaster: away", {"temporal": "t", "secmaster_asked": 2})


async def test_either_ones_failure_ends_both() -> None:
    main, beside, both = pair()
    running = asyncio.create_task(both.run())
    await asyncio.sleep(0)
    beside.fail(Unavailable("gone"))
    with pytest.raises(Unavailable, match="gone"):
        await asyncio.wait_for(running, 30)
    assert main.said == ["ended"]


async def test_one_that_does_not_end_keeps_no_failure_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "STOP_S", 0.01)
    main, beside, both = pair()
    monkeypatch.setattr(beside, "stop", asyncio.Event().wait)  # as while the venue is asked
    running = asyncio.create_task(both.run())
    await asyncio.sleep(0)
    main.fail(Unavailable("gone"))
    with pytest.raises(Unavailable, match="gone"):
        await asyncio.wait_for(running, 30)
    assert beside.said == []
