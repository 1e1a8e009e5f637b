"""The journal on JetStream: stream `{env}-journal`, one exact subject per aggregate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

from ssmd.domain.envelope import AggregateId
from ssmd.errors import Conflict, Unavailable
from ssmd.identifiers import RandomBytes, system_random
from ssmd.streams.backoff import backoff_s
from ssmd.streams.connection import Connection
from ssmd.streams.journal import AppendGroup, PoisonEvent, RecordedEvent
from ssmd.streams.journal_checks import parse_filters
from ssmd.streams.journal_nats_access import JournalAccess
from ssmd.streams.journal_nats_append import Appender
from ssmd.streams.journal_nats_read import PullReading
from ssmd.streams.subjects import journal_filter
from ssmd.streams.topology import apply, journal_stream

Batch = list[RecordedEvent | PoisonEvent]


class NatsJournal:
    """Connects when first used; every connection lives once and is replaced (`streams.connection`).

    Appending, loading and `head` share one connection; each reading has its own.

    Args:
        timeout_s: deadline of every single request, and how long `replay` tries to reach a server that is away.
        follow_away_s_max: how long `follow` tries before it raises Unavailable; None = for ever.
        on_trouble: told why a reading does not go on, and "" when it does again.
        random: names atomic batches and spreads retries.
    """

    def __init__(
        self,
        url: str,
        env: str,
        *,
        name: str = "ssmd-journal",
        timeout_s: float = 5.0,
        follow_away_s_max: float | None = None,
        on_trouble: Callable[[str], None] | None = None,
        random: RandomBytes = system_random,
    ) -> None:
        self._access = JournalAccess(url, env, timeout_s=timeout_s, name=name)
        self._appender = Appender(self._access, random)
        self._follow_away_s_max = follow_away_s_max
        self._on_trouble = on_trouble
        self._random = random
        self._is_closed = False
        self._reading_connections: set[Connection] = set()
        self.trouble = ""
        """Why a reading does not go on at present; "" = all do."""

    @classmethod
    async def open(
        cls,
        url: str,
        env: str,
        *,
        name: str = "ssmd-journal",
        timeout_s: float = 5.0,
        follow_away_s_max: float | None = None,
        on_trouble: Callable[[str], None] | None = None,
        random: RandomBytes = system_random,
        ensure: bool = False,
        duplicate_window_s: float = 120.0,
    ) -> NatsJournal:
        """A journal that has answered once.

        Args:
            ensure: make the stream if there is none, with `duplicate_window_s`.

        Raises:
            Unavailable: no server, or no stream (`ssmd streams apply`).
            Misconfigured: the server does not let us in.
        """
        journal = cls(
            url,
            env,
            name=name,
            timeout_s=timeout_s,
            follow_away_s_max=follow_away_s_max,
            on_trouble=on_trouble,
            random=random,
        )
        try:
            if ensure:
                definition = journal_stream(env, duplicate_window_s=duplicate_window_s)
                await apply({"journal": await journal._access.connection()}, [definition])
            await journal.head()
        except BaseException:
            await journal.close()
            raise
        return journal

    async def append(self, groups: Sequence[AppendGroup], *, command_id: str) -> int:
        return await self._appender.append(groups, command_id)

    async def load(self, aggregate: AggregateId, *, after_version: int = 0) -> list[RecordedEvent]:
        return await self._access.load(aggregate, after_version)

    async def head(self) -> int:
        return await self._access.head()

    async def close(self) -> None:
        """Also ends every `follow` that still runs."""
        self._is_closed = True
        for connection in tuple(self._reading_connections):
            await connection.abandon()
        await self._access.close()

    async def replay(self, *, after: int = 0, until: int | None = None, filters: Sequence[str] = ()) -> AsyncIterator[Batch]:
        subjects = self._subjects(filters)
        head = await self._head_behind(after)
        end = head if until is None else min(until, head)
        if after >= end:
            return
        async with aclosing(self._read(after, subjects, self._access.timeout_s, end)) as batches:
            async for batch in batches:
                yield batch

    async def follow(self, *, after: int = 0, filters: Sequence[str] = ()) -> AsyncIterator[Batch]:
        batches = self._read(after, self._subjects(filters), self._follow_away_s_max, None)
        async with aclosing(batches):
            async for batch in batches:
                yield batch

    def _subjects(self, filters: Sequence[str]) -> list[str]:
        env = self._access.env
        return [
            self._access.subject(AggregateId.parse(one.kind, one.key)) if one.key else journal_filter(env, one.kind)
            for one in parse_filters(filters)
        ]

    async def _head_behind(self, after: int) -> int:
        head = await self._access.head()
        if after > head:
            raise Conflict(f"the journal {self._access.stream} ends at position {head}, before position {after}")
        return head

    async def _read(
        self, after: int, subjects: Sequence[str], away_s_max: float | None, end: int | None
    ) -> AsyncGenerator[Batch, None]:
        """Readings one after another until `end` (None = never); each goes on behind what was handed out."""
        loop = asyncio.get_running_loop()
        attempt = 0
        failing_since: float | None = None
        while not self._is_closed:
            try:
                async with aclosing(self._reading(after, subjects, end)) as reading:
                    async for batch, is_end in reading:
                        self._tell("")
                        if batch:
                            after = batch[-1].position
                            attempt = 0
                            yield batch
                        if batch or end is None:
                            failing_since = None
                        if is_end:
                            return
            except Unavailable as error:
                if self._is_closed:
                    return
                self._tell(error.message)
                failing_since = failing_since or loop.time()
                if away_s_max is not None and loop.time() - failing_since >= away_s_max:
                    raise
                attempt += 1
                await asyncio.sleep(backoff_s(attempt, self._random, first_s=0.02, max_s=2.0))

    async def _reading(self, after: int, subjects: Sequence[str], end: int | None) -> AsyncGenerator[tuple[Batch, bool], None]:
        """One reading: (batch, whether it was the last one); the first batch may be empty: it says that we are reading."""
        access = self._access
        connection = await Connection.open(access.url, name=access.name, timeout_s=access.timeout_s, bodies_only=True)
        self._reading_connections.add(connection)
        try:
            await self._head_behind(after)
            reading = await PullReading.open(
                connection, access.stream, after=after, subjects=subjects, timeout_s=access.timeout_s
            )
            yield [], end is not None and not reading.pending
            while True:
                delivered = await reading.next()
                last = delivered[-1]
                if end is not None and last.seq > end:
                    delivered = [one for one in delivered if one.seq <= end]
                batch = [access.reader.read(one.seq, one.subject, one.payload) for one in delivered]
                is_end = end is not None and (last.seq >= end or not last.pending)
                if is_end:
                    await reading.close()
                yield batch, is_end
        finally:
            self._reading_connections.discard(connection)
            await connection.close()

    def _tell(self, trouble: str) -> None:
        if trouble == self.trouble:
            return
        self.trouble = trouble
        if self._on_trouble is not None:
            self._on_trouble(trouble)
