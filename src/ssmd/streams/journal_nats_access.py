"""The journal's stream by request and reply: where its aggregates end, and their events."""

from __future__ import annotations

from typing import Final, NamedTuple

from ssmd.domain.envelope import AggregateId
from ssmd.errors import Malformed
from ssmd.streams.journal import PoisonEvent, RecordedEvent
from ssmd.streams.journal_checks import Reader, contiguous
from ssmd.streams.stream_access import Held, StreamAccess
from ssmd.streams.subjects import journal as journal_subject
from ssmd.streams.subjects import journal_filter
from ssmd.streams.topology import stream_name

TAILS_MAX: Final = 200_000
"""Ends of aggregates remembered (about 300 bytes each), the oldest forgotten first."""


class Tail(NamedTuple):
    """The end of an aggregate: stream sequence of the last message on its subject, version of its last event."""

    seq: int
    version: int


NEW: Final = Tail(0, 0)


class JournalAccess(StreamAccess):
    """See `StreamAccess`."""

    def __init__(self, url: str, env: str, *, timeout_s: float, name: str) -> None:
        super().__init__(url, stream_name(env, "journal"), timeout_s=timeout_s, name=name)
        self.env = env
        self.reader = Reader(journal_filter(env)[:-1])
        self._tails: dict[str, Tail] = {}

    def subject(self, aggregate: AggregateId) -> str:
        """The exact subject of `aggregate`."""
        return journal_subject(self.env, aggregate.aggregate, aggregate.parts)

    def _read(self, held: Held) -> RecordedEvent | PoisonEvent:
        return self.reader.read(held.seq, held.subject, held.payload)

    def remembered(self, subject: str) -> Tail | None:
        """Where the aggregate ended when last seen; another writer may have gone on."""
        return self._tails.get(subject)

    def remember(self, subject: str, tail: Tail) -> None:
        self._tails.pop(subject, None)
        self._tails[subject] = tail
        if len(self._tails) > TAILS_MAX:
            del self._tails[next(iter(self._tails))]

    def forget(self, subject: str) -> None:
        self._tails.pop(subject, None)

    async def tail(self, aggregate: AggregateId) -> Tail:
        """Where the aggregate ends now, by the leader."""
        subject = self.subject(aggregate)
        held = await self.last(subject)
        last = None if held is None else self._read(held)
        if last is None:
            tail = NEW
        elif isinstance(last, RecordedEvent):
            tail = Tail(last.position, last.envelope.version)
        else:
            events = await self._events(aggregate, 0, 1, last.position)
            tail = Tail(last.position, events[-1].envelope.version if events else 0)
        self.remember(subject, tail)
        return tail

    async def load(self, aggregate: AggregateId, after_version: int, after_position: int = 0) -> list[RecordedEvent]:
        """Events of the aggregate with a version above `after_version`, up to its end now.

        Args:
            after_position: a stream sequence below them; the server need not search the stream from its start.

        Raises:
            Malformed: versions are missing or twice there.
            Unavailable: no answer.
        """
        subject = self.subject(aggregate)
        before = self.remembered(subject)
        held = await self.last(subject)
        last = None if held is None else self._read(held)
        if last is None:
            self.remember(subject, NEW)
            return []
        if isinstance(last, RecordedEvent) and last.envelope.version <= after_version + 1:
            self.remember(subject, Tail(last.position, last.envelope.version))
            return [last] if last.envelope.version > after_version else []
        is_known = before is not None and before.version == after_version
        first_seq = before.seq + 1 if before is not None and is_known else after_position + 1
        events = await self._events(aggregate, after_version, first_seq, last.position)
        version = events[-1].envelope.version if events else after_version
        if isinstance(last, RecordedEvent) and last.envelope.version != version:
            raise Malformed(f"{aggregate} ends at version {last.envelope.version}, its events at {version}")
        if events or isinstance(last, RecordedEvent):
            self.remember(subject, Tail(last.position, version))
        return events

    async def _events(self, aggregate: AggregateId, after_version: int, first_seq: int, last_seq: int) -> list[RecordedEvent]:
        messages = await self.between(self.subject(aggregate), first_seq, last_seq)
        return contiguous(aggregate, after_version, map(self._read, messages))
