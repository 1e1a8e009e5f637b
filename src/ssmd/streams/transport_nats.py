"""The transport port on NATS JetStream."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from ssmd.errors import Conflict, Unavailable
from ssmd.identifiers import RandomBytes, system_random
from ssmd.streams.backoff import backoff_s
from ssmd.streams.connection import ApiRefused, Connection, checked
from ssmd.streams.nats_client import MESSAGE_ID, message_id_of
from ssmd.streams.pull_consumer import PullConsumer
from ssmd.streams.topology import STREAM_NOT_FOUND, stream_name
from ssmd.streams.transport import Outgoing, PublishConnection, StreamMessage, StreamName, StreamReader, StreamState, stream_of

TIMEOUT_S: Final = 5.0
AWAY_S: Final = 10.0
"""A reader whose server has been away for longer says so."""
NO_MESSAGE: Final = 10037
BATCH: Final[dict[StreamName, tuple[int, int]]] = {"raw": (64, 16 << 20), "market": (1000, 0), "dlq": (100, 0)}
"""Per stream: messages and bytes of one pull request; raw messages are whole blocks."""


class NatsTransport:
    """See `streams.transport`. One environment's streams on one server or cluster. Made by `open`."""

    def __init__(self, url: str, env: str, random: RandomBytes) -> None:
        self._url = url
        self._env = env
        self._random = random
        self._control: Connection | None = None
        self._opening = asyncio.Lock()

    @classmethod
    async def open(cls, url: str, env: str, *, random: RandomBytes = system_random) -> NatsTransport:
        """Connect.

        Raises:
            Unavailable: nobody answers at `url`.
        """
        transport = cls(url, env, random)
        await transport._connection()
        return transport

    async def _connection(self) -> Connection:
        async with self._opening:
            if self._control is None or not self._control.is_open:
                if self._control is not None:
                    await self._control.abandon()
                self._control = await self._connect("control")
            return self._control

    async def _connect(self, purpose: str, *, is_bulk: bool = False) -> Connection:
        return await Connection.open(self._url, name=f"ssmd {self._env} {purpose}", timeout_s=TIMEOUT_S, is_bulk=is_bulk)

    async def state(self, stream: StreamName) -> StreamState:
        return await _state(await self._connection(), stream_name(self._env, stream))

    async def last(self, stream: StreamName, subject: str) -> StreamMessage | None:
        return await self._stored(stream, {"last_by_subj": subject})

    async def get(self, stream: StreamName, seq: int) -> StreamMessage | None:
        return await self._stored(stream, {"seq": seq})

    async def _stored(self, stream: StreamName, wanted: dict[str, Any]) -> StreamMessage | None:
        connection = await self._connection()
        try:
            answer = await connection.api(f"STREAM.MSG.GET.{stream_name(self._env, stream)}", wanted, timeout_s=TIMEOUT_S)
        except ApiRefused as error:
            if error.err_code == NO_MESSAGE:
                return None
            raise
        message = answer["message"]
        headers = base64.b64decode(message.get("hdrs", ""))
        return StreamMessage(
            message["seq"], message["subject"], base64.b64decode(message.get("data", "")), message_id_of(headers)
        )

    async def read(self, stream: StreamName, *, after: int = 0, filters: Sequence[str] = ()) -> StreamReader:
        reader = _NatsReader(self, stream, after, tuple(filters))
        await reader.start()
        return reader

    async def publisher(self) -> PublishConnection:
        publisher = _NatsPublisher(await self._connect("publisher"))
        try:
            await publisher.start()
        except BaseException:
            await publisher.close()
            raise
        return publisher

    async def close(self) -> None:
        if self._control is not None:
            await self._control.close()


async def _state(connection: Connection, name: str) -> StreamState:
    try:
        info = await connection.api(f"STREAM.INFO.{name}", timeout_s=TIMEOUT_S)
    except ApiRefused as error:
        if error.err_code == STREAM_NOT_FOUND:
            raise Unavailable(f"stream {name} does not exist at {connection.url}", mend="ssmd streams apply") from error
        raise
    state = info["state"]
    return StreamState(_incarnation(info["created"]), state["first_seq"], state["last_seq"], state["messages"], state["bytes"])


def _incarnation(created: str) -> str:
    """The stream's time of creation (RFC 3339) in hex microseconds: another for each life of a stream."""
    text, _, fraction = created.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{text}+00:00").timestamp())
    return f"{seconds * 1_000_000 + int((fraction + '000000')[:6]):x}"


class _NatsReader:
    """Replaces its pull consumer whenever that fails, behind the last message handed out."""

    def __init__(self, transport: NatsTransport, stream: StreamName, after: int, filters: tuple[str, ...]) -> None:
        self._transport = transport
        self._stream = stream
        self._name = stream_name(transport._env, stream)  # noqa: SLF001 - reader and transport are one backend
        self._after = after
        self._filters = filters
        self._last_id = ""
        self._incarnation = ""
        self._connection: Connection | None = None
        self._consumer: PullConsumer | None = None
        self._attempt = 0
        self._away_since_s: float | None = None

    async def start(self) -> None:
        """Make the consumer; whatever prevents it leaves no connection behind."""
        await self._release()
        try:
            await self._open()
        except BaseException:
            await self._release()
            raise

    async def _open(self) -> None:
        purpose = f"reader of {self._stream}"
        self._connection = await self._transport._connect(purpose, is_bulk=True)  # noqa: SLF001 - one backend
        state = await _state(self._connection, self._name)
        if self._incarnation and state.incarnation != self._incarnation:
            raise Conflict(f"stream {self._name} is another one now: {state.incarnation}, was {self._incarnation}")
        if self._after > state.last_seq:
            raise Conflict(f"stream {self._name} ends at {state.last_seq}, before position {self._after}")
        if self._last_id:
            found = await self._transport.get(self._stream, self._after)
            if found is not None and found.message_id != self._last_id:
                raise Conflict(
                    f"stream {self._name} has {found.message_id!r} at position {self._after}, where {self._last_id!r} was"
                )
        self._incarnation = state.incarnation
        batch, batch_bytes = BATCH[self._stream]
        self._consumer = await PullConsumer.open(
            self._connection, self._name, after=self._after, filters=self._filters, batch=batch, batch_bytes=batch_bytes
        )
        self._attempt = 0
        self._away_since_s = None

    async def next(self, timeout_s: float) -> list[StreamMessage]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            if self._consumer is None:
                await self._restart(loop, deadline)
            if self._consumer is not None:
                left_s = max(0.0, deadline - loop.time())
                pulled = await self._consumer.next(left_s, BATCH[self._stream][0])
                if pulled:
                    messages = [
                        StreamMessage(seq, subject, payload, message_id_of(headers))
                        for seq, subject, payload, headers, _ in pulled
                    ]
                    self._after, self._last_id = messages[-1].seq, messages[-1].message_id
                    return messages
                if self._consumer.failure:
                    await self._release()
            if loop.time() >= deadline:
                return []

    async def _restart(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        self._away_since_s = self._away_since_s or loop.time()
        try:
            await self.start()
        except Unavailable as error:
            self._attempt += 1
            away_s = loop.time() - self._away_since_s
            if away_s > AWAY_S:
                raise Unavailable(f"stream {self._name} has been away for {away_s:.0f} s: {error.message}") from error
            random = self._transport._random  # noqa: SLF001 - one backend
            await asyncio.sleep(min(backoff_s(self._attempt, random, max_s=2.0), max(0.0, deadline - loop.time())))

    async def _release(self) -> None:
        if self._consumer is not None:
            self._consumer = None
        if self._connection is not None:
            await self._connection.abandon()
            self._connection = None

    async def close(self) -> None:
        if self._consumer is not None:
            try:
                await self._consumer.close()
            except Unavailable:
                # The server removes an idle consumer by itself.
                self._consumer = None
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


class _NatsPublisher:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._acks: Counter[StreamName] = Counter()
        self._failure = ""
        self._progressed = asyncio.Event()
        self._inbox = connection.new_inbox()
        self._replies: dict[StreamName, str] = {}
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        streams: tuple[StreamName, ...] = ("raw", "market", "dlq")
        for stream in streams:
            self._replies[stream] = f"{self._inbox}.{stream}"
            await self._connection.subscribe_at_once(self._replies[stream], self._counter(stream))
        self._watch = asyncio.create_task(self._watch_connection())

    def _counter(self, stream: StreamName) -> Callable[[bytes], None]:
        def count(data: bytes) -> None:
            if b'"error"' in data or not data:
                self._fail(_ack_error(data))
            else:
                self._acks[stream] += 1
                self._progressed.set()

        return count

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self._progressed.set()

    async def _watch_connection(self) -> None:
        await self._connection.lost.wait()
        self._fail(f"connection lost: {self._connection.reason or 'closed'}")

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        if self._failure:
            raise Unavailable(self._failure)
        # A unit's messages all go to one stream, but for the block itself, which comes alone.
        for stream, run in groupby(messages, key=_stream_of_message):
            await self._connection.publish_many(run, self._replies[stream], MESSAGE_ID)

    def acks(self, stream: StreamName) -> int:
        return self._acks[stream]

    async def progress(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._progressed.wait()
        except TimeoutError as error:
            raise Unavailable(f"no acknowledgement from {self._connection.url} within {timeout_s:g} s") from error
        self._progressed.clear()
        if self._failure:
            self._progressed.set()
            raise Unavailable(self._failure)

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        await self._connection.abandon()


def _stream_of_message(message: Outgoing) -> StreamName:
    return stream_of(message.subject)


def _ack_error(data: bytes) -> str:
    if not data:
        return "no stream takes this subject (ssmd streams apply)"
    try:
        checked(data, "publish")
    except ApiRefused as error:
        return error.message
    return f"unexpected acknowledgement {data[:80]!r}"
