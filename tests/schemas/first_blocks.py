"""Blocks of the first layout, "SSB1", which nothing writes any more and every reader still has to understand."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence


def first_block(session: int, first_n: int, entries: Sequence[tuple[int, int, bytes]], previous_digest: bytes) -> bytes:
    """A block of (kind, ts_recv_ns, payload) entries."""
    body = b"".join(struct.pack("<BQI", kind, ts_ns, len(payload)) + payload for kind, ts_ns, payload in entries)
    return first_block_of(session, first_n, len(entries), entries[0][1], entries[-1][1], previous_digest, body)


def first_block_of(
    session: int, first_n: int, count: int, first_ts_ns: int, last_ts_ns: int, previous_digest: bytes, body: bytes
) -> bytes:
    """A block with that body, sound or not."""
    head = struct.pack(
        "<4sIIIQQQQ16s", b"SSB1", len(body), count, 0, session, first_n, first_ts_ns, last_ts_ns, previous_digest
    )
    digest = hashlib.blake2b(head + bytes(8) + body, digest_size=16).digest()
    return head + digest + bytes(8) + body
