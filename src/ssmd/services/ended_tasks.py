"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any


async def end_tasks(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` and wait until they are over."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        # Said again until heard: before Python 3.12 a cancellation can be lost in a driver's asyncio.wait_for.
        _, waiting = await asyncio.wait(waiting, timeout=0.5)
    await asyncio.gather(*tasks, return_exceptions=True)
