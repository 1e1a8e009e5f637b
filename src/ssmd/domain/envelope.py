"""The envelope every journal event travels in, and the identity of an aggregate."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ssmd.errors import Malformed
from ssmd.identifiers import decode_token, encode_token


class AggregateId(NamedTuple):
    """One aggregate: its kind ("trading-day") and the parts of its id (("2026-05-14",)).

    `key` is the id as text: each part percent-encoded as one token, dots between, so the text is unambiguous and equals
    the tail of the journal subject.
    """

    aggregate: str
    parts: tuple[str, ...]

    @property
    def key(self) -> str:
        return ".".join(encode_token(part) for part in self.parts)

    @classmethod
    def parse(cls, aggregate: str, key: str) -> AggregateId:
        """The id whose `key` is `key`.

        Raises:
            Malformed: when no id has that key.
        """
        try:
            return cls(aggregate, tuple(decode_token(token) for token in key.split(".")))
        except ValueError as error:
            raise Malformed(f"not the id of an aggregate: {key!r}: {error}") from error

    def __str__(self) -> str:
        return f"{self.aggregate}/{self.key}"


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One event as it is stored. Its JSON bytes, in this key order, are the storage format.

    Attributes:
        id: UUIDv7.
        type: versioned tag ("trading-day.started.v1").
        aggregate, aggregate_id: kind and `AggregateId.key`.
        version: 1, 2, ... per aggregate, contiguous.
        ts_ns: when it was decided, UTC nanoseconds by the writer's clock; not necessarily rising along the journal.
        actor: who ("cli:anna", "connector:kalshi-0", "workflow:day-start-...").
        correlation_id: the request all this belongs to; causation_id: the event or command that led to it.
        config: git commit of the registry in force, "" = not under git.
        data: the event's own fields.
    """

    id: str
    type: str
    aggregate: str
    aggregate_id: str
    version: int
    ts_ns: int
    actor: str
    correlation_id: str
    causation_id: str
    config: str
    data: msgspec.Raw

    @property
    def aggregate_key(self) -> AggregateId:
        return AggregateId.parse(self.aggregate, self.aggregate_id)


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Envelope)


def encode_envelope(envelope: Envelope) -> bytes:
    """The stored bytes."""
    return _ENCODER.encode(envelope)


decode_plain = _DECODER.decode
"""As `decode_envelope`, but raises ValueError or RecursionError, as msgspec does; for those who read millions."""


def decode_envelope(payload: bytes) -> Envelope:
    """The envelope in stored bytes; `data` stays undecoded.

    Raises:
        Malformed: for anything else.
    """
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not an event envelope: {error}") from error
