"""The dead letter about a frame that could not be normalized: its form on the stream, its name and words in the journal."""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from ssmd.domain.dead_letter import RecordDeadLetter

COMPONENT: Final = "connector"
FRAME_BYTES_MAX: Final = 256 << 10
"""Of a larger frame only so much is quarantined; the tape has all of it."""


class Unmapped(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame, as the dead-letter stream holds it (JSON).

    Attributes:
        session, n: its place on the tape of `connection`.
        reason: why it was not understood.
        text, b64: the frame; `b64` where it is no UTF-8, or hardly text.
    """

    feed: str
    connection: str
    session: int
    n: int
    ts_recv_ns: int
    reason: str
    text: str = ""
    b64: str = ""


def unmapped(feed: str, connection: str, place: tuple[int, int], ts_recv_ns: int, reason: str, payload: bytes) -> Unmapped:
    """The letter about the frame `payload` at `place` = (session, n)."""
    kept = payload[:FRAME_BYTES_MAX]
    try:
        text, b64 = kept.decode(), ""
    except UnicodeDecodeError:
        text, b64 = "", base64.b64encode(kept).decode()
    if len(msgspec.json.encode(text)) > 2 * FRAME_BYTES_MAX:
        # Text that has to be escaped throughout would be more than a server takes in one message.
        text, b64 = "", base64.b64encode(kept).decode()
    return Unmapped(feed, connection, *place, ts_recv_ns, reason, text, b64)


def letter_id(letter: Unmapped) -> str:
    """Name of the letter in the journal."""
    return f"frame-{letter.connection}-{letter.session}-{letter.n}"


def recording(letter: Unmapped) -> RecordDeadLetter:
    """The command that tells the journal of the letter."""
    about = f"{letter.feed}/{letter.connection}"
    return RecordDeadLetter(COMPONENT, "tape", letter.n, about, "", letter.reason)
