"""Tape blocks: the unit that is written, checksummed, published and archived. Pure bytes in, bytes out.

Layout (little endian), 88 bytes of header and then the entries:

    0   4s  magic "SSB1"
    4   u32 size of the entries in bytes
    8   u32 number of entries (>= 1)
    12  u32 reserved, 0
    16  u64 session
    24  u64 n of the first entry
    32  u64 ts_recv_ns of the first entry
    40  u64 ts_recv_ns of the last entry
    48  16s digest of the block before it on this tape, zeros for the first one ever
    64  16s digest of this block: BLAKE2b-128 over bytes 0..64 and the entries
    80  u64 reserved, 0 (covered by the digest as part of the entries' prefix)

    an entry: u8 kind, u64 ts_recv_ns, u32 size, payload

A block belongs to one session and one calendar day; entries are numbered `n`, contiguous per session, from 1.
`session` numbers the connections made: the wall-clock UTC nanoseconds at which it was made, raised to the last
session's + 1 where the clock stepped back, so sessions of one tape always rise.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from ssmd.errors import Malformed

MAGIC: Final = b"SSB1"
NO_DIGEST: Final = bytes(16)
_HEADER: Final = struct.Struct("<4sIIIQQQQ16s16sQ")
_ENTRY: Final = struct.Struct("<BQI")
_KIND_AND_SIZE: Final = struct.Struct("<B8xI")
_TIME: Final = struct.Struct("<Q")
HEADER_BYTES: Final = _HEADER.size
ENTRY_OVERHEAD_BYTES: Final = _ENTRY.size
_DIGEST_START: Final = 64


class EntryKind(IntEnum):
    IN = 1
    """A payload the venue sent, byte for byte."""
    OUT = 2
    """A command we sent, byte for byte."""
    CTL = 3
    """A fact of ours (`schemas.control`), JSON."""


class Entry(NamedTuple):
    """One tape entry. `n` counts from 1 within its session."""

    kind: int
    n: int
    ts_recv_ns: int
    payload: bytes


class Block(NamedTuple):
    """A decoded and verified block."""

    session: int
    first_n: int
    previous_digest: bytes
    digest: bytes
    entries: Sequence[Entry]

    @property
    def last_n(self) -> int:
        return self.first_n + len(self.entries) - 1


class BlockHeader(NamedTuple):
    """A block's header, not yet verified against its entries."""

    entries_bytes: int
    entries_count: int
    session: int
    first_n: int
    first_ts_ns: int
    last_ts_ns: int
    previous_digest: bytes
    digest: bytes

    @property
    def size_bytes(self) -> int:
        return HEADER_BYTES + self.entries_bytes

    @property
    def last_n(self) -> int:
        return self.first_n + self.entries_count - 1


def _digest(head: bytes | memoryview, tail: bytes | memoryview, body: bytes | memoryview) -> bytes:
    state = hashlib.blake2b(head, digest_size=16)
    state.update(tail)
    state.update(body)
    return state.digest()


pack_entry_head: Final = _ENTRY.pack
"""An entry's bytes before its payload: of (kind, ts_recv_ns, size of the payload)."""


def pack_entry(kind: int, ts_recv_ns: int, payload: bytes) -> bytes:
    """One entry's bytes, to be joined into the body given to `encode_body`."""
    return _ENTRY.pack(kind, ts_recv_ns, len(payload)) + payload


def encode_body(
    session: int, first_n: int, count: int, first_ts_ns: int, last_ts_ns: int, previous_digest: bytes, body: bytes
) -> tuple[bytes, bytes]:
    """A whole block of already packed entries.

    Returns:
        the block's bytes, and its digest for the next block's chain.
    """
    head = _HEADER.pack(MAGIC, len(body), count, 0, session, first_n, first_ts_ns, last_ts_ns, previous_digest, NO_DIGEST, 0)
    digest = _digest(head[:_DIGEST_START], head[80:], body)
    return b"".join((head[:_DIGEST_START], digest, head[80:], body)), digest


def encode_block(session: int, first_n: int, entries: Sequence[tuple[int, int, bytes]], previous_digest: bytes) -> bytes:
    """A block of (kind, ts_recv_ns, payload) entries; convenience over `encode_body`."""
    body = b"".join(pack_entry(kind, ts, payload) for kind, ts, payload in entries)
    return encode_body(session, first_n, len(entries), entries[0][1], entries[-1][1], previous_digest, body)[0]


def decode_header(data: bytes | memoryview, offset: int = 0) -> BlockHeader:
    """The header at `offset`.

    Raises:
        Malformed: too short, or not a block.
    """
    if len(data) - offset < HEADER_BYTES:
        raise Malformed(f"a block header needs {HEADER_BYTES} bytes, {len(data) - offset} are left")
    magic, size, count, zero, session, first_n, first_ts, last_ts, previous, digest, pad = _HEADER.unpack_from(data, offset)
    if magic != MAGIC or count == 0 or zero or pad:
        raise Malformed(f"no block starts at byte {offset}")
    return BlockHeader(size, count, session, first_n, first_ts, last_ts, previous, digest)


class Columns(NamedTuple):
    """A decoded block as columns: what a reader of many entries takes. `numbers` are the entries' n."""

    session: int
    numbers: range
    previous_digest: bytes
    digest: bytes
    kinds: Sequence[int]
    times: Sequence[int]
    payloads: Sequence[bytes]


class Surveyed(NamedTuple):
    """What is known of a verified block whose entries have not been taken out: `kinds` has a byte for each."""

    header: BlockHeader
    kinds: bytes
    ts_first_ns: int
    ts_last_ns: int


def decode_block(data: bytes, offset: int = 0) -> Block:
    """The block at `offset`, verified: its digest, and that its entries fill it.

    Raises:
        Malformed: with what does not fit. A flipped bit anywhere in the block is found by the digest.
    """
    session, numbers, previous, digest, kinds, times, payloads = decode_columns(data, offset)
    new = tuple.__new__  # a third of the time of Entry(...), once an entry for every reader
    entries = [new(Entry, entry) for entry in zip(kinds, numbers, times, payloads, strict=True)]
    return Block(session, numbers.start, previous, digest, entries)


def decode_columns(data: bytes, offset: int = 0) -> Columns:
    """As `decode_block`, faster.

    Raises:
        Malformed: as `decode_block`.
    """
    return _columns(data, _verified(data, offset), offset + HEADER_BYTES)


def columns_of(data: bytes) -> Columns:
    """As `decode_columns`, of a block that `survey_block` has passed: its digest is not looked at again."""
    return _columns(data, decode_header(data), HEADER_BYTES)


def survey_block(data: bytes) -> Surveyed:
    """Verify the block that begins `data` as `decode_block` does, without taking its entries out: half the time.

    Raises:
        Malformed: as `decode_block`.
    """
    header = _verified(data, 0)
    start, count, done, at = HEADER_BYTES, header.entries_count, 0, 0
    kinds, unpack = bytearray(count), _KIND_AND_SIZE.unpack_from
    following = start
    try:
        for done in range(count):
            at = following
            kinds[done], size = unpack(data, at)
            following = at + ENTRY_OVERHEAD_BYTES + size
    except struct.error as error:
        raise _cut(header, done) from error
    _check_filled(header, following - start)
    return Surveyed(header, bytes(kinds), _TIME.unpack_from(data, start + 1)[0], _TIME.unpack_from(data, at + 1)[0])


def _verified(data: bytes, offset: int) -> BlockHeader:
    """The header of the block at `offset`, which has all its bytes, and the digest of them."""
    header = decode_header(data, offset)
    view, body_start, count = memoryview(data), offset + HEADER_BYTES, header.entries_count
    body = view[body_start : body_start + header.entries_bytes]
    if len(body) != header.entries_bytes:
        raise Malformed(f"block at byte {offset} has {header.entries_bytes} bytes of entries, {len(body)} are there")
    if _digest(view[offset : offset + _DIGEST_START], view[offset + 80 : body_start], body) != header.digest:
        raise Malformed(f"block of session {header.session} at n {header.first_n}: digest does not match")
    if count * ENTRY_OVERHEAD_BYTES > len(body):
        raise Malformed(f"block of session {header.session}: {count} entries told, in {len(body)} bytes")
    return header


def _columns(data: bytes, header: BlockHeader, start: int) -> Columns:
    count, done, at = header.entries_count, 0, start
    kinds, times, payloads = [0] * count, [0] * count, [b""] * count
    unpack = _ENTRY.unpack_from
    try:
        for done in range(count):
            kinds[done], times[done], size = unpack(data, at)
            payload_start = at + ENTRY_OVERHEAD_BYTES
            at = payload_start + size
            payloads[done] = data[payload_start:at]
    except struct.error as error:
        raise _cut(header, done) from error
    _check_filled(header, at - start)
    numbers = range(header.first_n, header.first_n + count)
    return Columns(header.session, numbers, header.previous_digest, header.digest, kinds, times, payloads)


def _cut(header: BlockHeader, done: int) -> Malformed:
    return Malformed(f"block of session {header.session}: entry {header.first_n + done} is cut")


def _check_filled(header: BlockHeader, used_bytes: int) -> None:
    if used_bytes > header.entries_bytes:
        raise _cut(header, header.entries_count - 1)
    if used_bytes < header.entries_bytes:
        left = header.entries_bytes - used_bytes
        raise Malformed(f"block of session {header.session}: {left} bytes follow its {header.entries_count} entries")
