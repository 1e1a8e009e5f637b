"""One stream by request and reply: its connection, the messages it holds, and writes that are all or nothing.

Where a subject ends is asked of the stream's leader (measured: direct reads of three replicas were stale in 25 of 1500,
the leader never); what stands before that end is read directly, from any replica.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.errors import Malformed, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.streams.connection import API, STATUS_HEADER, ApiRefused, Connection, checked
from ssmd.streams.leader_watch import LeaderWatch, ask
from ssmd.streams.topology import STREAM_NOT_FOUND

EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_LAST: Final = "Nats-Expected-Last-Sequence"
MESSAGE_ID: Final = "Nats-Msg-Id"
BATCH_ID: Final = "Nats-Batch-Id"
BATCH_SEQUENCE: Final = "Nats-Batch-Sequence"
BATCH_COMMIT: Final = "Nats-Batch-Commit"

MOVED: Final = frozenset({10071, 10164})
"""Wrong last sequence; on three replicas also: a subject with a write in flight."""

DUPLICATE_BATCH: Final = 10201
NO_MESSAGE_FOUND: Final = 10037
IMPOSSIBLE_SEQUENCE: Final = str((1 << 63) - 1)

BATCH_MAX: Final = 1000
BATCH_BYTES_MAX: Final = 32 << 20

Outgoing = tuple[str, bytes, dict[str, str]]
"""(subject, payload, headers) of a message to be written."""


class Held(NamedTuple):
    """One message of the stream."""

    seq: int
    subject: str
    payload: bytes


class _Ack(msgspec.Struct, frozen=True):
    seq: int
    duplicate: bool = False


_ACK: Final = msgspec.json.Decoder(_Ack)


class StreamAccess:
    """Not thread-safe. Connects when first asked; a lost connection is replaced at the next question.

    Args:
        timeout_s: deadline of every single request.
    """

    def __init__(self, url: str, stream: str, *, timeout_s: float, name: str) -> None:
        self.url = url
        self.stream = stream
        self.name = name
        self.timeout_s = timeout_s
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._watch = LeaderWatch(stream)

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
        await self._watch.close()

    async def api(self, verb: str, body: Any = None) -> dict[str, Any]:
        """As `Connection.api` for questions, with the mending command where the stream is missing."""
        connection = await self.connection()
        try:
            return await ask(connection, verb, body, timeout_s=self.timeout_s)
        except ApiRefused as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise Unavailable(f"there is no stream {self.stream} at {connection.url}", mend="ssmd streams apply") from error
            raise

    async def head(self) -> int:
        """Sequence of the last message, 0 = empty."""
        return int((await self.api(f"STREAM.INFO.{self.stream}"))["state"]["last_seq"])

    async def last(self, subject: str) -> Held | None:
        """The last message on `subject` (which may be a filter), by the leader."""
        return await self._leader({"last_by_subj": subject})

    async def _leader(self, query: Mapping[str, Any]) -> Held | None:
        try:
            answer = await self.api(f"STREAM.MSG.GET.{self.stream}", query)
        except ApiRefused as error:
            if error.err_code == NO_MESSAGE_FOUND:
                return None
            raise
        message = answer["message"]
        return Held(int(message["seq"]), message["subject"], base64.b64decode(message.get("data", "")))

    async def between(self, subject: str, first_seq: int, last_seq: int) -> list[Held]:
        """All messages on `subject` from `first_seq` to `last_seq`, both included, at which one must stand.

        Raises:
            Malformed: the stream no longer holds them.
        """
        messages: list[Held] = []
        while first_seq <= last_seq:
            batch = await self.some(subject, first_seq) or [await self._there(subject, first_seq)]
            messages += [one for one in batch if one.seq <= last_seq]
            first_seq = batch[-1].seq + 1
        return messages

    async def _there(self, subject: str, first_seq: int) -> Held:
        """One message, where the replica that answered directly is behind."""
        message = await self._leader({"seq": first_seq, "next_by_subj": subject})
        if message is None:
            raise Malformed(f"{self.stream} no longer holds what stood on {subject} from {first_seq} on")
        return message

    async def some(self, subject: str, first_seq: int, count: int = BATCH_MAX) -> list[Held]:
        """Up to `count` messages on `subject` from `first_seq` on, by any replica: the newest may still be missing."""
        connection = await self.connection()
        query = {"seq": max(1, first_seq), "next_by_subj": subject, "batch": count, "max_bytes": BATCH_BYTES_MAX}
        body = msgspec.json.encode(query)
        replies = await connection.request_many(f"{API}DIRECT.GET.{self.stream}", body, timeout_s=self.timeout_s)
        messages = []
        for reply in replies:
            headers = reply.headers or {}
            if "Nats-Sequence" in headers and STATUS_HEADER not in headers:
                messages.append(Held(int(headers["Nats-Sequence"]), headers["Nats-Subject"], reply.data))
        return messages

    async def send(self, connection: Connection, messages: Sequence[Outgoing], random: RandomBytes) -> int | None:
        """Write one message as a request, several as one atomic batch; the sequence of the last one.

        Returns:
            None = the server has seen the (single) message's id already.

        Raises:
            ApiRefused: nothing was written.
            Unavailable: outcome not known.
        """
        if len(messages) > 1:
            batch_id = random(12).hex()
            for sequence, (_, _, headers) in enumerate(messages, 1):
                headers[BATCH_ID] = batch_id
                headers[BATCH_SEQUENCE] = str(sequence)
            for subject, payload, headers in messages[:-1]:
                await connection.publish(subject, payload, headers=headers)
            messages[-1][2][BATCH_COMMIT] = "1"
        subject, payload, headers = messages[-1]
        with self._watch.waiting(connection):
            reply = await connection.request(subject, payload, timeout_s=self.timeout_s, headers=headers)
        if b'"error"' in reply.data:
            checked(reply.data, f"append to {self.stream}")
        try:
            ack = _ACK.decode(reply.data)
        except msgspec.DecodeError as error:
            raise Unavailable(f"append to {self.stream}: no acknowledgement: {reply.data[:80]!r}") from error
        return None if ack.duplicate else ack.seq

    async def fence(self, subject: str) -> None:
        """A write that must fail; its refusal comes after what the stream had queued before.

        Raises:
            Unavailable: no answer.
        """
        connection = await self.connection()
        reply = await connection.request(subject, b"", timeout_s=self.timeout_s, headers={EXPECTED: IMPOSSIBLE_SEQUENCE})
        try:
            checked(reply.data, f"fence on {self.stream}")
        except ApiRefused as error:
            if error.err_code not in MOVED:
                raise
