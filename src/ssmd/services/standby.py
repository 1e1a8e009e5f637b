"""Of several archivers of one feed and type, one archives; the others stand by until it is gone.

Who archives is in the journal (the instance that opened the newest partition); whether it lives is asked of itself. Two
that think so at the same time are told apart by the partition's epoch: the lower one stands by again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ssmd.services.archive_positions import Positions

STANDBY_S: Final = 2.0
MISSES: Final = 3
"""So many questions in a row without an answer, and an instance is taken for gone."""

IsAlive = Callable[[str], Awaitable[bool]]
"""Whether the instance of that name answers now; must not raise."""


def holder_of(positions: Positions) -> str:
    """The instance that opened the newest partition, "" = none did."""
    newest = max(positions.partitions.items(), key=lambda item: (item[0][1], item[1].epoch), default=None)
    return "" if newest is None else newest[1].instance


class Standby:
    """Waits for another instance's end.

    Args:
        instance: our own name: what it opened is ours.
        load: the positions as the journal has them now.
        is_alive: None = never stand by: whoever starts last archives.

    Attributes:
        waits_for: the instance that archives now, "" = we do.
    """

    def __init__(
        self,
        instance: str,
        load: Callable[[], Awaitable[Positions]],
        is_alive: IsAlive | None,
        log: Any,
        *,
        every_s: float = STANDBY_S,
    ) -> None:
        self._instance = instance
        self._load = load
        self._is_alive = is_alive
        self._log = log
        self._every_s = every_s
        self.waits_for = ""

    @property
    def is_possible(self) -> bool:
        return self._is_alive is not None

    async def until_free(self, stopping: Callable[[], bool]) -> None:
        """Return when no other instance archives, or when `stopping` says so. Raises what `load` raises."""
        misses = 0
        while self._is_alive is not None and not stopping():
            holder = holder_of(await self._load())
            if holder in ("", self._instance):
                break
            misses = 0 if await self._is_alive(holder) else misses + 1
            if misses >= MISSES:
                self._log.warning("takes-over", silent=holder)
                break
            if not self.waits_for:
                self._log.info("stands-by", holder=holder)
            self.waits_for = holder
            await asyncio.sleep(self._every_s)
        self.waits_for = ""
