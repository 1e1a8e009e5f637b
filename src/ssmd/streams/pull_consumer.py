"""Reading a stream in order: an ephemeral pull consumer with two requests outstanding, checked for holes.

Promise: every message that matches, once, in stream order, from a start position on. What is not asked for is not
sent, so memory is bounded by three requests. Each message's consumer sequence must follow the one before it; a hole, a
deleted consumer, a lost connection or a silent server end this consumer (`failure`), and the owner makes another one
behind the last message it got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.errors import Unavailable
from ssmd.streams.connection import API, STATUS_HEADER, Connection
from ssmd.streams.nats_client import Arrived
from ssmd.streams.nats_py import Msg

API_TIMEOUT_S: Final = 5.0
EXPIRES_S: Final = 30.0
HEARTBEAT_S: Final = 1.0
SILENCE_S: Final = 3.5
"""Without a message or heartbeat for this long while requests are out, the server is taken for gone."""
INACTIVE_S: Final = 120.0
"""The server drops a consumer nobody asks for so long; the reader of one that was slower makes another one."""
PENDING: Final = "Nats-Pending-Messages"
_REQUEST_ENDED: Final = frozenset({"404", "408", "409"})
_IDLE: Final = "100"


class Pulled(NamedTuple):
    """One message: stream sequence, subject, payload, headers as they came (`nats_client.message_id_of`), and how many
    matching messages the stream held behind it when it was sent.
    """

    seq: int
    subject: str
    payload: bytes
    headers: bytes
    pending: int


class PullConsumer:
    """See the module. Made by `open`; one reader.

    Attributes:
        failure: why this consumer delivers no more, "" while it does.
        last_seq: stream sequence of the last message handed out, or the position it was opened behind.
        pending: matching messages in the stream when the consumer was made.
    """

    def __init__(self, connection: Connection, stream: str, after: int, batch: int, batch_bytes: int) -> None:
        self.failure = ""
        self.last_seq = after
        self.pending = 0
        self._connection = connection
        self._stream = stream
        self._batch = batch
        request = {
            "batch": batch,
            "expires": int(EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
            **({"max_bytes": batch_bytes} if batch_bytes else {}),
        }
        self._request = msgspec.json.encode(request)
        self._name = ""
        # One inbox for all requests: two subscriptions would be two queues, and the order between them lost.
        self._inbox = connection.new_inbox()
        self._credit = 0
        self._consumer_seq = 0
        self._held: list[Arrived] = []
        self._arrived = asyncio.Event()
        self._last_activity_s = 0.0

    @classmethod
    async def open(
        cls, connection: Connection, stream: str, *, after: int, filters: Sequence[str], batch: int, batch_bytes: int = 0
    ) -> PullConsumer:
        """A consumer of the messages behind sequence `after`.

        Args:
            batch: messages of one request; two requests are outstanding.
            batch_bytes: bound of one request in bytes (more than the largest message), 0 = none.

        Raises:
            ApiRefused: the stream does not exist, or the filters are none of its subjects.
            Unavailable: no answer.
        """
        consumer = cls(connection, stream, after, batch, batch_bytes)
        await consumer._create(tuple(filters))
        return consumer

    async def _create(self, filters: tuple[str, ...]) -> None:
        config: dict[str, Any] = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.last_seq + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "max_waiting": 8,
            "inactive_threshold": int(INACTIVE_S * 1e9),
            **({"filter_subjects": list(filters)} if filters else {}),
        }
        await self._connection.subscribe_in_bulk(self._inbox, self._on_bulk, self._on_message)
        answer = await self._connection.api(
            f"CONSUMER.CREATE.{self._stream}", {"stream_name": self._stream, "config": config}, timeout_s=API_TIMEOUT_S
        )
        self._name = answer["name"]
        self.pending = int(answer.get("num_pending", 0))
        self._last_activity_s = asyncio.get_running_loop().time()
        self._connection.when_lost(self._arrived.set)
        await self._top_up()

    async def _ask(self) -> None:
        try:
            await self._top_up()
        except Unavailable as error:
            self._fail(error.message)

    async def _top_up(self) -> None:
        while self._credit <= self._batch and len(self._held) <= self._batch and not self.failure:
            self._credit += self._batch
            await self._connection.publish(
                f"{API}CONSUMER.MSG.NEXT.{self._stream}.{self._name}", self._request, reply=self._inbox
            )

    async def _on_bulk(self, messages: list[Arrived]) -> None:
        self._held += messages
        self._credit -= len(messages)
        if self._credit <= self._batch and self._connection.is_open:
            await self._ask()
        self._arrived.set()

    async def _on_message(self, msg: Msg) -> None:
        if msg.reply:
            # nats-py is not what it was: one by one, then.
            lines = [f"{name}: {value}\r\n" for name, value in (msg.headers or {}).items()]
            await self._on_bulk([(msg.subject, msg.reply, msg.data, "".join(("NATS/1.0\r\n", *lines, "\r\n")).encode())])
        else:
            self._on_status(msg.headers or {})
            self._arrived.set()

    def _on_status(self, headers: dict[str, str]) -> None:
        """A request is over: what it still had to deliver is said in its status. Anything but that is the end."""
        self._last_activity_s = asyncio.get_running_loop().time()
        status = headers.get(STATUS_HEADER, "")
        if status in _REQUEST_ENDED and PENDING in headers:
            self._credit -= int(headers[PENDING])
        elif status != _IDLE:
            self._fail(f"the server ended the consumer: {status} {headers.get('Description', '')}".rstrip())

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._arrived.set()

    async def next(self, timeout_s: float, limit: int = 0) -> list[Pulled]:
        """Up to `limit` messages (0 = all that are here); [] when none came within `timeout_s` or it failed and holds none."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self._held and not self.failure:
            if not self._connection.is_open:
                self._fail(f"connection lost: {self._connection.reason or 'closed'}")
                break
            await self._ask()
            self._arrived.clear()
            wait_s = min(deadline - loop.time(), HEARTBEAT_S)
            if wait_s <= 0:
                break
            try:
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                self._check_silence(loop.time())
        taken, self._held = (self._held[:limit], self._held[limit:]) if limit else (self._held, [])
        if taken:
            self._last_activity_s = loop.time()
        if not self.failure:
            await self._ask()
        return self._unpacked(taken)

    def _unpacked(self, taken: list[Arrived]) -> list[Pulled]:
        """The messages up to a hole; behind one nothing is handed out."""
        pulled: list[Pulled] = []
        append, new, expected = pulled.append, tuple.__new__, self._consumer_seq + 1
        for subject, reply, payload, headers in taken:
            # $JS.ACK.stream.consumer.deliveries.SEQ.NUMBER.time.PENDING; with domain and account hash it is longer.
            tokens = reply.split(".")
            seq, number, _, pending = tokens[5:] if len(tokens) == 9 else tokens[7:11]
            if int(number) != expected:
                self._fail(f"the consumer's message {number} follows {expected - 1}")
                self._held.clear()
                break
            expected += 1
            # Without the detour through the named tuple's own function, which takes as long as all the rest.
            append(new(Pulled, (int(seq), subject, payload, headers, int(pending))))
        self._consumer_seq = expected - 1
        if pulled:
            self.last_seq = pulled[-1].seq
        return pulled

    def _check_silence(self, now_s: float) -> None:
        if self._credit and now_s - self._last_activity_s > SILENCE_S:
            self._fail(f"no heartbeat for {now_s - self._last_activity_s:.1f} s")

    async def close(self) -> None:
        """End it on the server too, as far as that answers. Safe to call twice."""
        self._fail("closed")
        if self._name and self._connection.is_open:
            await self._connection.publish(f"{API}CONSUMER.DELETE.{self._stream}.{self._name}", b"")
            self._name = ""
