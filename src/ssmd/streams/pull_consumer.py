"""Reading a stream in order: an ephemeral pull consumer with two requests outstanding, checked for holes.

Promise: every message that matches, once, in stream order, from a start position on. What is not asked for is not
sent, so memory is bounded by three requests. Each message's consumer sequence must follow the one before it; a hole, a
deleted consumer, a lost connection or a silent server end this consumer (`failure`), and the owner makes another one
behind the last message it got.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from ssmd.errors import Unavailable
from ssmd.streams.connection import API, STATUS_HEADER, Connection

API_TIMEOUT_S: Final = 5.0
EXPIRES_S: Final = 10.0
HEARTBEAT_S: Final = 1.0
SILENCE_S: Final = 3.5
"""Without a message or heartbeat for this long while requests are out, the server is taken for gone."""
INACTIVE_S: Final = 60.0
MESSAGE_ID: Final = "Nats-Msg-Id"
PENDING: Final = "Nats-Pending-Messages"
_REQUEST_ENDED: Final = frozenset({"404", "408", "409"})
_IDLE: Final = "100"


class Pulled(NamedTuple):
    """One message: its stream sequence, subject, payload and headers."""

    seq: int
    subject: str
    payload: bytes
    headers: dict[str, str] | None


class PullConsumer:
    """See the module. Made by `open`; one reader.

    Attributes:
        failure: why this consumer is of no more use, "" while it is.
        last_seq: stream sequence of the last message taken in, or the position it was opened behind.
    """

    def __init__(self, connection: Connection, stream: str, after: int, batch: int, batch_bytes: int) -> None:
        self.failure = ""
        self.last_seq = after
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
        self._held: deque[Pulled] = deque()
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
            Unavailable: no answer, or the stream does not exist.
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
        await self._connection.subscribe(self._inbox, self._on_message)
        answer = await self._connection.api(
            f"CONSUMER.CREATE.{self._stream}", {"stream_name": self._stream, "config": config}, timeout_s=API_TIMEOUT_S
        )
        self._name = answer["name"]
        self._last_activity_s = asyncio.get_running_loop().time()
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

    async def _on_message(self, msg: Msg) -> None:
        self._last_activity_s = asyncio.get_running_loop().time()
        # A delivery's reply subject carries both sequences; a status message is answered by nobody.
        if not msg.reply:
            self._on_status(msg.headers or {})
            return
        fields = msg.reply.split(".")
        stream_seq, consumer_seq = int(fields[-4]), int(fields[-3])
        if consumer_seq != self._consumer_seq + 1:
            self._fail(f"consumer sequence {consumer_seq} follows {self._consumer_seq}")
            return
        self._consumer_seq = consumer_seq
        self.last_seq = stream_seq
        self._credit -= 1
        self._held.append(Pulled(stream_seq, msg.subject, msg.data, msg.headers))
        self._arrived.set()

    def _on_status(self, headers: dict[str, str]) -> None:
        """A request is over: what it still had to deliver is said in its status. Anything but that is the end."""
        status = headers.get(STATUS_HEADER, "")
        if status in _REQUEST_ENDED and PENDING in headers:
            self._credit -= int(headers[PENDING])
            self._arrived.set()
        elif status != _IDLE:
            self._fail(f"the server ended the consumer: {status} {headers.get('Description', '')}".rstrip())

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._arrived.set()

    async def next(self, timeout_s: float, limit: int) -> list[Pulled]:
        """Up to `limit` messages; [] when none came within `timeout_s` or this consumer has failed and holds nothing."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self._held and not self.failure:
            await self._ask()
            self._arrived.clear()
            wait_s = min(deadline - loop.time(), HEARTBEAT_S / 4)
            if wait_s <= 0:
                return []
            try:
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                self._check(loop.time())
        taken = [self._held.popleft() for _ in range(min(limit, len(self._held)))]
        if not self.failure:
            await self._ask()
        return taken

    def _check(self, now_s: float) -> None:
        if self._connection.lost.is_set():
            self._fail(f"connection lost: {self._connection.reason or 'closed'}")
        elif self._credit and now_s - self._last_activity_s > SILENCE_S:
            self._fail(f"no heartbeat for {now_s - self._last_activity_s:.1f} s")

    async def close(self) -> None:
        """End it on the server too, as far as that answers. Safe to call twice."""
        self._fail("closed")
        if self._name and self._connection.is_open:
            await self._connection.publish(f"{API}CONSUMER.DELETE.{self._stream}.{self._name}", b"")
            self._name = ""
