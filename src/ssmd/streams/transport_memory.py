"""The transport port in memory: for tests and for environments with `transport: memory`, where all runs in one process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from ssmd.errors import Conflict, Unavailable
from ssmd.streams.transport import Outgoing, PublishConnection, StreamMessage, StreamName, StreamReader, StreamState, stream_of

BATCH_MAX: Final = 500
"""Messages handed out by one `next`, at most."""


def matches(subject: str, pattern: str) -> bool:
    """Whether a NATS subject filter (`*` one token, `>` one or more at the end) takes `subject`."""
    tokens, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        if len(tokens) < len(wanted):
            return False
        wanted = wanted[:-1]
        tokens = tokens[: len(wanted)]
    return len(tokens) == len(wanted) and all(want in ("*", token) for want, token in zip(wanted, tokens, strict=True))


class _Stream:
    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.first_seq = 1
        self.messages: list[StreamMessage] = []
        self.by_id: dict[str, int] = {}
        self.stored = asyncio.Event()

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.messages) - 1

    def store(self, outgoing: Outgoing) -> None:
        if outgoing.message_id:
            if outgoing.message_id in self.by_id:
                return
            self.by_id[outgoing.message_id] = self.last_seq + 1
        self.messages.append(StreamMessage(self.last_seq + 1, outgoing.subject, outgoing.payload, outgoing.message_id))
        self.stored.set()
        self.stored = asyncio.Event()


class MemoryTransport:
    """Streams held in lists, unbounded: for runs whose size the caller bounds.

    Args:
        deduplicate: refuse a message id seen before, as JetStream does within its window; False shows consumers repeats.
    """

    def __init__(self, *, deduplicate: bool = True) -> None:
        self._deduplicate = deduplicate
        self._lives = 0
        self._streams: dict[StreamName, _Stream] = {}
        self.is_away = False
        for name in ("raw", "market", "dlq"):
            self.reset(name)

    def reset(self, stream: StreamName, *, keep: int = 0) -> None:
        """Lose what `stream` holds behind sequence `keep`: with 0 a new incarnation begins."""
        if keep:
            held = self._streams[stream]
            held.messages = [message for message in held.messages if message.seq <= keep]
            held.by_id.clear()
            return
        self._lives += 1
        self._streams[stream] = _Stream(f"{self._lives:08x}")

    def truncate(self, stream: StreamName, first_seq: int) -> None:
        """Drop the messages before `first_seq`, as retention does."""
        held = self._streams[stream]
        held.messages = [message for message in held.messages if message.seq >= first_seq]
        held.first_seq = first_seq

    def stored(self, stream: StreamName) -> list[StreamMessage]:
        """All messages held, in order."""
        return list(self._streams[stream].messages)

    def _held(self, stream: StreamName) -> _Stream:
        if self.is_away:
            raise Unavailable("the memory transport has been told to be away")
        return self._streams[stream]

    def put(self, outgoing: Outgoing) -> None:
        """Store one message."""
        held = self._held(stream_of(outgoing.subject))
        held.store(outgoing if self._deduplicate else outgoing._replace(message_id=""))
        if not self._deduplicate:
            held.messages[-1] = held.messages[-1]._replace(message_id=outgoing.message_id)

    async def state(self, stream: StreamName) -> StreamState:
        held = self._held(stream)
        size = sum(len(message.payload) for message in held.messages)
        return StreamState(held.incarnation, held.first_seq, held.last_seq, len(held.messages), size)

    async def last(self, stream: StreamName, subject: str) -> StreamMessage | None:
        return next((message for message in reversed(self._held(stream).messages) if message.subject == subject), None)

    async def get(self, stream: StreamName, seq: int) -> StreamMessage | None:
        held = self._held(stream)
        return held.messages[seq - held.first_seq] if held.first_seq <= seq <= held.last_seq else None

    async def read(self, stream: StreamName, *, after: int = 0, filters: Sequence[str] = ()) -> StreamReader:
        held = self._held(stream)
        if after > held.last_seq:
            raise Conflict(f"stream {stream} ends at {held.last_seq}, before position {after}")
        return _MemoryReader(self, stream, held.incarnation, after, tuple(filters))

    async def publisher(self) -> PublishConnection:
        self._held("raw")
        return _MemoryPublisher(self)

    async def close(self) -> None:
        return None


class _MemoryReader:
    def __init__(
        self, transport: MemoryTransport, stream: StreamName, incarnation: str, after: int, filters: tuple[str, ...]
    ) -> None:
        self._transport = transport
        self._stream = stream
        self._incarnation = incarnation
        self._after = after
        self._filters = filters
        self._last: StreamMessage | None = None

    async def next(self, timeout_s: float) -> list[StreamMessage]:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            held = self._transport._held(self._stream)  # noqa: SLF001 - reader and transport are one backend
            if held.incarnation != self._incarnation or self._after > held.last_seq:
                raise Conflict(f"stream {self._stream} is another one now, or ends before position {self._after}")
            if self._last is not None and held.first_seq <= self._last.seq:
                found = held.messages[self._last.seq - held.first_seq]
                if found.message_id != self._last.message_id:
                    raise Conflict(f"stream {self._stream} has another message at position {self._last.seq}")
            batch: list[StreamMessage] = []
            for message in held.messages[max(0, self._after + 1 - held.first_seq) :]:
                self._after = message.seq
                if not self._filters or any(matches(message.subject, wanted) for wanted in self._filters):
                    batch.append(message)
                    self._last = message
                    if len(batch) >= BATCH_MAX:
                        break
            if batch:
                return batch
            stored = held.stored
            try:
                async with asyncio.timeout_at(deadline):
                    await stored.wait()
            except TimeoutError:
                return []

    async def close(self) -> None:
        return None


class _MemoryPublisher:
    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self._acks: Counter[StreamName] = Counter()

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            self._transport.put(message)
            self._acks[stream_of(message.subject)] += 1

    def acks(self, stream: StreamName) -> int:
        return self._acks[stream]

    async def progress(self, timeout_s: float) -> None:
        """All is acknowledged at once."""
        del timeout_s

    async def close(self) -> None:
        return None
