"""Blocks whose entries are only surveyed: what is known of them then, and what is refused as in a block that is decoded."""

from __future__ import annotations

import pytest

from ssmd.errors import Malformed
from ssmd.schemas.blocks import (
    HEADER_BYTES,
    NO_DIGEST,
    EntryKind,
    columns_of,
    decode_columns,
    encode_body,
    pack_entry,
    survey_block,
)

ENTRIES = [(EntryKind.CTL, 10, b"{}"), (EntryKind.IN, 12, b""), (EntryKind.IN, 12, b"frame\n"), (EntryKind.OUT, 15, b"ask")]
BODY = b"".join(pack_entry(*entry) for entry in ENTRIES)


def block(body: bytes, count: int = len(ENTRIES)) -> bytes:
    return encode_body(7, 3, count, 10, 15, NO_DIGEST, body)[0]


def test_a_survey_tells_what_the_columns_tell() -> None:
    data = block(BODY)
    found, columns = survey_block(data), decode_columns(data)
    assert (found.kinds, found.ts_first_ns, found.ts_last_ns) == (bytes(columns.kinds), 10, 15)
    assert (found.header.session, found.header.first_n, found.header.last_n) == (7, 3, 6)
    assert found.header.digest == columns.digest
    assert columns_of(data) == columns
    assert decode_columns(b"before" + data + data, 6) == columns
    assert list(zip(columns.kinds, columns.times, columns.payloads, strict=True)) == ENTRIES


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (block(BODY)[:-1], "has 63 bytes of entries, 62 are there"),
        (block(BODY)[:-1] + b"?", "digest does not match"),
        (block(BODY[:-1]), "entry 6 is cut"),
        (block(BODY[:-10]), "entry 6 is cut"),
        (block(BODY + b"more"), "4 bytes follow its 4 entries"),
        (block(BODY, 5), "5 entries told, in 63 bytes"),
        (block(BODY, 3), "16 bytes follow its 3 entries"),
    ],
)
def test_a_survey_refuses_what_decoding_refuses(data: bytes, message: str) -> None:
    assert len(block(BODY)) == HEADER_BYTES + 63
    for read in (survey_block, decode_columns):
        with pytest.raises(Malformed, match=message):
            read(data)
