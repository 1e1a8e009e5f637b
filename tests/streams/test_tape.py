"""The tape: what was appended is read back; torn tails are cut and named; damage is found and located."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
from tests.schemas.first_blocks import begun_in_first_layout

from ssmd.clock import DayCalendar, ManualClock
from ssmd.errors import Misconfigured, Unavailable
from ssmd.schemas.blocks import FIRST_MAGIC, MAGIC, EntryKind, decode_header, pack_columns
from ssmd.schemas.control import ClockStepped, DayMark, Disconnected, decode_fact, encode_fact
from ssmd.streams.recorder import Recorder
from ssmd.streams.tape import TapeWriter
from ssmd.streams.tape_cursor import TapeCursor
from ssmd.streams.tape_files import Damage, TapeBlock, TapePosition, file_of, indexes, verify

NOON = 1_778_760_000_000_000_000  # 2026-05-14T12:00:00Z


def append(tape: TapeWriter, session: int, first_n: int, *payloads: bytes) -> TapeBlock:
    times = [NOON + first_n + i for i in range(len(payloads))]
    body = pack_columns(bytes([EntryKind.IN] * len(payloads)), times, payloads)
    return tape.append(session, first_n, len(payloads), times[0], times[-1], body)


def payloads_of(blocks: list[TapeBlock]) -> list[bytes]:
    return [entry.payload for block in blocks for entry in block.decode().entries]


def fill(directory: Path, blocks: int = 40, file_bytes: int = 4096) -> list[bytes]:
    written: list[bytes] = []
    tape = TapeWriter(directory, file_bytes=file_bytes)
    rng = random.Random(7)
    for block in range(blocks):
        payloads = [rng.randbytes(rng.randint(1, 300)) for _ in range(2)]
        append(tape, 1 + block // 15, 1 + 2 * (block % 15), *payloads)
        written += payloads
    tape.close()
    return written


def test_what_was_appended_is_read_back_across_files_and_openings(tmp_path: Path) -> None:
    written = fill(tmp_path)
    tape = TapeWriter(tmp_path)
    assert tape.cut is None
    append(tape, 9, 1, b"after the reopening")
    cursor = TapeCursor(tmp_path)
    blocks: list[TapeBlock] = []
    while piece := cursor.read(1000):
        blocks += piece
    assert payloads_of(blocks) == [*written, b"after the reopening"]
    assert len(indexes(tmp_path)) > 3
    assert not [found for found in verify(tmp_path) if isinstance(found, Damage)]
    append(tape, 9, 2, b"and one more while the cursor stands at the end")
    assert payloads_of(cursor.read()) == [b"and one more while the cursor stands at the end"]
    tape.close()


def test_a_tape_begun_in_the_first_layout_goes_on_in_todays(tmp_path: Path) -> None:
    written = fill(tmp_path)
    tape = TapeWriter(tmp_path)
    end = tape.end
    tape.close()
    files = [_blocks(file_of(tmp_path, index).read_bytes(), index) for index in indexes(tmp_path)]
    blocks = begun_in_first_layout([block.data for file in files for block in file], sum(map(len, files)))
    for index, file in zip(indexes(tmp_path), files, strict=True):
        file_of(tmp_path, index).write_bytes(b"".join(blocks[: len(file)]))
        del blocks[: len(file)]
    with file_of(tmp_path, index).open("ab") as torn:
        torn.write(files[0][0].data[:100])
    tape = TapeWriter(tmp_path, file_bytes=file_of(tmp_path, index).stat().st_size + 1000)
    assert tape.cut is not None
    assert (tape.cut.size_bytes, tape.end, tape.position.file_index) == (100, end, index)
    for n in range(1, 21):
        append(tape, 9, n, b"%d" % n)
    tape.close()
    found = list(verify(tmp_path))
    assert [block for block in found if isinstance(block, Damage)] == []
    cursor, read = TapeCursor(tmp_path), []
    while piece := cursor.read(1000):
        read += piece
    assert read == found
    assert payloads_of(read) == [*written, *(b"%d" % n for n in range(1, 21))]
    layouts = [block.header.magic for block in read]
    assert layouts == [FIRST_MAGIC] * (len(read) - 20) + [MAGIC] * 20
    assert [{block.header.magic for block in read if block.position.file_index == at} for at in (index, index + 1)] == [
        {FIRST_MAGIC, MAGIC},
        {MAGIC},
    ]


def test_a_block_larger_than_one_read_is_handed_out_whole(tmp_path: Path) -> None:
    tape = TapeWriter(tmp_path)
    append(tape, 1, 1, b"x" * 5000)
    assert payloads_of(TapeCursor(tmp_path).read(100)) == [b"x" * 5000]
    tape.close()


@pytest.mark.parametrize("torn", [1, 40, 88, 89, 120])
def test_a_torn_tail_is_cut_named_and_kept(tmp_path: Path, torn: int) -> None:
    tape = TapeWriter(tmp_path)
    append(tape, 1, 1, b"whole")
    end = append(tape, 1, 2, b"y" * 50)
    tape.close()
    path = file_of(tmp_path, 1)
    path.write_bytes(path.read_bytes()[: end.position.offset + torn])
    again = TapeWriter(tmp_path)
    assert again.cut is not None
    assert again.cut.size_bytes == torn
    assert (tmp_path / again.cut.kept_as).read_bytes() == end.data[:torn]
    assert (again.end.session, again.end.last_n) == (1, 1)
    again.close()
    once_more = TapeWriter(tmp_path)
    assert once_more.cut == again.cut, "the start that cut it has told nobody: it wrote nothing"
    append(once_more, 1, 2, b"goes on")
    assert payloads_of(TapeCursor(tmp_path).read()) == [b"whole", b"goes on"]
    once_more.close()
    told = TapeWriter(tmp_path)
    assert told.cut is None
    told.close()


def test_a_torn_tail_that_cannot_be_kept_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = TapeWriter(tmp_path)
    append(tape, 1, 1, b"whole")
    tape.close()
    path = file_of(tmp_path, 1)
    with path.open("ab") as file:
        file.write(b"torn")
    content = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left on device"):
            TapeWriter(tmp_path)
    assert path.read_bytes() == content
    again = TapeWriter(tmp_path)
    assert again.cut is not None
    assert again.cut.size_bytes == 4
    again.close()


def test_the_end_tells_how_the_last_session_ended(tmp_path: Path) -> None:
    tape = TapeWriter(tmp_path)
    append(tape, 5, 1, b"a frame")
    tape.close()
    tape = TapeWriter(tmp_path)
    assert tape.end.session == 5
    assert not tape.end.is_closed
    assert tape.end.last_frame_ns == NOON + 1
    closing = Disconnected("killed", last_recv_ns=NOON + 1, evidence="the tape ended")
    tape.append(5, 2, 1, NOON + 9, NOON + 9, pack_columns(bytes([EntryKind.CTL]), [NOON + 9], [encode_fact(closing)]))
    tape.close()
    tape = TapeWriter(tmp_path)
    assert tape.end.is_closed
    assert tape.end.closing == closing
    assert (tape.end.last_n, tape.end.last_frame_ns) == (2, NOON + 1)
    tape.close()


def test_seeded_damage_is_always_found_and_located(tmp_path: Path) -> None:
    fill(tmp_path)
    originals = {index: file_of(tmp_path, index).read_bytes() for index in indexes(tmp_path)}
    for seed in range(200):
        rng = random.Random(seed)
        index = rng.choice(list(originals))
        data = bytearray(originals[index])
        kind = rng.choice(["flip", "truncate", "swap"])
        if kind == "flip":
            first = at = rng.randrange(len(data))
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "truncate":
            first = rng.randrange(1, len(data))
            del data[first:]
        else:
            first, second = sorted(rng.sample(range(len(data) // 64), 2))
            first, second = first * 64, second * 64
            data[first : first + 64], data[second : second + 64] = data[second : second + 64], data[first : first + 64]
            if bytes(data) == originals[index]:
                continue
        file_of(tmp_path, index).write_bytes(bytes(data))
        damages = [found for found in verify(tmp_path) if isinstance(found, Damage)]
        starts = [b.position.offset for b in _blocks(originals[index], index) if b.position.offset <= first]
        if kind == "truncate" and first in _ends(originals[index], index):
            # Cut exactly between blocks: the chain of the next file shows it; at the tape's end nothing can.
            if index == max(originals):
                file_of(tmp_path, index).write_bytes(originals[index])
                continue
            assert damages[0].position == TapePosition(index + 1, 0), (seed, kind)
        else:
            assert damages, (seed, kind)
            assert damages[0].position == TapePosition(index, starts[-1]), (seed, kind)
        file_of(tmp_path, index).write_bytes(originals[index])


def _blocks(data: bytes, index: int) -> list[TapeBlock]:
    blocks, at = [], 0
    while at < len(data):
        header = decode_header(data, at)
        end = at + header.size_bytes
        blocks.append(TapeBlock(TapePosition(index, at), TapePosition(index, end), header, data[at:end]))
        at = end
    return blocks


def _ends(data: bytes, index: int) -> set[int]:
    return {block.end.offset for block in _blocks(data, index)}


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    tape = TapeWriter(tmp_path)
    with pytest.raises(Misconfigured, match="another process writes the tape"):
        TapeWriter(tmp_path)
    append(tape, 1, 1, b"still mine")
    tape.close()


def test_the_bound_refuses_and_keeps_what_is_there(tmp_path: Path) -> None:
    tape = TapeWriter(tmp_path, bytes_max=400)
    append(tape, 1, 1, b"a" * 100)
    with pytest.raises(Unavailable, match="bound of 400 bytes"):
        append(tape, 1, 2, b"b" * 300)
    append(tape, 1, 2, b"c")
    assert payloads_of(TapeCursor(tmp_path).read()) == [b"a" * 100, b"c"]
    tape.close()


def test_the_bound_does_not_count_where_a_session_must_be_ended(tmp_path: Path) -> None:
    tape = TapeWriter(tmp_path, bytes_max=1)
    with tape.unbounded():
        append(tape, 1, 1, b"the end")
    with pytest.raises(Unavailable, match="reached its bound"):
        append(tape, 2, 1, b"a beginning")
    tape.close()


def test_a_restart_of_the_machine_is_known_until_something_was_written_after_it(tmp_path: Path) -> None:
    told = []
    for boot, payload in (("a", b"1"), ("a", b""), ("b", b""), ("b", b"2"), ("b", b"")):
        tape = TapeWriter(tmp_path, boot=boot)
        told.append(tape.has_restarted)
        if payload:
            append(tape, len(told), 1, payload)
        tape.close()
    assert told == [False, False, True, True, False]


def test_pruning_deletes_whole_files_before_a_position_only(tmp_path: Path) -> None:
    fill(tmp_path)
    tape = TapeWriter(tmp_path)
    before = tape.size_bytes
    files = indexes(tmp_path)
    freed = tape.prune(TapePosition(files[2], 5))
    assert indexes(tmp_path) == files[2:]
    assert tape.size_bytes == before - freed
    tape.prune(TapePosition(files[-1] + 5, 0))
    assert indexes(tmp_path) == [files[-1]]
    assert TapeCursor(tmp_path, TapePosition(1, 0)).read()[0].position == TapePosition(files[-1], 0)
    tape.close()


def record(tmp_path: Path, clock: ManualClock, **options: int) -> tuple[Recorder, list[TapeBlock], TapeWriter]:
    tape = TapeWriter(tmp_path)
    blocks: list[TapeBlock] = []
    recorder = Recorder(
        tape,
        clock.now_ns(),
        clock,
        day_of=DayCalendar().day_of,
        on_block=blocks.append,
        on_begin=lambda: None,
        **options,
    )
    return recorder, blocks, tape


def test_entries_are_numbered_and_times_never_decrease_when_the_clock_steps_back(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    recorder, blocks, tape = record(tmp_path, clock)
    recorder.frame(b"one")
    clock.step(NOON - 3_600_000_000_000)
    recorder.frame(b"two")
    recorder.watch_clock()
    recorder.flush()
    entries = blocks[0].decode().entries
    assert [(entry.n, entry.ts_recv_ns) for entry in entries] == [(1, NOON), (2, NOON), (3, NOON)]
    assert decode_fact(entries[2].payload) == ClockStepped(-3_600_000_000_000)
    tape.close()


def test_blocks_end_at_their_size(tmp_path: Path) -> None:
    recorder, blocks, tape = record(tmp_path, ManualClock(NOON), block_bytes=200)
    for _ in range(5):
        recorder.frame(b"z" * 80)
    recorder.flush()
    assert [(block.header.first_n, block.header.last_n) for block in blocks] == [(1, 2), (3, 4), (5, 5)]
    tape.close()


def test_the_day_boundary_splits_the_block_and_marks_the_day(tmp_path: Path) -> None:
    day_end = NOON + 12 * 3_600_000_000_000
    clock = ManualClock(day_end - 5)
    recorder, blocks, tape = record(tmp_path, clock)
    recorder.frame(b"last of the day")
    clock.advance(5)
    recorder.frame(b"first of the next")
    recorder.flush()
    old, new = (block.decode().entries for block in blocks)
    assert [entry.ts_recv_ns for entry in old] == [day_end - 5, day_end - 1]
    assert decode_fact(old[1].payload) == DayMark("2026-05-14")
    assert [(entry.n, entry.ts_recv_ns, entry.payload) for entry in new] == [(3, day_end, b"first of the next")]
    clock.advance(24 * 3_600_000_000_000)
    recorder.turn_day()
    recorder.turn_day()
    assert decode_fact(blocks[2].decode().entries[0].payload) == DayMark("2026-05-15")
    assert len(blocks) == 3
    tape.close()


def test_a_refused_block_stays_with_the_recorder_for_another_try(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    tape = TapeWriter(tmp_path, bytes_max=130)
    blocks: list[TapeBlock] = []
    recorder = Recorder(tape, NOON, clock, day_of=DayCalendar().day_of, on_block=blocks.append, on_begin=lambda: None)
    recorder.frame(b"f" * 100)
    with pytest.raises(Unavailable):
        recorder.flush()
    assert not blocks
    tape._bytes_max = 10_000
    recorder.flush()
    assert payloads_of(blocks) == [b"f" * 100]
    tape.close()


@pytest.mark.parametrize("block_bytes", [20, 1000], ids=["no room for the mark", "room for the mark"])
def test_a_day_that_turns_while_the_tape_is_full_is_marked_once_and_last(tmp_path: Path, block_bytes: int) -> None:
    day_end = NOON + 12 * 3_600_000_000_000
    clock = ManualClock(day_end - 5)
    recorder, blocks, tape = record(tmp_path, clock, block_bytes=block_bytes)
    recorder.frame(b"old")
    tape._bytes_max = 1
    for _ in range(2):
        clock.advance(5)
        for action in (recorder.turn_day, recorder.flush):
            with pytest.raises(Unavailable):
                action()
        with pytest.raises(Unavailable):
            recorder.frame(b"refused")
    assert recorder.last_frame_ns == day_end - 5, "what was refused is not on the tape"
    tape._bytes_max = 10_000
    recorder.frame(b"new")
    recorder.flush()
    mark = encode_fact(DayMark("2026-05-14"))
    entries = [[(entry.n, entry.ts_recv_ns, entry.payload) for entry in block.decode().entries] for block in blocks]
    before = [(1, day_end - 5, b"old"), (2, day_end - 1, mark)]
    assert entries == [*([before] if block_bytes == 1000 else [before[:1], before[1:]]), [(3, day_end + 5, b"new")]]
    tape.close()


@pytest.mark.parametrize("days", [0, 2])
def test_nothing_follows_in_a_day_that_is_over_though_the_clock_steps_back(tmp_path: Path, days: int) -> None:
    clock = ManualClock(NOON + 12 * 3_600_000_000_000 - 5)
    recorder, blocks, tape = record(tmp_path, clock)
    recorder.frame(b"old")
    clock.advance(5 + days * 24 * 3_600_000_000_000)
    later = clock.now_ns()
    recorder.turn_day()
    clock.step(NOON)
    recorder.frame(b"new")
    recorder.flush()
    assert [entry.ts_recv_ns for entry in blocks[1].decode().entries] == [later]
    tape.close()


def test_a_step_of_the_clock_that_could_not_be_written_is_told_later(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    recorder, blocks, tape = record(tmp_path, clock, block_bytes=20)
    recorder.frame(b"frame")
    tape._bytes_max = 1
    clock.step(NOON + 1_000_000_000)
    with pytest.raises(Unavailable):
        recorder.watch_clock()
    tape._bytes_max = 10_000
    recorder.watch_clock()
    recorder.watch_clock()
    recorder.flush()
    assert [decode_fact(payload) for payload in payloads_of(blocks[1:])] == [ClockStepped(1_000_000_000)]
    tape.close()
