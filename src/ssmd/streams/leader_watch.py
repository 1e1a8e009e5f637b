"""Not waiting for what a lost leader will never say.

When the leader of a stream on three servers dies, a client of another server keeps its connection: what it asked, and the
acknowledgement it waits for, went down with the leader, and what is asked before there is a new one is answered by nobody.
Without this a writer went on only at its deadline, up to two deadlines after the election (docs/decisions/0007).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ssmd.errors import Unavailable
from ssmd.streams.connection import ApiRefused, Connection

ASK_AGAIN_S: Final = 0.25
"""A question that nobody answered for so long is asked once more; the first answer counts, to whichever asking."""

WATCH_AFTER_S: Final = 0.5
"""When a write has waited for so long, its stream's leader is asked for a sign of life, again and again."""

SILENCES: Final = 2
"""So many of them unanswered, and then one answered: there is another leader. One may be a server that is slow."""


async def ask(connection: Connection, verb: str, body: Any, *, timeout_s: float) -> dict[str, Any]:
    """As `Connection.api`, asked again every `ASK_AGAIN_S`. For questions only: each asking may be answered."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    try:
        return await connection.api(verb, body, timeout_s=min(ASK_AGAIN_S, timeout_s))
    except Unavailable:
        if not connection.is_open or loop.time() >= deadline:
            raise
    asking: set[asyncio.Task[dict[str, Any]]] = set()
    try:
        while True:
            left_s = max(0.0, deadline - loop.time())
            asking.add(asyncio.create_task(connection.api(verb, body, timeout_s=left_s)))
            done, _ = await asyncio.wait(asking, timeout=min(ASK_AGAIN_S, left_s), return_when=asyncio.FIRST_COMPLETED)
            if done:
                return done.pop().result()
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


class LeaderWatch:
    """Drops a connection on which writes wait for a leader that is gone, so that they fail and look what became of them."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def waiting(self, connection: Connection) -> Iterator[None]:
        """While a write waits for its acknowledgement on `connection`."""
        timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._start, connection)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            timer.cancel()

    def _start(self, connection: Connection) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(connection))

    async def _look(self, connection: Connection) -> None:
        silences = 0
        while self._waiting and connection.is_open:
            try:
                # Whatever the first message is: nobody but the leader answers.
                await connection.api(f"STREAM.MSG.GET.{self._stream}", {"seq": 1}, timeout_s=WATCH_AFTER_S)
            except ApiRefused:
                pass
            except Unavailable:
                silences += 1
                continue
            if silences >= SILENCES:
                await connection.abandon()
                return
            silences = 0
            await asyncio.sleep(WATCH_AFTER_S)

    async def close(self) -> None:
        """End what still looks. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
