"""The journal's server by request and reply: the connection, where an aggregate ends, and its events.

Where an aggregate ends is asked of the stream's leader (measured: direct reads of three replicas were stale in 25 of
1500, the leader never); its events are read directly, up to that end.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.domain.envelope import AggregateId
from ssmd.errors import Malformed, Unavailable
from ssmd.streams.connection import STATUS_HEADER, ApiRefused, Connection
from ssmd.streams.journal import PoisonEvent, RecordedEvent
from ssmd.streams.journal_checks import Reader, contiguous
from ssmd.streams.subjects import journal as journal_subject
from ssmd.streams.subjects import journal_filter
from ssmd.streams.topology import STREAM_NOT_FOUND, stream_name

NO_MESSAGE_FOUND: Final = 10037
TAILS_MAX: Final = 200_000
"""Ends of aggregates remembered (about 300 bytes each), the oldest forgotten first."""

BATCH_MAX: Final = 1000
BATCH_BYTES_MAX: Final = 32 << 20


class Tail(NamedTuple):
    """The end of an aggregate: stream sequence of the last message on its subject, version of its last event."""

    seq: int
    version: int


NEW: Final = Tail(0, 0)


class JournalAccess:
    """Not thread-safe. Connects when first asked; a lost connection is replaced at the next question.

    Args:
        timeout_s: deadline of every single request.
    """

    def __init__(self, url: str, env: str, *, timeout_s: float, name: str) -> None:
        self.url = url
        self.env = env
        self.name = name
        self.timeout_s = timeout_s
        self.stream = stream_name(env, "journal")
        self.reader = Reader(journal_filter(env)[:-1])
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._tails: dict[str, Tail] = {}

    def subject(self, aggregate: AggregateId) -> str:
        """The exact subject of `aggregate`."""
        return journal_subject(self.env, aggregate.aggregate, aggregate.parts)

    async def connection(self) -> Connection:
        """The connection that stands, or a new one.

        Raises:
            Unavailable, Misconfigured: as `Connection.open`.
        """
        async with self._opening:
            if self._connection is not None and not self._connection.is_open:
                lost, self._connection = self._connection, None
                await lost.abandon()
            if self._connection is None:
                self._connection = await Connection.open(self.url, name=self.name, timeout_s=self.timeout_s)
            return self._connection

    async def abandon(self) -> None:
        """Drop the connection: nothing that is still in this process is sent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.abandon()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def api(self, verb: str, body: Any = None) -> dict[str, Any]:
        """As `Connection.api`, with the mending command where the stream is missing."""
        connection = await self.connection()
        try:
            return await connection.api(verb, body, timeout_s=self.timeout_s)
        except ApiRefused as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise Unavailable(f"there is no stream {self.stream} at {connection.url}", mend="ssmd streams apply") from error
            raise

    async def head(self) -> int:
        """Sequence of the last message."""
        return int((await self.api(f"STREAM.INFO.{self.stream}"))["state"]["last_seq"])

    # Ends of aggregates

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
        last = await self._last(subject)
        if last is None:
            tail = NEW
        elif isinstance(last, RecordedEvent):
            tail = Tail(last.position, last.envelope.version)
        else:
            events = await self._events(aggregate, 0, 1, last.position)
            tail = Tail(last.position, events[-1].envelope.version if events else 0)
        self.remember(subject, tail)
        return tail

    async def _last(self, subject: str) -> RecordedEvent | PoisonEvent | None:
        return await self._get({"last_by_subj": subject})

    async def _get(self, query: dict[str, Any]) -> RecordedEvent | PoisonEvent | None:
        try:
            answer = await self.api(f"STREAM.MSG.GET.{self.stream}", query)
        except ApiRefused as error:
            if error.err_code == NO_MESSAGE_FOUND:
                return None
            raise
        message = answer["message"]
        payload = base64.b64decode(message.get("data", ""))
        return self.reader.read(int(message["seq"]), message["subject"], payload)

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
        last = await self._last(subject)
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
        subject = self.subject(aggregate)
        messages: list[RecordedEvent | PoisonEvent] = []
        while first_seq <= last_seq:
            batch = await self._direct(subject, first_seq) or await self._from_leader(subject, first_seq)
            messages += [one for one in batch if one.position <= last_seq]
            first_seq = batch[-1].position + 1
        return contiguous(aggregate, after_version, messages)

    async def _direct(self, subject: str, first_seq: int) -> list[RecordedEvent | PoisonEvent]:
        connection = await self.connection()
        query = {"seq": first_seq, "next_by_subj": subject, "batch": BATCH_MAX, "max_bytes": BATCH_BYTES_MAX}
        replies = await connection.request_many(
            f"$JS.API.DIRECT.GET.{self.stream}", msgspec.json.encode(query), timeout_s=self.timeout_s
        )
        messages = []
        for reply in replies:
            headers = reply.headers or {}
            if "Nats-Sequence" in headers and STATUS_HEADER not in headers:
                messages.append(self.reader.read(int(headers["Nats-Sequence"]), headers["Nats-Subject"], reply.data))
        return messages

    async def _from_leader(self, subject: str, first_seq: int) -> list[RecordedEvent | PoisonEvent]:
        """One message, where the replica that answered directly is behind."""
        message = await self._get({"seq": first_seq, "next_by_subj": subject})
        if message is None:
            raise Malformed(f"{self.stream} no longer holds what stood on {subject} from {first_seq} on")
        return [message]
