"""The market stream's framing: message ids that carry a message's place, and marks.

For each tape block the publisher sends, in this order: one message per (kind, ticker) with that block's records of it,
numbered 0, 1, ... in order of each group's first record; then one mark that tells how many they were. The place
travels in the `Nats-Msg-Id` header, so a consumer can tell missing, repeated and foreign messages apart without
decoding a record. A block without records has a mark alone.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ssmd.errors import Malformed

MARK_PART = -1
"""`part` of a mark."""

REPEATED = "~"
"""Behind it an id of any of our messages says which repetition it is."""


class Place(NamedTuple):
    """Where a market message belongs: the `part`-th message of the block of (session, first_n) on `connection`."""

    connection: str
    session: int
    first_n: int
    part: int


class Mark(msgspec.Struct, frozen=True):
    """Body of a mark: everything of `session` up to and with entry `last_n` has been published.

    Attributes:
        session, first_n, last_n: the block.
        parts: market messages of this block.
        records: records in them, by kind; kinds without records are absent.
        previous_session, previous_n: the mark before it on this connection; 0, 0 = none.
        ts_recv_ns: receive time of the block's last entry.
        mapper: version of the mapper that made the records.
        ended: this block holds the session's `disconnected` fact.
        day_mark: the date this block's day-mark closes, "" = none.
    """

    connection: str
    session: int
    first_n: int
    last_n: int
    parts: int
    records: dict[str, int]
    previous_session: int
    previous_n: int
    ts_recv_ns: int
    mapper: int
    ended: bool = False
    day_mark: str = ""


def message_id(place: Place) -> str:
    """The `Nats-Msg-Id` of a market message or mark: connection token, session, first n and part in hex, dots between."""
    part = "mark" if place.part == MARK_PART else f"{place.part:x}"
    return f"{place.connection}.{place.session:x}.{place.first_n:x}.{part}"


def raw_message_id(connection: str, session: int, first_n: int) -> str:
    """The `Nats-Msg-Id` of a raw block."""
    return f"{connection}.{session:x}.{first_n:x}.raw"


def parse_message_id(text: str) -> Place:
    """The place in a `Nats-Msg-Id` (connections' names hold no dot and no ~).

    What follows REPEATED tells a message that is published again on purpose (a refill) from the first one.

    Raises:
        Malformed: for any other text.
    """
    try:
        connection, session, first_n, part = text.partition(REPEATED)[0].split(".")
        return Place(connection, int(session, 16), int(first_n, 16), MARK_PART if part == "mark" else int(part, 16))
    except ValueError as error:
        raise Malformed(f"not the id of a market message: {text!r}") from error


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Mark)


def encode_mark(mark: Mark) -> bytes:
    """The mark as JSON."""
    return _ENCODER.encode(mark)


def decode_mark(payload: bytes) -> Mark:
    """The mark in a message body.

    Raises:
        Malformed: for anything else.
    """
    try:
        return _DECODER.decode(payload)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a mark: {error}") from error
