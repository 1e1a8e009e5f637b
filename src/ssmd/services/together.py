"""Two components that share one process and one name: the second one serves the first, and does not hold it up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from ssmd.services.component import Component, Health
from ssmd.services.ended_tasks import end_tasks

STOP_S: Final = 10.0
"""How long one may take to end once the other has; then it is cancelled."""


class Together:
    """`main` with `beside`. Either one's end is the end of both; the health is `main`'s, with the other's trouble named.

    Args:
        prefix: before the names of `beside`'s statistics.
    """

    def __init__(self, main: Component, beside: Component, prefix: str) -> None:
        self._main = main
        self._beside = beside
        self._prefix = prefix

    @property
    def name(self) -> str:
        return self._main.name

    @property
    def instance(self) -> str:
        return self._main.instance

    async def run(self) -> None:
        tasks = [asyncio.create_task(one.run(), name=one.name) for one in (self._main, self._beside)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self.stop()
                    await asyncio.wait(tasks)
            for task in (*done, *tasks):
                if task.done():
                    task.result()
        finally:
            await end_tasks(tasks)

    async def stop(self) -> None:
        await asyncio.gather(self._main.stop(), self._beside.stop())

    async def flush(self) -> None:
        await asyncio.gather(self._main.flush(), self._beside.flush())

    def health(self) -> Health:
        main, beside = self._main.health(), self._beside.health()
        stats = {**main.stats, **{f"{self._prefix}{name}": value for name, value in beside.stats.items()}}
        reasons = [reason for reason in (main.reason, beside.reason and f"{self._beside.name}: {beside.reason}") if reason]
        return Health(main.ok and beside.ok, "; ".join(reasons), stats)
