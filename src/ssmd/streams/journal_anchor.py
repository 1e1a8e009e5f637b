"""Anchors: what a journal was up to a position, so that a later reader can tell that it still is.

The digest is a chain: d(0) is 32 zero bytes, and for each message, in position order and without leaving one out,

    d(n) = sha256(d(n-1) || position, 8 bytes || length of subject, 4 bytes || subject, UTF-8 || payload)

with integers big-endian. So an anchor is also where the next digest goes on: 32 bytes, no hash state to keep. Anchors are
JSON objects under `anchors/{env}/{position:020}.json` in the environment's storage, never overwritten.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from ssmd.errors import Malformed
from ssmd.identifiers import encode_token
from ssmd.streams.journal import PoisonEvent, RecordedEvent

START: Final = bytes(32)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Anchor(msgspec.Struct, frozen=True):
    """The journal's digest (`sha256`, hex) behind the message at `position`; `ts_ns` = when it was taken."""

    position: int
    sha256: str
    ts_ns: int = 0


_DECODER: Final = msgspec.json.Decoder(Anchor)


def anchor_prefix(env: str) -> str:
    """Where the anchors of `env` are; their keys sort by position."""
    return f"anchors/{encode_token(env)}/"


def anchor_key(env: str, position: int) -> str:
    """Key of the anchor at `position`."""
    return f"{anchor_prefix(env)}{position:020}.json"


def encode_anchor(anchor: Anchor) -> bytes:
    """The stored bytes."""
    return msgspec.json.encode(anchor)


def decode_anchor(payload: bytes) -> Anchor:
    """The anchor in stored bytes.

    Raises:
        Malformed: they are none.
    """
    try:
        anchor = _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not an anchor of a journal: {error}") from error
    if anchor.position < 0 or not _SHA256.fullmatch(anchor.sha256):
        raise Malformed(f"not an anchor of a journal: position {anchor.position}, sha256 {anchor.sha256!r}")
    return anchor


class RollingDigest:
    """The digest of one environment's journal, from its start or from an anchor on.

    Attributes:
        position: of the last message taken in.
    """

    def __init__(self, env: str, start: Anchor | None = None) -> None:
        self._prefix = f"{encode_token(env)}.journal."
        self._kinds: dict[str, str] = {}
        self.position = 0 if start is None else start.position
        self._digest = START if start is None else bytes.fromhex(start.sha256)

    @property
    def sha256(self) -> str:
        """The digest in hex."""
        return self._digest.hex()

    def anchor(self, ts_ns: int) -> Anchor:
        """The anchor behind the last message, taken at `ts_ns`."""
        return Anchor(self.position, self.sha256, ts_ns)

    def subject(self, message: RecordedEvent | PoisonEvent) -> str:
        """The subject `message` is stored under."""
        if isinstance(message, PoisonEvent):
            return message.subject
        kind = message.envelope.aggregate
        head = self._kinds.get(kind)
        if head is None:
            head = self._kinds[kind] = f"{self._prefix}{encode_token(kind)}."
        return head + message.envelope.aggregate_id

    def add(self, message: RecordedEvent | PoisonEvent) -> None:
        """Take in the next message of an unfiltered reading.

        Raises:
            Malformed: a message was left out, or came again.
        """
        if message.position != self.position + 1:
            raise Malformed(f"the journal's digest is at position {self.position}; the next message is at {message.position}")
        self.add_raw(self.subject(message), message.payload)

    def add_raw(self, subject: str, payload: bytes) -> None:
        """Take in what stands at the next position."""
        self.position += 1
        name = subject.encode()
        head = self._digest + self.position.to_bytes(8, "big") + len(name).to_bytes(4, "big")
        self._digest = hashlib.sha256(head + name + payload).digest()
