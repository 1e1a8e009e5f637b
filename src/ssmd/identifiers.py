"""Identifiers: UUIDv7 made of a given time and given randomness, and the token encoding of names."""

from __future__ import annotations

import os
import re
import uuid
from typing import Protocol


class RandomBytes(Protocol):
    """A source of randomness: `source(n)` gives n bytes."""

    def __call__(self, size: int, /) -> bytes: ...


def system_random(size: int, /) -> bytes:
    """Bytes of the operating system's generator."""
    return os.urandom(size)


def uuid7(ts_ns: int, random: RandomBytes) -> str:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    value = int.from_bytes(random(10), "big")
    rand_a = (value >> 62) & 0xFFF
    rand_b = value & ((1 << 62) - 1)
    return str(uuid.UUID(int=((ts_ns // 1_000_000) & ((1 << 48) - 1)) << 80 | 7 << 76 | rand_a << 64 | 2 << 62 | rand_b))


_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPE = re.compile(r"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(r"%([0-9A-F]{2})")
_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+")


def encode_token(text: str) -> str:
    """`text` as one token for a subject or an object key: all but [A-Za-z0-9_-] percent-encoded (UTF-8, upper-case hex).

    Raises:
        ValueError: for the empty text, which no subject can carry.
    """
    if _PLAIN.fullmatch(text):
        return text
    if not text:
        raise ValueError("an empty name cannot be a token")
    return _ESCAPE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match.group().encode()), text)


def decode_token(token: str) -> str:
    """The text whose `encode_token` is `token`.

    Raises:
        ValueError: when no text encodes to `token` (one text has exactly one token).
    """
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"not a token: {token!r}")
    if "%" not in token:
        return token
    raw = _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), token).encode("latin-1")
    text = raw.decode("utf-8")
    if encode_token(text) != token:
        raise ValueError(f"not the canonical token of {text!r}: {token!r}")
    return text
