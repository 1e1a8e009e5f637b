"""Waiting for a backend that is away, and saying so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ssmd.errors import Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.streams.backoff import backoff_s

Answer = TypeVar("Answer")


class Patience:
    """Calls a backend until it answers. While it does not, its caller does nothing else, so nothing piles up.

    Attributes:
        away: which backend is waited for and why, "" = none.
        gives_up_at: loop time after which waiting ends.
    """

    def __init__(self, log: Any, random: RandomBytes) -> None:
        self._log = log
        self._random = random
        self.away = ""
        self.gives_up_at = float("inf")

    async def until_answered(self, what: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of `call`, which may be made again and again; `what` names the backend.

        Raises:
            Unavailable: still no answer at `gives_up_at`.
        """
        attempt = 0
        while True:
            try:
                answer = await call()
            except Unavailable as error:
                attempt += 1
                await self.wait(what, error, attempt)
            else:
                self.away = ""
                return answer

    async def wait(self, what: str, error: Unavailable, attempt: int) -> None:
        """Wait before attempt `attempt` (1 = the first repeat).

        Raises:
            Unavailable: `error`, when it is past `gives_up_at`.
        """
        self.away = f"{what}: {error.message}"
        self._log.warning("unavailable", what=what, reason=error.message, attempt=attempt)
        if asyncio.get_running_loop().time() > self.gives_up_at:
            raise error
        await asyncio.sleep(backoff_s(attempt, self._random))
