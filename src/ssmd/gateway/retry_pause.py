"""How long the gateway's readers wait before they ask a server again that is away."""

from __future__ import annotations

import asyncio
from typing import Final

from ssmd.identifiers import RandomBytes, system_random
from ssmd.streams.backoff import backoff_s

FIRST_S: Final = 0.2
MAX_S: Final = 2.0


class RetryPause:
    """Pauses that double from `FIRST_S` up to `MAX_S`, half of each chance: many gateways do not ask at one moment."""

    def __init__(self, random: RandomBytes = system_random) -> None:
        self._random = random
        self._failures = 0

    def answered(self) -> None:
        """The server is there: the next pause is short again."""
        self._failures = 0

    async def wait(self) -> None:
        self._failures += 1
        await asyncio.sleep(backoff_s(self._failures, self._random, first_s=FIRST_S, max_s=MAX_S))
