"""Blocks of both layouts: what is told of them, with and without taking entries out, and what is refused."""

from __future__ import annotations

import struct
from hashlib import sha256

import pytest
from tests.schemas.first_blocks import first_block, first_block_of

from ssmd.errors import Malformed
from ssmd.schemas.blocks import (
    HEADER_BYTES,
    NO_DIGEST,
    EntryKind,
    columns_of,
    decode_block,
    decode_columns,
    encode_block,
    encode_body,
    joined_of,
    pack_columns,
    survey_block,
)

ENTRIES = [(EntryKind.CTL, 10, b"{}"), (EntryKind.IN, 12, b""), (EntryKind.IN, 12, b"frame\n"), (EntryKind.OUT, 15, b"ask")]
KINDS, TIMES, PAYLOADS = zip(*ENTRIES, strict=True)
BODY = pack_columns(bytes(KINDS), TIMES, PAYLOADS)
FIRST_BODY = b"".join(struct.pack("<BQI", kind, ts_ns, len(payload)) + payload for kind, ts_ns, payload in ENTRIES)


def block(body: bytes, count: int = len(ENTRIES)) -> bytes:
    return encode_body(7, 3, count, 10, 15, NO_DIGEST, body)[0]


def old_block(body: bytes, count: int = len(ENTRIES)) -> bytes:
    return first_block_of(7, 3, count, 10, 15, NO_DIGEST, body)


@pytest.mark.parametrize("data", [block(BODY), old_block(FIRST_BODY)], ids=["second layout", "first layout"])
def test_every_reader_tells_the_same(data: bytes) -> None:
    found, columns, joined = survey_block(data), decode_columns(data), joined_of(data)
    assert (found.kinds, found.ts_first_ns, found.ts_last_ns) == (bytes(columns.kinds), 10, 15)
    assert (found.header.session, found.header.first_n, found.header.last_n) == (7, 3, 6)
    assert found.header.digest == columns.digest
    assert columns_of(data) == columns
    assert decode_columns(b"before" + data + data, 6) == columns
    assert joined_of(data + data) == joined
    assert list(zip(columns.kinds, columns.times, columns.payloads, strict=True)) == ENTRIES
    assert [entry[1:] for entry in decode_block(data).entries] == [(3 + i, *entry[1:]) for i, entry in enumerate(ENTRIES)]
    assert (joined.session, joined.numbers, joined.kinds, joined.payloads) == (7, range(3, 7), bytes(KINDS), b"".join(PAYLOADS))
    assert (list(joined.times), list(joined.sizes)) == (list(TIMES), list(map(len, PAYLOADS)))


def test_the_layout_is_as_written_down() -> None:
    data = encode_block(7, 3, ENTRIES, b"p" * 16)
    head = b"SSB2" + struct.pack("<IIIQQQQ", 63, 4, 0, 7, 3, 10, 15) + b"p" * 16
    tail = bytes(8) + bytes(KINDS) + struct.pack("<4Q4I", *TIMES, *map(len, PAYLOADS)) + b"".join(PAYLOADS)
    assert data == head + sha256(head + tail).digest()[:16] + tail


def test_layouts_follow_each_other_by_their_digests() -> None:
    old = first_block(7, 1, ENTRIES, NO_DIGEST)
    new = encode_block(7, 5, ENTRIES, decode_block(old).digest)
    assert decode_block(new).previous_digest == decode_block(old).digest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (block(BODY)[:-1], "has 63 bytes of entries, 62 are there"),
        (block(BODY)[:-1] + b"?", "digest does not match"),
        (block(BODY[:-1]), "entry 6 is cut"),
        (block(BODY[:-10]), "entry 6 is cut"),
        (block(BODY[:60], 4), "entry 6 is cut"),
        (block(BODY + b"more"), "4 bytes follow its 4 entries"),
        (block(BODY, 5), "5 entries told, in 63 bytes"),
        (block(pack_columns(b"\1", [10], [b"one"]) + b"more", 1), "4 bytes follow its 1 entries"),
        (old_block(FIRST_BODY)[:-1], "has 63 bytes of entries, 62 are there"),
        (old_block(FIRST_BODY)[:-1] + b"?", "digest does not match"),
        (old_block(FIRST_BODY[:-1]), "entry 6 is cut"),
        (old_block(FIRST_BODY[:-10]), "entry 6 is cut"),
        (old_block(FIRST_BODY + b"more"), "4 bytes follow its 4 entries"),
        (old_block(FIRST_BODY, 5), "5 entries told, in 63 bytes"),
        (old_block(FIRST_BODY, 3), "16 bytes follow its 3 entries"),
    ],
)
def test_a_survey_refuses_what_decoding_refuses(data: bytes, message: str) -> None:
    for read in (survey_block, decode_columns):
        with pytest.raises(Malformed, match=message):
            read(data)


@pytest.mark.parametrize("data", [block(BODY), old_block(FIRST_BODY)], ids=["second layout", "first layout"])
def test_a_flipped_bit_anywhere_is_found(data: bytes) -> None:
    assert len(data) == HEADER_BYTES + 63
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Malformed):
            decode_block(bytes(flipped))
