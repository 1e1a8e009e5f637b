"""Blocks of the first layout, "SSB1", which nothing writes any more and every reader still has to understand."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from ssmd.schemas.blocks import NO_DIGEST, decode_block, encode_block


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


def begun_in_first_layout(blocks: Sequence[bytes], count: int) -> list[bytes]:
    """The same blocks, linked, the leading `count` of them in the first layout and the others in today's."""
    made: list[bytes] = []
    digest = NO_DIGEST
    for at, data in enumerate(blocks):
        block = decode_block(data)
        entries = [(entry.kind, entry.ts_recv_ns, entry.payload) for entry in block.entries]
        made.append((first_block if at < count else encode_block)(block.session, block.first_n, entries, digest))
        digest = decode_block(made[-1]).digest
    return made
