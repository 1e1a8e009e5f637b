"""What the recorders of `ssmd.streams.persistence` do, async: events, trackings and values on one JetStream stream.

    {base}.e.{originator}    stored events, in the order of their insertion; the stream sequence is the notification id
    {base}.t.{application}   trackings: the last message counts
    {base}.v.{key}           values a view writes together with a tracking: the last message counts

An insert is one message or one atomic batch. The first message on each subject carries the stream sequence of the last
one there, so versions and trackings are unique without a table: who comes second reads again, and finds out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from eventsourcing.persistence import IntegrityError, Notification, ProgrammingError, StoredEvent, Tracking

from ssmd.errors import Malformed, Unavailable
from ssmd.identifiers import RandomBytes, encode_token
from ssmd.streams.backoff import backoff_s
from ssmd.streams.connection import ApiRefused
from ssmd.streams.pull_consumer import Pulled
from ssmd.streams.stream_access import EXPECTED, MOVED, Held, Outgoing, StreamAccess

INSERT_MAX: Final = 1000
"""Messages in one insert, the tracking and values included: an atomic batch of JetStream holds no more."""

ATTEMPTS_MAX: Final = 50
OPEN_BATCHES_MAX: Final = 16
"""Inserts under way at once; the server takes 50 open batches of a stream."""

TOO_MANY_BATCHES: Final = 10210
TOKEN_CHARACTERS_MAX: Final = 512
TAILS_MAX: Final = 100_000


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A stored event as a message (msgpack).

    Attributes:
        highest: the highest version on the subject, this one included.
        insert: names the insert, so that a writer without an answer can tell its own events.
    """

    originator_id: str
    is_uuid: bool
    version: int
    highest: int
    insert: bytes
    topic: str
    state: bytes


class _Mark(msgspec.Struct, frozen=True, array_like=True):
    """A tracking or a value as a message (msgpack)."""

    insert: bytes
    position: int
    value: bytes = b""


class Tail(NamedTuple):
    """The end of a subject: its last sequence (0 = new), and its highest version or last position."""

    seq: int
    highest: int


class Change(NamedTuple):
    """A value to be written, if the last one under `key` still stands at sequence `seq` (0 = there is none)."""

    key: str
    value: bytes
    seq: int


_RECORD: Final = msgspec.msgpack.Decoder(Record)
_MARK: Final = msgspec.msgpack.Decoder(_Mark)


def token_of(name: str) -> str:
    """`name` as one token of a subject, whatever it is; no two names share one (but for a collision of sha256)."""
    if not name:
        return "%"
    token = encode_token(name)
    return token if len(token) <= TOKEN_CHARACTERS_MAX else f"%%{hashlib.sha256(name.encode()).hexdigest()}"


class EventStore:
    """One stream. Used on one event loop.

    Args:
        base: what its subjects begin with, several tokens.
    """

    def __init__(self, access: StreamAccess, base: str, random: RandomBytes) -> None:
        self.access = access
        self.base = base
        self._random = random
        self._tails: dict[str, Tail] = {}
        self._slots = asyncio.Semaphore(OPEN_BATCHES_MAX)

    @property
    def all_events(self) -> str:
        """The filter of all events."""
        return f"{self.base}.e.>"

    async def insert(self, events: Sequence[StoredEvent], tracking: Tracking | None, changes: Sequence[Change]) -> list[int]:
        """Write all or nothing.

        Returns:
            notification ids of the events.

        Raises:
            IntegrityError: a version or the tracking is there already, or a value has changed.
            ProgrammingError: more than INSERT_MAX messages.
            Unavailable: no answer; it may have been written.
        """
        count = len(events) + (tracking is not None) + len(changes)
        if not count:
            return []
        if count > INSERT_MAX:
            raise ProgrammingError(f"{count} messages in one insert; at most {INSERT_MAX} are atomic, none was written")
        async with self._slots:
            return await self._insert(events, tracking, changes)

    async def _insert(self, events: Sequence[StoredEvent], tracking: Tracking | None, changes: Sequence[Change]) -> list[int]:
        name = self._random(12)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            messages = await self._messages(name, events, tracking, changes)
            connection = await self.access.connection()
            for subject, _, _ in messages:
                self._tails.pop(subject, None)
            try:
                last = await self.access.send(connection, messages, self._random)
            except ApiRefused as error:
                if error.err_code not in {*MOVED, TOO_MANY_BATCHES}:
                    raise
                await asyncio.sleep(backoff_s(attempt, self._random, first_s=0.002, max_s=0.2))
                continue
            except Unavailable as error:
                return await self._settle(name, messages, len(events), error)
            if last is None:
                raise Malformed(f"{self.access.stream} took a message without an id for one seen before")
            first = last - len(messages) + 1
            self._remember(messages, first)
            return list(range(first, first + len(events)))
        raise Unavailable(f"others kept writing to {self.access.stream} through {ATTEMPTS_MAX} attempts")

    # What an insert consists of

    async def _messages(
        self, name: bytes, events: Sequence[StoredEvent], tracking: Tracking | None, changes: Sequence[Change]
    ) -> list[Outgoing]:
        messages: list[Outgoing] = []
        highest: dict[str, int] = {}
        versions = await self._checked_versions(events)
        for event in events:
            subject = self._event_subject(event.originator_id)
            headers = {}
            if subject not in highest:
                headers[EXPECTED] = str(versions[subject].seq)
                highest[subject] = versions[subject].highest
            highest[subject] = max(highest[subject], event.originator_version)
            record = Record(
                originator_id=str(event.originator_id),
                is_uuid=isinstance(event.originator_id, UUID),
                version=event.originator_version,
                highest=highest[subject],
                insert=name,
                topic=event.topic,
                state=event.state,
            )
            messages.append((subject, msgspec.msgpack.encode(record), headers))
        if tracking is not None:
            messages.append(await self._tracking_message(name, tracking))
        for change in changes:
            payload = msgspec.msgpack.encode(_Mark(name, 0, change.value))
            messages.append((f"{self.base}.v.{token_of(change.key)}", payload, {EXPECTED: str(await self._value_seq(change))}))
        return messages

    async def _checked_versions(self, events: Sequence[StoredEvent]) -> dict[str, Tail]:
        """Where the events' subjects end, if none of their versions is there already."""
        wanted: dict[str, list[int]] = {}
        for event in events:
            wanted.setdefault(self._event_subject(event.originator_id), []).append(event.originator_version)
        tails: dict[str, Tail] = {}
        for subject, versions in wanted.items():
            tail = self._tails.get(subject) or await self._event_tail(subject)
            if not tail.seq or min(versions) > tail.highest:
                taken = set[int]()
            else:
                tail = await self._event_tail(subject)
                taken = {_record(held).version for held in await self.access.between(subject, 1, tail.seq)}
            if len(set(versions)) != len(versions) or taken.intersection(versions):
                raise IntegrityError(f"a version of {versions} is already recorded on {subject}")
            tails[subject] = tail
        return tails

    async def _event_tail(self, subject: str) -> Tail:
        held = await self.access.last(subject)
        return Tail(0, -1) if held is None else Tail(held.seq, _record(held).highest)

    async def _tracking_message(self, name: bytes, tracking: Tracking) -> Outgoing:
        subject = f"{self.base}.t.{token_of(tracking.application_name)}"
        tail = self._tails.get(subject)
        if tail is None or tracking.notification_id <= tail.highest:
            held = await self.access.last(subject)
            tail = Tail(0, -1) if held is None else Tail(held.seq, _mark(held).position)
        if tail.seq and tracking.notification_id <= tail.highest:
            raise IntegrityError(f"{tracking} is not above {tail.highest}, which is recorded")
        return subject, msgspec.msgpack.encode(_Mark(name, tracking.notification_id)), {EXPECTED: str(tail.seq)}

    async def _value_seq(self, change: Change) -> int:
        held = await self.access.last(f"{self.base}.v.{token_of(change.key)}")
        found = 0 if held is None else held.seq
        if found != change.seq:
            raise IntegrityError(f"value {change.key!r} was written at {found}, read at {change.seq}")
        return found

    def _remember(self, messages: Sequence[Outgoing], first: int) -> None:
        for seq, (subject, payload, _) in enumerate(messages, first):
            if subject.startswith(f"{self.base}.e."):
                self._tails[subject] = Tail(seq, _RECORD.decode(payload).highest)
            elif subject.startswith(f"{self.base}.t."):
                self._tails[subject] = Tail(seq, _MARK.decode(payload).position)
        while len(self._tails) > TAILS_MAX:
            del self._tails[next(iter(self._tails))]

    async def _settle(self, name: bytes, messages: Sequence[Outgoing], events: int, cause: Unavailable) -> list[int]:
        """After an unclear outcome: whether the insert called `name` stands, seen behind all the server had taken."""
        await self.access.abandon()
        subject = messages[-1][0]
        await self.access.fence(subject)
        held = await self.access.last(subject)
        for message in [] if held is None else reversed(await self.access.between(subject, 1, held.seq)):
            is_event = subject.startswith(f"{self.base}.e.")
            insert = _record(message).insert if is_event else _mark(message).insert
            if insert == name:
                first = message.seq - len(messages) + 1
                return list(range(first, first + events))
        raise cause

    # Questions

    def _event_subject(self, originator_id: UUID | str) -> str:
        return f"{self.base}.e.{token_of(str(originator_id))}"

    async def events(
        self, originator_id: UUID | str, *, gt: int | None, lte: int | None, desc: bool, limit: int | None
    ) -> list[StoredEvent]:
        """As `AggregateRecorder.select_events`."""
        subject = self._event_subject(originator_id)
        held = await self.access.last(subject)
        if held is None:
            return []
        last = _record(held)
        if desc and limit == 1 and last.version == last.highest and (lte is None or last.version <= lte):
            records = [last]
        else:
            records = [_record(one) for one in await self.access.between(subject, 1, held.seq)]
        found = [
            StoredEvent(originator_id, one.version, one.topic, one.state)
            for one in sorted(records, key=lambda one: one.version, reverse=desc)
            if (gt is None or one.version > gt) and (lte is None or one.version <= lte)
        ]
        return found if limit is None else found[:limit]

    async def notifications(self, first: int, limit: int, stop: int | None, topics: Sequence[str]) -> list[Notification]:
        """The notifications from id `first` on, as `ApplicationRecorder.select_notifications`."""
        found: list[Notification] = []
        while len(found) < limit:
            batch = await self.access.some(
                self.all_events, first, INSERT_MAX if topics else min(limit - len(found), INSERT_MAX)
            )
            if not batch:
                break
            for held in batch:
                if stop is not None and held.seq > stop:
                    return found[:limit]
                notification = notification_of(held)
                if not topics or notification.topic in topics:
                    found.append(notification)
            first = batch[-1].seq + 1
        return found[:limit]

    async def max_notification_id(self) -> int | None:
        held = await self.access.last(self.all_events)
        return None if held is None else held.seq

    async def max_tracking_id(self, application_name: str) -> int | None:
        held = await self.access.last(f"{self.base}.t.{token_of(application_name)}")
        return None if held is None else _mark(held).position

    async def value(self, key: str) -> tuple[bytes, int]:
        """The value under `key` and the sequence it stands at; (b"", 0) = none."""
        held = await self.access.last(f"{self.base}.v.{token_of(key)}")
        return (b"", 0) if held is None else (_mark(held).value, held.seq)


def notification_of(held: Held | Pulled) -> Notification:
    """The notification a message is."""
    record = _record(held)
    originator_id = UUID(record.originator_id) if record.is_uuid else record.originator_id
    return Notification(originator_id, record.version, record.topic, record.state, held.seq)


def _record(held: Held | Pulled) -> Record:
    try:
        return _RECORD.decode(held.payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"not a stored event at {held.seq} on {held.subject}: {error}") from error


def _mark(held: Held) -> _Mark:
    try:
        return _MARK.decode(held.payload)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a tracking or value at {held.seq} on {held.subject}: {error}") from error
