"""The journal on JetStream: stream `{env}-journal`, one exact subject per aggregate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

from ssmd.domain.envelope import AggregateId
from ssmd.errors import Conflict
from ssmd.identifiers import RandomBytes, system_random
from ssmd.streams.journal import AppendGroup, PoisonEvent, RecordedEvent
from ssmd.streams.journal_checks import parse_filters
from ssmd.streams.journal_nats_access import JournalAccess
from ssmd.streams.journal_nats_append import Appender
from ssmd.streams.journal_nats_group import GroupCommit
from ssmd.streams.journal_nats_read import StreamReader
from ssmd.streams.pull_consumer import Pulled
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
        self._group_commit = GroupCommit(self._appender)
        self._follow_away_s_max = follow_away_s_max
        self._reader = StreamReader(
            url,
            self._access.stream,
            name=name,
            timeout_s=timeout_s,
            random=random,
            on_trouble=on_trouble or (lambda _trouble: None),
        )

    @property
    def trouble(self) -> str:
        """Why a reading does not go on at present; "" = all do."""
        return self._reader.trouble

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
        return await self._group_commit.append(groups, command_id)

    async def load(self, aggregate: AggregateId, *, after_version: int = 0, after_position: int = 0) -> list[RecordedEvent]:
        return await self._access.load(aggregate, after_version, after_position)

    async def restore(self, after: int, messages: Sequence[tuple[str, bytes]]) -> int:
        return await self._appender.restore(after, messages)

    async def head(self) -> int:
        return await self._access.head()

    async def close(self) -> None:
        """Also ends every `follow` that still runs."""
        await self._group_commit.close()
        await self._reader.close()
        await self._access.close()

    async def replay(self, *, after: int = 0, until: int | None = None, filters: Sequence[str] = ()) -> AsyncIterator[Batch]:
        subjects = self._subjects(filters)
        head = await self._access.head()
        if after > head:
            raise Conflict(f"the journal {self._access.stream} ends at position {head}, before position {after}")
        end = head if until is None else min(until, head)
        if after >= end:
            return
        read = self._reader.read(after=after, subjects=subjects, end=end, away_s_max=self._access.timeout_s)
        async with aclosing(read) as batches:
            async for batch in batches:
                yield self._events(batch)

    async def follow(self, *, after: int = 0, filters: Sequence[str] = ()) -> AsyncIterator[Batch]:
        read = self._reader.read(after=after, subjects=self._subjects(filters), away_s_max=self._follow_away_s_max)
        async with aclosing(read) as batches:
            async for batch in batches:
                yield self._events(batch)

    def _events(self, batch: Sequence[Pulled]) -> Batch:
        return self._access.reader.read_all(batch)

    def _subjects(self, filters: Sequence[str]) -> list[str]:
        env = self._access.env
        return [
            self._access.subject(AggregateId.parse(one.kind, one.key)) if one.key else journal_filter(env, one.kind)
            for one in parse_filters(filters)
        ]
