"""Tape blocks: the unit that is written, checksummed, published and archived. Pure bytes in, bytes out.

Layout (little endian), 88 bytes of header and then the entries in columns (why: docs/decisions/0018):

    0   4s  magic "SSB2"
    4   u32 size of the entries in bytes
    8   u32 number of entries (>= 1), here called c
    12  u32 reserved, 0
    16  u64 session
    24  u64 n of the first entry
    32  u64 ts_recv_ns of the first entry
    40  u64 ts_recv_ns of the last entry
    48  16s digest of the block before it on this tape, zeros for the first one ever
    64  16s digest of this block: the first 128 bits of SHA-256 over bytes 0..64 and from 80 on
    80  u64 reserved, 0
    88  c * u8   kinds
        c * u64  ts_recv_ns
        c * u32  sizes of the payloads
        payloads, one behind the other

Blocks of the first layout, "SSB1", are read, no longer written. There an entry is `u8 kind, u64 ts_recv_ns, u32 size,
payload`, one behind the other, and the digest is BLAKE2b-128. A tape may hold both, linked as others are.

A block belongs to one session and one calendar day; entries are numbered `n`, contiguous per session, from 1.
`session` numbers the connections made: the wall-clock UTC nanoseconds at which it was made, raised to the last
session's + 1 where the clock stepped back, so sessions of one tape always rise.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from ssmd.errors import Malformed

MAGIC: Final = b"SSB2"
FIRST_MAGIC: Final = b"SSB1"
NO_DIGEST: Final = bytes(16)
_HEADER: Final = struct.Struct("<4sIIIQQQQ16s16sQ")
_ENTRY: Final = struct.Struct("<BQI")
_TIME_BYTES: Final = 8
HEADER_BYTES: Final = _HEADER.size
ENTRY_OVERHEAD_BYTES: Final = _ENTRY.size
_DIGEST_START: Final = 64
DIGEST_BYTES: Final = 16
_DIGEST_END: Final = _DIGEST_START + DIGEST_BYTES


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
    """A block's header, not yet verified against its entries. `magic` tells its layout."""

    entries_bytes: int
    entries_count: int
    session: int
    first_n: int
    first_ts_ns: int
    last_ts_ns: int
    previous_digest: bytes
    digest: bytes
    magic: bytes = MAGIC

    @property
    def size_bytes(self) -> int:
        return HEADER_BYTES + self.entries_bytes

    @property
    def last_n(self) -> int:
        return self.first_n + self.entries_count - 1


def _digest(magic: bytes, *parts: bytes | memoryview) -> bytes:
    state = hashlib.sha256() if magic == MAGIC else hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(part)
    return state.digest()[:DIGEST_BYTES]


def pack_columns(kinds: bytes | bytearray, times: Sequence[int], payloads: Sequence[bytes]) -> bytes:
    """The body of a block: a kind, a receive time and a payload for each of its entries."""
    count = len(kinds)
    heads = struct.pack(f"<{count}s{count}Q{count}I", kinds, *times, *map(len, payloads))
    return b"".join((heads, *payloads))


def encode_body(
    session: int, first_n: int, count: int, first_ts_ns: int, last_ts_ns: int, previous_digest: bytes, body: bytes
) -> tuple[bytes, bytes]:
    """A whole block with the body that `pack_columns` made.

    Returns:
        the block's bytes, and its digest for the next block's chain.
    """
    head = _HEADER.pack(MAGIC, len(body), count, 0, session, first_n, first_ts_ns, last_ts_ns, previous_digest, NO_DIGEST, 0)
    digest = _digest(MAGIC, head[:_DIGEST_START], head[_DIGEST_END:], body)
    return b"".join((head[:_DIGEST_START], digest, head[_DIGEST_END:], body)), digest


def encode_block(session: int, first_n: int, entries: Sequence[tuple[int, int, bytes]], previous_digest: bytes) -> bytes:
    """A block of (kind, ts_recv_ns, payload) entries; convenience over `encode_body`."""
    kinds, times, payloads = zip(*entries, strict=True)
    body = pack_columns(bytes(kinds), times, payloads)
    return encode_body(session, first_n, len(entries), times[0], times[-1], previous_digest, body)[0]


def decode_header(data: bytes | memoryview, offset: int = 0) -> BlockHeader:
    """The header at `offset`.

    Raises:
        Malformed: too short, or not a block.
    """
    if len(data) - offset < HEADER_BYTES:
        raise Malformed(f"a block header needs {HEADER_BYTES} bytes, {len(data) - offset} are left")
    magic, size, count, zero, session, first_n, first_ts, last_ts, previous, digest, pad = _HEADER.unpack_from(data, offset)
    if magic not in (MAGIC, FIRST_MAGIC) or count == 0 or zero or pad:
        raise Malformed(f"no block starts at byte {offset}")
    return BlockHeader(size, count, session, first_n, first_ts, last_ts, previous, digest, magic)


class Columns(NamedTuple):
    """A decoded block as columns: what a reader of many entries takes. `numbers` are the entries' n."""

    session: int
    numbers: range
    previous_digest: bytes
    digest: bytes
    kinds: bytes
    times: Sequence[int]
    payloads: Sequence[bytes]


class Joined(NamedTuple):
    """A decoded block whose payloads are not cut apart: `payloads` has them one behind the other, `sizes` their lengths."""

    session: int
    numbers: Sequence[int]
    kinds: bytes
    times: Sequence[int]
    sizes: Sequence[int]
    payloads: bytes

    def cut(self) -> list[bytes]:
        """The payloads, each by itself."""
        return _cut_apart(self.payloads, 0, self.sizes)


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


def joined_of(data: bytes) -> Joined:
    """As `columns_of`, without cutting the payloads apart."""
    header = decode_header(data)
    kinds, times, sizes, start = _heads(data, header, HEADER_BYTES)
    is_joined = header.magic == MAGIC
    payloads = data[start : header.size_bytes] if is_joined else b"".join(_columns(data, header, HEADER_BYTES).payloads)
    return Joined(header.session, range(header.first_n, header.last_n + 1), kinds, times, sizes, payloads)


def survey_block(data: bytes) -> Surveyed:
    """Verify the block that begins `data` as `decode_block` does, without taking its entries out.

    Raises:
        Malformed: as `decode_block`.
    """
    header = _verified(data, 0)
    kinds, times, _, _ = _heads(data, header, HEADER_BYTES)
    return Surveyed(header, kinds, times[0], times[-1])


def _verified(data: bytes, offset: int) -> BlockHeader:
    """The header of the block at `offset`, which has all its bytes, and the digest of them."""
    header = decode_header(data, offset)
    size, count, there = header.entries_bytes, header.entries_count, len(data) - offset - HEADER_BYTES
    if there < size:
        raise Malformed(f"block at byte {offset} has {size} bytes of entries, {there} are there")
    view = memoryview(data)[offset : offset + HEADER_BYTES + size]
    if _digest(header.magic, view[:_DIGEST_START], view[_DIGEST_END:]) != header.digest:
        raise Malformed(f"block of session {header.session} at n {header.first_n}: digest does not match")
    if count * ENTRY_OVERHEAD_BYTES > size:
        raise Malformed(f"block of session {header.session}: {count} entries told, in {size} bytes")
    return header


def _columns(data: bytes, header: BlockHeader, start: int) -> Columns:
    kinds, times, sizes, at = _heads(data, header, start)
    if header.magic == MAGIC:
        payloads = _cut_apart(data, at, sizes)
    else:
        payloads = []
        for size in sizes:
            begin = at + ENTRY_OVERHEAD_BYTES
            at = begin + size
            payloads.append(data[begin:at])
    numbers = range(header.first_n, header.first_n + header.entries_count)
    return Columns(header.session, numbers, header.previous_digest, header.digest, kinds, times, payloads)


def _cut_apart(data: bytes, start: int, sizes: Sequence[int]) -> list[bytes]:
    return [data[begin:end] for begin, end in pairwise(accumulate(sizes, initial=start))]


def _heads(data: bytes, header: BlockHeader, start: int) -> tuple[bytes, Sequence[int], Sequence[int], int]:
    """Kinds, times and sizes of the entries, which fill the block at `start`, and where what follows these begins.

    Raises:
        Malformed: they do not.
    """
    if header.magic != MAGIC:
        return *_first_heads(data, header, start), start
    count = header.entries_count
    times_start = start + count
    sizes_start = times_start + count * _TIME_BYTES
    payloads_start = start + count * ENTRY_OVERHEAD_BYTES
    times: tuple[int, ...] = struct.unpack_from(f"<{count}Q", data, times_start)
    sizes: tuple[int, ...] = struct.unpack_from(f"<{count}I", data, sizes_start)
    _check_filled(header, payloads_start - start + sum(sizes))
    return data[start:times_start], times, sizes, payloads_start


def _first_heads(data: bytes, header: BlockHeader, start: int) -> tuple[bytes, Sequence[int], Sequence[int]]:
    """Likewise, of the first layout."""
    count, at, end = header.entries_count, start, start + header.entries_bytes
    kinds, times, sizes = bytearray(count), [0] * count, [0] * count
    for done in range(count):
        if at + ENTRY_OVERHEAD_BYTES > end:
            raise _cut(header, done)
        kinds[done], times[done], sizes[done] = _ENTRY.unpack_from(data, at)
        at += ENTRY_OVERHEAD_BYTES + sizes[done]
    _check_filled(header, at - start)
    return bytes(kinds), times, sizes


def _cut(header: BlockHeader, done: int) -> Malformed:
    return Malformed(f"block of session {header.session}: entry {header.first_n + done} is cut")


def _check_filled(header: BlockHeader, used_bytes: int) -> None:
    if used_bytes > header.entries_bytes:
        raise _cut(header, header.entries_count - 1)
    if used_bytes < header.entries_bytes:
        left = header.entries_bytes - used_bytes
        raise Malformed(f"block of session {header.session}: {left} bytes follow its {header.entries_count} entries")
