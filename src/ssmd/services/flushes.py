"""Who waits for an archiver to seal what it holds, and for whose request."""

from __future__ import annotations

import asyncio

from ssmd.errors import Unavailable
from ssmd.telemetry import request


class Flushes:
    """Flushes asked for and not answered, in order."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._asked_by = ""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def asked_by(self) -> str:
        """The request that asked last, "" = none waits: what is sealed now belongs to it."""
        return self._asked_by if self._waiting else ""

    async def ask(self, timeout_s: float) -> None:
        """Return when it is done. Raises TimeoutError, and what `refuse` is given."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._asked_by = request.current()
        async with asyncio.timeout(timeout_s):
            await done

    def answer(self, count: int) -> None:
        """The first `count` are done."""
        done, self._waiting = self._waiting[:count], self._waiting[count:]
        for flush in done:
            if not flush.done():
                flush.set_result(None)

    def refuse(self, reason: str) -> None:
        """None of them will be done."""
        for flush in self._waiting:
            if not flush.done():
                flush.set_exception(Unavailable(reason))
        self._waiting.clear()
