"""Reading a stream on and on: one connection and one pull consumer after another, each behind what was handed out.

A reading ends by itself at a given sequence, or never; what interrupts it (server gone, consumer deleted, a hole in what
came) begins the next one. Whoever reads sees each message once, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from ssmd.errors import Conflict, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.streams.backoff import backoff_s
from ssmd.streams.connection import ApiRefused, Connection
from ssmd.streams.pull_consumer import PullConsumer, Pulled
from ssmd.streams.topology import STREAM_NOT_FOUND

REQUEST_MESSAGES: Final = 2000
REQUEST_BYTES: Final = 32 << 20
WAIT_S: Final = 60.0


class Portion(NamedTuple):
    """Messages of a reading; `is_end` = there will be no more. The first one may be empty: it says that we are reading."""

    messages: list[Pulled]
    is_end: bool


async def last_sequence(connection: Connection, stream: str, timeout_s: float) -> int:
    """Sequence of the stream's last message, 0 = empty.

    Raises:
        Unavailable: no answer, or no such stream.
    """
    try:
        return int((await connection.api(f"STREAM.INFO.{stream}", timeout_s=timeout_s))["state"]["last_seq"])
    except ApiRefused as error:
        if error.err_code == STREAM_NOT_FOUND:
            raise Unavailable(f"there is no stream {stream} at {connection.url}", mend="ssmd streams apply") from error
        raise


class StreamReader:
    """All readings of one stream by one owner.

    Args:
        on_trouble: told why a reading does not go on, and "" when all do again.
    """

    def __init__(
        self, url: str, stream: str, *, name: str, timeout_s: float, random: RandomBytes, on_trouble: Callable[[str], None]
    ) -> None:
        self._url = url
        self._stream = stream
        self._name = name
        self._timeout_s = timeout_s
        self._random = random
        self._on_trouble = on_trouble
        self._is_closed = False
        self._connections: set[Connection] = set()
        self._troubles: dict[object, str] = {}

    @property
    def trouble(self) -> str:
        """Why a reading does not go on at present (the one that stopped first); "" = all do."""
        return next(iter(self._troubles.values()), "")

    async def close(self) -> None:
        """Ends every reading that still runs."""
        self._is_closed = True
        for connection in tuple(self._connections):
            await connection.abandon()

    async def read(
        self, *, after: int, subjects: Sequence[str], end: int | None = None, away_s_max: float | None = None
    ) -> AsyncGenerator[list[Pulled], None]:
        """Non-empty batches behind sequence `after`, up to and with `end` (None = for ever).

        Args:
            away_s_max: how long to try when the server is away; None = for ever.

        Raises:
            Conflict: the stream ends before `after`.
            Unavailable: away for longer.
        """
        loop = asyncio.get_running_loop()
        reading = object()
        attempt = 0
        failing_since: float | None = None
        try:
            while not self._is_closed:
                try:
                    async with aclosing(self._portions(after, subjects, end)) as portions:
                        async for messages, is_end in portions:
                            self._tell(reading, "")
                            if messages:
                                after = messages[-1].seq
                                attempt = 0
                                yield messages
                            if messages or end is None:
                                failing_since = None
                            if is_end:
                                return
                except Unavailable as error:
                    if self._is_closed:
                        return
                    self._tell(reading, error.message)
                    failing_since = failing_since or loop.time()
                    if away_s_max is not None and loop.time() - failing_since >= away_s_max:
                        raise
                    attempt += 1
                    await asyncio.sleep(backoff_s(attempt, self._random, first_s=0.02, max_s=2.0))
        finally:
            self._tell(reading, "")

    async def _portions(self, after: int, subjects: Sequence[str], end: int | None) -> AsyncGenerator[Portion, None]:
        connection = await Connection.open(self._url, name=self._name, timeout_s=self._timeout_s, is_bulk=True)
        self._connections.add(connection)
        try:
            head = await last_sequence(connection, self._stream, self._timeout_s)
            if after > head:
                raise Conflict(f"{self._stream} ends at position {head}, before position {after}")
            consumer = await PullConsumer.open(
                connection, self._stream, after=after, filters=subjects, batch=REQUEST_MESSAGES, batch_bytes=REQUEST_BYTES
            )
            yield Portion([], is_end=end is not None and not consumer.pending)
            while True:
                pulled = await consumer.next(WAIT_S)
                if not pulled:
                    if consumer.failure:
                        raise Unavailable(f"reading {self._stream} at {connection.url} ended: {consumer.failure}")
                    continue
                last = pulled[-1]
                is_end = end is not None and (last.seq >= end or not last.pending)
                if end is not None and last.seq > end:
                    pulled = [one for one in pulled if one.seq <= end]
                if is_end:
                    await consumer.close()
                yield Portion(pulled, is_end)
        finally:
            self._connections.discard(connection)
            await connection.close()

    def _tell(self, reading: object, trouble: str) -> None:
        before = self.trouble
        if trouble:
            self._troubles[reading] = trouble
        else:
            self._troubles.pop(reading, None)
        if self.trouble != before:
            self._on_trouble(self.trouble)
