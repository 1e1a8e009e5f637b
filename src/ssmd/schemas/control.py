"""Control facts: what a connector writes on its tape about itself (`ctl` entries), as tagged JSON.

The tag is the storage format: a released fact never changes meaning.
"""

from __future__ import annotations

import msgspec

from ssmd.errors import Malformed


class Fact(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Root of the facts."""


class PreviousSession(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the session before this one ended, so that a session explains the hole before it by itself.

    Attributes:
        session: its number.
        last_n: number of its last entry.
        last_recv_ns: receive time of the last frame proven good; the hole starts there.
        cause: as in its `Disconnected`.
        evidence: what shows it, for people.
    """

    session: int
    last_n: int
    last_recv_ns: int
    cause: str
    evidence: str = ""


class Connected(Fact, frozen=True, tag="connected"):
    """First entry (n = 1) of every session.

    Attributes:
        feed, connection: whose tape this is.
        url: endpoint without credentials.
        wire: wire era of the venue's frames ("kalshi-dollars", "kalshi-cents").
        instance: the process that made it; epoch: its fencing number (the higher one goes on).
        version: ssmd's version; config: git commit of the registry or "".
        previous: how the session before ended; absent for the first one ever.
    """

    feed: str
    connection: str
    url: str
    wire: str = ""
    instance: str = ""
    epoch: int = 0
    version: str = ""
    config: str = ""
    previous: PreviousSession | None = None


class Disconnected(Fact, frozen=True, tag="disconnected"):
    """The session is over. Causes: closed-by-venue, connection-lost, stale, killed, stopped, tape-full, channel-error,
    frame-too-large, fenced, handshake-refused, planned-pause (the venue fell silent when it had said it would).

    Attributes:
        cause: one of the above.
        code, reason: the WebSocket close code and text, where there are any.
        last_recv_ns: receive time of the last frame of the session; 0 = none.
        evidence: what shows it, for people.
    """

    cause: str
    code: int = 0
    reason: str = ""
    last_recv_ns: int = 0
    evidence: str = ""


class DayMark(Fact, frozen=True, tag="day-mark"):
    """This connection has no further entry of `date` (YYYY-MM-DD in the environment's zone)."""

    date: str


class ClockStepped(Fact, frozen=True, tag="clock-stepped"):
    """The wall clock moved by `step_ns` against the monotonic clock; receive times stay non-decreasing."""

    step_ns: int


class TailCut(Fact, frozen=True, tag="tail-cut"):
    """At start the tape ended in `size_bytes` bytes that were no whole block; they were cut (kept in `kept_as`)."""

    size_bytes: int
    kept_as: str = ""


class Repair(Fact, frozen=True, tag="repair"):
    """Data fetched by REST for a gap: `body` is the venue's answer, verbatim."""

    gap_id: str
    source: str
    body: str


class MarketsLeft(Fact, frozen=True, tag="markets-left"):
    """These markets will not come back after a hole: this connection does not capture them any more (they settled while
    nobody listened, are no longer chosen, or another connection has them). The hole is over for them.

    Attributes:
        gap_id, cause, start_ns, channel: of the hole, as in its `GapOpened`.
    """

    gap_id: str
    cause: str
    start_ns: int
    tickers: tuple[str, ...]
    channel: str = ""


AnyFact = Connected | Disconnected | DayMark | ClockStepped | TailCut | Repair | MarketsLeft

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[AnyFact] = msgspec.json.Decoder(AnyFact)


def encode_fact(fact: AnyFact) -> bytes:
    """The fact as one line of JSON, without newline."""
    return _ENCODER.encode(fact)


def decode_fact(payload: bytes) -> AnyFact:
    """The fact in a `ctl` payload.

    Raises:
        Malformed: for bytes that are no fact.
    """
    try:
        return _DECODER.decode(payload)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a control fact: {error}") from error
