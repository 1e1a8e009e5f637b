"""What made a group of tasks fail: callers expect the error tree of `errors`, not groups of it."""

from __future__ import annotations

import asyncio


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first real failure in `group`; cancellations that merely followed it come last."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting = [*error.exceptions, *waiting]
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if not isinstance(leaf, asyncio.CancelledError)), leaves[0])
