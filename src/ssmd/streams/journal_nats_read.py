"""Reading the journal's stream in order: one ephemeral pull consumer per reading, watched for everything it could drop.

Bounds: at most two requests are outstanding, so at most twice REQUEST_MESSAGES messages (and REQUEST_BYTES) are on their
way and as many wait here. The consumer numbers what it delivers; a number left out ends the reading, and whoever reads
begins another one behind the last message it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from ssmd.errors import Unavailable
from ssmd.streams.connection import STATUS_HEADER, Connection

REQUEST_MESSAGES: Final = 2000
REQUEST_BYTES: Final = 32 << 20
REQUEST_EXPIRES_S: Final = 30
HEARTBEAT_S: Final = 2.0
SILENCE_S_MAX: Final = 3 * HEARTBEAT_S
"""No message and no heartbeat for so long: the consumer or the connection is gone."""

INACTIVE_S_MAX: Final = 120
"""The server drops a consumer nobody asks for so long; a reader that was slower begins another one."""

NS_PER_S: Final = 1_000_000_000

REQUEST_OVER: Final = frozenset({"404", "408", "409"})
"""Statuses that end one request; what it still had to deliver is said in Nats-Pending-Messages."""


class Delivered(NamedTuple):
    """One message; `pending` = how many matching ones the stream held behind it at that time."""

    seq: int
    pending: int
    subject: str
    payload: bytes


class PullReading:
    """One consumer on one connection, used by one task. Made by `open`."""

    def __init__(self, connection: Connection, stream: str) -> None:
        self._connection = connection
        self._stream = stream
        self._consumer = ""
        self._inbox = connection.new_inbox()
        self._arrived = asyncio.Event()
        self._backlog: list[Msg] = []
        self._credit = 0
        self._delivered = 0
        self._failure = ""
        self._request = msgspec.json.encode(
            {
                "batch": REQUEST_MESSAGES,
                "max_bytes": REQUEST_BYTES,
                "expires": REQUEST_EXPIRES_S * NS_PER_S,
                "idle_heartbeat": round(HEARTBEAT_S * NS_PER_S),
            }
        )
        self.pending = 0
        """Matching messages in the stream when the consumer was made."""

    @classmethod
    async def open(
        cls, connection: Connection, stream: str, *, after: int, subjects: Sequence[str], timeout_s: float
    ) -> PullReading:
        """Begin behind sequence `after`.

        Raises:
            ApiRefused: the stream does not exist, or the subjects are none of its own.
            Unavailable: no answer.
        """
        reading = cls(connection, stream)
        config = {
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "filter_subjects": list(subjects),
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": INACTIVE_S_MAX * NS_PER_S,
            "max_waiting": 8,
        }
        body = {"stream_name": stream, "config": config}
        answer = await connection.api(f"CONSUMER.CREATE.{stream}", body, timeout_s=timeout_s)
        reading._consumer = answer["name"]
        reading.pending = int(answer.get("num_pending", 0))
        await connection.subscribe(reading._inbox, reading._on_message)
        connection.when_lost(reading._arrived.set)
        await reading._top_up()
        return reading

    async def _top_up(self) -> None:
        while self._credit <= REQUEST_MESSAGES and len(self._backlog) <= REQUEST_MESSAGES:
            self._credit += REQUEST_MESSAGES
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
            await self._connection.publish(subject, self._request, reply=self._inbox)

    async def _on_message(self, msg: Msg) -> None:
        if msg.reply:
            self._backlog.append(msg)
            self._credit -= 1
            if self._credit <= REQUEST_MESSAGES and self._connection.is_open:
                await self._top_up()
        else:
            self._on_status(msg.headers or {})
        self._arrived.set()

    def _on_status(self, headers: dict[str, Any]) -> None:
        status = headers.get(STATUS_HEADER)
        if status in REQUEST_OVER and "Nats-Pending-Messages" in headers:
            self._credit -= int(headers["Nats-Pending-Messages"])
        elif status != "100":
            self._failure = f"{status} {headers.get('Description', '')}".strip()

    async def next(self) -> list[Delivered]:
        """The next messages, at least one; waits for them.

        Raises:
            Unavailable: consumer or connection gone, silent, or not contiguous: begin another reading.
        """
        while not self._backlog:
            self._arrived.clear()
            if self._failure or not self._connection.is_open:
                why = self._failure or self._connection.reason
                raise Unavailable(f"reading {self._stream} at {self._connection.url} ended: {why}")
            await self._top_up()
            try:
                async with asyncio.timeout(SILENCE_S_MAX):
                    await self._arrived.wait()
            except TimeoutError as error:
                raise Unavailable(
                    f"{self._connection.url} has said nothing for {SILENCE_S_MAX:g} s while reading {self._stream}"
                ) from error
        backlog, self._backlog = self._backlog, []
        return [self._checked(msg) for msg in backlog]

    def _checked(self, msg: Msg) -> Delivered:
        tokens = msg.reply.split(".")
        # $JS.ACK.stream.consumer.deliveries.SEQ.NUMBER.time.PENDING; twelve tokens with domain and account hash before.
        base = 5 if len(tokens) == 9 else 7
        seq, number, pending = int(tokens[base]), int(tokens[base + 1]), int(tokens[base + 3])
        self._delivered += 1
        if number != self._delivered:
            raise Unavailable(
                f"{self._stream}: the consumer's message {self._delivered} did not come, next was {number} at {seq}"
            )
        return Delivered(seq, pending, msg.subject, msg.data)

    async def close(self) -> None:
        """Tell the server that the consumer is of no more use, if it can be told."""
        if self._consumer and self._connection.is_open:
            await self._connection.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}", b"")
