"""A schedule made as that of the days is, but due every few seconds, whose runs only say for which time they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, Self

from temporalio.client import Client

from ssmd.clock import SystemClock
from ssmd.workflows import schedules
from ssmd.workflows.orders import Turn
from ssmd.workflows.schedules import Definition
from ssmd.workflows.service import worker_of

ENV: Final = "catching-up"
EVERY_S: Final = 5
WITHIN_S: Final = 120.0
"""A server that was killed looks at its schedules again within about a minute."""


class Ticks:
    """See the module; a context manager, in which its worker runs.

    Attributes:
        heard: scheduled times, in the order in which they came, each as often as it was finished.
    """

    def __init__(self, client: Client) -> None:
        self.heard: list[int] = []
        self._client = client

    async def turn(self, env: str, scheduled_ns: int) -> Turn:
        """As `workflows.work.Work.turn`: nothing is due."""
        assert env == ENV
        self.heard.append(scheduled_ns)
        return Turn()

    def __getattr__(self, name: str) -> Any:
        # The other duties of a worker; nobody asks for them here.
        raise AttributeError(name)

    async def __aenter__(self) -> Self:
        definition = Definition(ENV, "days", "UTC", (), EVERY_S, is_buffered=True, catchup_s=3600)
        await schedules.apply(self._client, ENV, [definition])
        self._working = asyncio.create_task(worker_of(self._client, ENV, self, grace_s=0).run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._working.cancel()
        await asyncio.wait({self._working}, timeout=10)

    async def until_caught_up(self) -> None:
        """Wait until the last time that was due has come."""
        async with asyncio.timeout(WITHIN_S):
            while not self.heard or self.heard[-1] < SystemClock.now_ns() - 2 * EVERY_S * 10**9:
                await asyncio.sleep(0.2)

    @staticmethod
    def are_each_once_in_order(heard: Sequence[int]) -> bool:
        """Whether no time is missing, twice, or before an earlier one."""
        return len(heard) > 2 and all(second - first == EVERY_S * 10**9 for first, second in pairwise(heard))
