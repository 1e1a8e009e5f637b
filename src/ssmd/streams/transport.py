"""The transport port: the raw and market streams as their readers and writers see them. Backends: nats, memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

StreamName = Literal["raw", "market", "dlq"]

STREAM_OF_TOKEN: Final[dict[str, StreamName]] = {"raw": "raw", "md": "market", "dlq": "dlq"}
"""A subject's second token -> the stream that stores it."""


def stream_of(subject: str) -> StreamName:
    """The stream that stores messages on `subject` (a subject of `streams.subjects`)."""
    return STREAM_OF_TOKEN[subject.split(".", 2)[1]]


class StreamMessage(NamedTuple):
    """One stored message. `seq` is its stream sequence, `message_id` its Nats-Msg-Id or ""."""

    seq: int
    subject: str
    payload: bytes
    message_id: str


class StreamState(NamedTuple):
    """What a stream holds: sequences first_seq..last_seq (0 and 0 = nothing ever).

    `incarnation` is lower-case hex that names this life of the stream; sequences of two incarnations do not compare.
    """

    incarnation: str
    first_seq: int
    last_seq: int
    messages: int
    size_bytes: int


class StreamReader(Protocol):
    """Reads a stream in order, every matching message once, from its start position on; survives the server's restart."""

    async def next(self, timeout_s: float) -> list[StreamMessage]:
        """The next messages, at least one; [] when none came within `timeout_s`.

        Raises:
            Unavailable: the server has been away for longer than the reader's limit. Calling again goes on trying.
            Conflict: the stream is shorter than the position, has another message there, or is another incarnation: the
                position means nothing there.
        """
        ...

    async def close(self) -> None:
        """Stop reading. Safe to call twice."""
        ...


class Outgoing(NamedTuple):
    """One message to publish."""

    subject: str
    payload: bytes
    message_id: str


class PublishConnection(Protocol):
    """One connection for ordered publishing. It never reconnects: after trouble it is closed and another one opened."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Send in order, without waiting for acknowledgements, which are counted.

        Raises:
            Unavailable: this connection is of no more use.
        """
        ...

    def acks(self, stream: StreamName) -> int:
        """Acknowledgements of messages to `stream` received on this connection; they come in the order of sending."""
        ...

    async def progress(self, timeout_s: float) -> None:
        """Wait for another acknowledgement; returns at once if one came since the last call returned.

        Raises:
            Unavailable: connection lost, an error acknowledgement, or none within `timeout_s`.
        """
        ...

    async def close(self) -> None: ...


class Transport(Protocol):
    """Access to the streams of one environment."""

    async def state(self, stream: StreamName) -> StreamState:
        """What the stream holds now.

        Raises:
            Unavailable: no answer, or the stream does not exist (`ssmd streams apply`).
        """
        ...

    async def last(self, stream: StreamName, subject: str) -> StreamMessage | None:
        """The last message stored on exactly `subject`, from the leader."""
        ...

    async def get(self, stream: StreamName, seq: int) -> StreamMessage | None:
        """The message at exactly `seq`, or None where there is none (not yet, or no longer)."""
        ...

    async def read(self, stream: StreamName, *, after: int = 0, filters: Sequence[str] = ()) -> StreamReader:
        """A reader of the messages behind sequence `after` on any of `filters` (none = all)."""
        ...

    async def publisher(self) -> PublishConnection:
        """A new publishing connection."""
        ...

    async def close(self) -> None:
        """Release all connections. Safe to call twice."""
        ...
