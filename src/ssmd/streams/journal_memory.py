"""The journal in memory: for tests and for environments with `journal: memory`, where all runs in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from ssmd.domain.envelope import AggregateId, encode_envelope
from ssmd.errors import Conflict, Unavailable
from ssmd.streams.journal import AppendGroup, PoisonEvent, RecordedEvent
from ssmd.streams.journal_checks import (
    Filter,
    Reader,
    check_append,
    command_id_reused,
    conflict,
    contiguous,
    is_written,
    parse_filters,
)
from ssmd.streams.subjects import journal as journal_subject
from ssmd.streams.subjects import journal_filter

BATCH_MAX: Final = 1000
"""Messages handed out at once, at most."""


class _Stored(NamedTuple):
    subject: str
    message: RecordedEvent | PoisonEvent


class MemoryJournal:
    """Events held in a list, unbounded: for runs whose size the caller bounds.

    Args:
        env: name of the environment; stands in the subjects, as on a server.
    """

    def __init__(self, env: str = "memory") -> None:
        self._env = env
        self._reader = Reader(journal_filter(env)[:-1])
        self._stored: list[_Stored] = []
        self._by_subject: dict[str, list[RecordedEvent | PoisonEvent]] = {}
        self._is_closed = False
        self._commands: set[str] = set()
        self._appended = asyncio.Event()
        self.is_away = False
        """Set to True, every call raises Unavailable, as with a server that is down."""

    def _check_here(self) -> None:
        if self.is_away:
            raise Unavailable("the memory journal has been told to be away")

    def put(self, subject: str, payload: bytes) -> int:
        """Store one message as it is, as anybody with access to a server could; its position."""
        position = len(self._stored) + 1
        message = self._reader.read(position, subject, payload)
        self._stored.append(_Stored(subject, message))
        self._by_subject.setdefault(subject, []).append(message)
        self._appended.set()
        self._appended = asyncio.Event()
        return position

    def _version(self, aggregate: AggregateId) -> int:
        held = self._by_subject.get(journal_subject(self._env, *aggregate), [])
        return next((one.envelope.version for one in reversed(held) if isinstance(one, RecordedEvent)), 0)

    def _events(self, aggregate: AggregateId, after_version: int) -> list[RecordedEvent]:
        held = self._by_subject.get(journal_subject(self._env, *aggregate), [])
        return contiguous(aggregate, after_version, held)

    async def append(self, groups: Sequence[AppendGroup], *, command_id: str) -> int:
        check_append(groups)
        self._check_here()
        moved = next((group for group in groups if self._version(group.aggregate) != group.expected_version), None)
        if moved is not None:
            written = [self._events(group.aggregate, group.expected_version) for group in groups]
            if all(map(is_written, groups, written)):
                return written[-1][len(groups[-1].events) - 1].position
        if command_id and command_id in self._commands:
            raise command_id_reused(command_id)
        if moved is not None:
            raise conflict(moved, self._version(moved.aggregate))
        position = 0
        for group in groups:
            subject = journal_subject(self._env, *group.aggregate)
            for envelope in group.events:
                position = self.put(subject, encode_envelope(envelope))
        if command_id:
            self._commands.add(command_id)
        return position

    async def load(self, aggregate: AggregateId, *, after_version: int = 0, after_position: int = 0) -> list[RecordedEvent]:
        del after_position  # the aggregate's list is at hand
        self._check_here()
        return self._events(aggregate, after_version)

    async def replay(
        self, *, after: int = 0, until: int | None = None, filters: Sequence[str] = ()
    ) -> AsyncIterator[list[RecordedEvent | PoisonEvent]]:
        wanted = parse_filters(filters)
        self._check_position(after)
        end = len(self._stored) if until is None else min(until, len(self._stored))
        while after < end:
            self._check_here()
            batch, after = self._batch(after, end, wanted)
            if batch:
                yield batch

    async def follow(self, *, after: int = 0, filters: Sequence[str] = ()) -> AsyncIterator[list[RecordedEvent | PoisonEvent]]:
        wanted = parse_filters(filters)
        self._check_position(after)
        while not self._is_closed:
            appended = self._appended
            batch, after = self._batch(after, len(self._stored), wanted)
            if batch:
                yield batch
            elif after == len(self._stored):
                await appended.wait()

    def _check_position(self, after: int) -> None:
        self._check_here()
        if after > len(self._stored):
            raise Conflict(f"the journal ends at position {len(self._stored)}, before position {after}")

    def _batch(self, after: int, end: int, wanted: list[Filter]) -> tuple[list[RecordedEvent | PoisonEvent], int]:
        reached = min(after + BATCH_MAX, end)
        skip = len(self._reader.prefix)
        return [
            stored.message
            for stored in self._stored[after:reached]
            if not wanted or any(one.matches(stored.subject[skip:]) for one in wanted)
        ], reached

    async def restore(self, after: int, messages: Sequence[tuple[str, bytes]]) -> int:
        self._check_here()
        if len(self._stored) != after:
            raise Conflict(f"the journal ends at position {len(self._stored)}, expected {after}")
        for tail, payload in messages:
            self.put(self._reader.prefix + tail, payload)
        return len(self._stored)

    async def head(self) -> int:
        self._check_here()
        return len(self._stored)

    async def close(self) -> None:
        """Ends every `follow` that still runs; what is held stays."""
        self._is_closed = True
        self._appended.set()
