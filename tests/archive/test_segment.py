"""Segment files: content in, the same content out, the same bytes again."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.archive.segment import FRAME_BYTES_MAX, SegmentWriter, read_content, read_file, split_lines
from ssmd.errors import Malformed


def write(path: Path, pieces: list[bytes], *, spill_every: int = 0) -> SegmentWriter:
    writer = SegmentWriter(path, 3)
    for at, piece in enumerate(pieces, 1):
        writer.add(piece, 1, 100 + at, 200 + at)
        if spill_every and at % spill_every == 0:
            writer.store(writer.take())
    return writer


def test_facts_are_of_the_file_and_of_its_content(tmp_path: Path) -> None:
    pieces = [b"a" * 700_000, b"b" * 700_000, b"c" * 3_000_000, b"", b"d\n"]
    path = tmp_path / "s.zst"
    facts = write(path, pieces).finish()
    stored, content = path.read_bytes(), b"".join(pieces)
    assert facts._asdict() == {
        "size_bytes": len(stored),
        "sha256": hashlib.sha256(stored).hexdigest(),
        "content_bytes": len(content),
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "records": 4,
        "ts_recv_first_ns": 101,
        "ts_recv_last_ns": 205,
    }
    frames = list(read_file(path))
    assert b"".join(frames) == content
    assert max(map(len, frames)) <= FRAME_BYTES_MAX


def test_bytes_do_not_depend_on_when_they_are_stored(tmp_path: Path) -> None:
    pieces = [b"%d" % at * 20_000 for at in range(100)]
    at_once = write(tmp_path / "a", pieces).finish()
    in_steps = write(tmp_path / "b", pieces, spill_every=3).finish()
    assert at_once == in_steps
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_segment_of_nothing_is_empty(tmp_path: Path) -> None:
    facts = SegmentWriter(tmp_path / "s", 3).finish()
    assert (facts.size_bytes, facts.records) == (0, 0)
    assert list(read_file(tmp_path / "s")) == []


def test_a_segment_that_no_disk_has_room_for_is_discarded_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "s").symlink_to("/dev/full")
    writer = write(tmp_path / "s", [b"x"])
    writer.store(writer.take(is_last=True))  # a few bytes, which are not on the disk yet
    writer.discard()
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_discarded_segment_is_gone(tmp_path: Path) -> None:
    writer = write(tmp_path / "s", [b"x" * 3_000_000], spill_every=1)
    assert (tmp_path / "s").exists()
    writer.discard()
    writer.discard()
    assert not (tmp_path / "s").exists()


def test_damage_is_found(tmp_path: Path) -> None:
    write(tmp_path / "s", [bytes([at]) * 600_000 for at in range(4)]).finish()
    stored = (tmp_path / "s").read_bytes()
    for cut in range(1, len(stored) - 1, 7):
        if stored[cut : cut + 4] == b"\x28\xb5\x2f\xfd":
            continue  # between two frames: a shorter segment, which its hash in the journal tells
        with pytest.raises(Malformed):
            list(read_content([stored[:cut]]))
    for at in range(len(stored)):
        flipped = stored[:at] + bytes([stored[at] ^ 4]) + stored[at + 1 :]
        try:
            content = b"".join(read_content([flipped]))
        except Malformed:
            continue
        assert content == b"".join(read_content([stored]))  # a bit that means nothing to zstd


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 9))
@settings(deadline=None, max_examples=50)
def test_lines_come_out_of_any_pieces(lines: list[bytes], size: int) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    content = b"".join(line + b"\n" for line in lines)
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    assert list(split_lines(pieces)) == lines


@pytest.mark.needs_tool("zstdcat")
def test_zstdcat_reads_a_segment(tmp_path: Path) -> None:
    write(tmp_path / "s.zst", [b"a\n" * 600_000, b"b\n" * 600_000]).finish()
    found = subprocess.run(["zstdcat", str(tmp_path / "s.zst")], capture_output=True, check=True, timeout=30)
    assert found.stdout == b"a\n" * 600_000 + b"b\n" * 600_000
