"""Object keys, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.archive.keys import SegmentName, Shelf, parse_manifest, parse_segment
from ssmd.archive.storage import check_key
from ssmd.errors import Malformed

RAW = Shelf("raw", "prod", "kalshi", "2026-05-14")
BOOKS = Shelf("normalized", "prod", "kalshi", "2026-05-14", "market-v1", "book", 3)
name = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
sequence = st.integers(0, 10**20 - 1)
date = st.dates().map(lambda day: f"{day:%Y-%m-%d}".zfill(10))
shelf = st.one_of(
    st.tuples(st.just("raw"), name, name, date).map(lambda parts: Shelf(*parts)),  # type: ignore[arg-type]
    st.tuples(st.just("normalized"), name, name, date, name, name, st.integers(0, 10**6)).map(lambda parts: Shelf(*parts)),
)


def test_keys_as_documented() -> None:
    assert SegmentName(RAW, "main", "00ab", 7, 12).key == (
        "raw/prod/kalshi/2026/05/14/main-00ab-00000000000000000007-00000000000000000012.jsonl.zst"
    )
    assert SegmentName(BOOKS, "m.1", "0f", 1, 2).key == (
        "normalized/prod/kalshi/market-v1/book/m3/2026/05/14/m%2E1-0f-00000000000000000001-00000000000000000002.capnp.zst"
    )
    assert RAW.manifest_key == "raw/prod/kalshi/2026/05/14/manifest.json"
    assert BOOKS.manifest_key == "normalized/prod/kalshi/market-v1/book/m3/2026/05/14/manifest.json"


@given(shelf, name, st.from_regex(r"[0-9a-f]{1,16}", fullmatch=True), sequence, sequence)
def test_a_key_is_taken_apart_as_it_was_made(shelf: Shelf, partition: str, incarnation: str, first: int, last: int) -> None:
    segment = SegmentName(shelf, partition, incarnation, first, last)
    assert parse_segment(segment.key) == segment
    assert parse_manifest(shelf.manifest_key) == shelf
    check_key(segment.key[:1000] if len(segment.key) < 240 else RAW.manifest_key)


@pytest.mark.parametrize(
    "key",
    [
        "",
        RAW.manifest_key,
        SegmentName(RAW, "main", "ab", 1, 2).key.replace("jsonl", "capnp"),
        SegmentName(BOOKS, "main", "ab", 1, 2).key.replace("/m3/", "/m03/"),
        SegmentName(RAW, "main", "ab", 1, 2).key.replace("main", "m.n"),
        SegmentName(RAW, "main", "ab", 1, 2).key.replace("main", "%6Dain"),
        SegmentName(RAW, "main", "ab", 1, 2).key.replace("-ab-", "-AB-"),
        "../" + SegmentName(RAW, "main", "ab", 1, 2).key,
        SegmentName(RAW, "main", "ab", 1, 2).key + "\n",
    ],
)
def test_what_is_no_segments_key(key: str) -> None:
    with pytest.raises(Malformed, match="not the key of a segment"):
        parse_segment(key)


@pytest.mark.parametrize("key", ["manifest.json", RAW.manifest_key + "x", SegmentName(RAW, "main", "ab", 1, 2).key])
def test_what_is_no_manifests_key(key: str) -> None:
    with pytest.raises(Malformed, match="not the key of a manifest"):
        parse_manifest(key)


def test_what_cannot_be_named() -> None:
    with pytest.raises(ValueError, match="not a date"):
        _ = RAW._replace(date="2026/05/14").prefix
    with pytest.raises(ValueError, match="incarnation"):
        _ = SegmentName(RAW, "main", "AB", 1, 2).key
    with pytest.raises(ValueError, match="empty name"):
        _ = SegmentName(RAW, "", "ab", 1, 2).key
