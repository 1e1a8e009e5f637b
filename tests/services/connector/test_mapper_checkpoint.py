"""A mapper taken up from a checkpoint goes on exactly as one that read its session from the first entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssmd.clock import DayCalendar, ManualClock
from ssmd.domain.capture import CaptureEvent, TapePlace
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.control import Connected, Disconnected
from ssmd.services.connector import mapper_checkpoint
from ssmd.services.connector.fact_journal import facts_on_tape, place_of
from ssmd.services.connector.mapper_checkpoint import MapStart, path_of, prunable_before, start_behind
from ssmd.services.connector.tape_follower import BlockMapper, Names
from ssmd.services.simulator.capture_file import frames
from ssmd.services.simulator.seeded_capture import write_seeded_capture
from ssmd.streams.publisher import NOWHERE, EntryPlace, Unit
from ssmd.streams.recorder import Recorder
from ssmd.streams.tape import TapeWriter
from ssmd.streams.tape_cursor import BEGINNING, TapeCursor
from ssmd.streams.tape_files import indexes

NAMES = Names("t", "kalshi", "main")


def make_mapper(session: int) -> KalshiMapper:
    return KalshiMapper("kalshi", session)


def mapped(directory: Path, start: MapStart, *, save: bool = False) -> list[tuple[Unit, list[CaptureEvent]]]:
    mapper = BlockMapper(NAMES, make_mapper, start.checkpoint)
    cursor = TapeCursor(directory, start.position)
    found = []
    while blocks := cursor.read():
        for block in blocks:
            if save and block.position.offset == 0:
                mapper.save(directory, block.position.file_index, block.header.session)
            unit, facts = mapper.map(block.decode(), block.data, is_wanted=True)
            assert unit is not None
            found.append((unit, facts))
    cursor.close()
    return found


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of a seeded market over many small files, with lost, repeated, broken and foreign frames."""
    directory = tmp_path_factory.mktemp("tape")
    capture = directory / "capture.jsonl"
    write_seeded_capture(capture, seed=5, frames=3000, markets=3, connections=2)
    clock = ManualClock(1_778_733_000_000_000_000)
    writer = TapeWriter(directory / "main", file_bytes=60_000)
    recorder: Recorder | None = None
    connection = None
    for number, frame in enumerate(frames(capture)):
        clock.advance(1_000_000)
        if frame.connection != connection:
            if recorder is not None:
                recorder.fact(Disconnected("connection-lost", last_recv_ns=recorder.last_frame_ns, evidence="test"))
                recorder.flush()
            connection = frame.connection
            recorder = _recorder(writer, clock)
            recorder.fact(Connected("kalshi", "main", "wss://venue", wire="kalshi-dollars"))
        assert recorder is not None
        if number % 97 == 50:
            continue  # a jump of the sequence
        recorder.frame(frame.payload)
        if number % 131 == 70:
            recorder.frame(frame.payload)
        if number % 151 == 80:
            recorder.frame(b'{"type":"orderbook_delta","sid":2,"seq"')
        if number % 10 == 0:
            recorder.flush()
    assert recorder is not None
    recorder.flush()
    writer.close()
    return directory / "main"


def _recorder(writer: TapeWriter, clock: ManualClock) -> Recorder:
    day_of = DayCalendar().day_of
    return Recorder(writer, clock.now_ns(), clock, day_of=day_of, on_block=lambda _: None, on_begin=lambda: None)


def test_from_every_checkpoint_the_rest_is_mapped_the_same(tape: Path) -> None:
    whole = mapped(tape, MapStart(BEGINNING), save=True)
    assert len(indexes(tape)) > 5
    assert any(fact for _, facts in whole for fact in facts if type(fact).__name__ == "GapOpened")
    taken_up = 0
    for at in range(0, len(whole), 23):
        start = start_behind(tape, whole[at][0].reaches, make_mapper)
        taken_up += start.checkpoint is not None
        rest = mapped(tape, start)
        assert rest == whole[len(whole) - len(rest) :]
        assert len(whole) - len(rest) <= at + 1, "blocks behind the place are missing"
    assert taken_up > 5


def test_facts_are_told_the_same_from_anywhere(tape: Path) -> None:
    mapped(tape, MapStart(BEGINNING), save=True)
    whole = [fact for facts in facts_on_tape(tape, make_mapper, TapePlace()) for fact in facts]
    assert len(whole) > 10
    for at, fact in enumerate(whole):
        assert [one for facts in facts_on_tape(tape, make_mapper, place_of(fact)) for one in facts] == whole[at + 1 :]


def test_a_torn_foreign_or_older_checkpoint_is_passed_over(tape: Path) -> None:
    whole = mapped(tape, MapStart(BEGINNING), save=True)
    last = whole[-1][0].reaches
    used = start_behind(tape, last, make_mapper)
    assert used.checkpoint is not None
    index = used.position.file_index
    kept = path_of(tape, index).read_bytes()
    for damaged in (b"", kept[:40], kept[:-1], b"\0" * len(kept)):
        path_of(tape, index).write_bytes(damaged)
        assert start_behind(tape, last, make_mapper).position.file_index < index
    path_of(tape, index).write_bytes(kept)
    assert mapper_checkpoint.load(tape, index, KalshiMapper.version + 1) is None
    assert start_behind(tape, last, make_mapper).position.file_index == index


def test_nothing_that_is_still_needed_is_prunable(tape: Path) -> None:
    whole = mapped(tape, MapStart(BEGINNING), save=True)
    assert prunable_before(tape, NOWHERE, make_mapper) == BEGINNING
    for unit, _ in whole[::31]:
        before = prunable_before(tape, unit.reaches, make_mapper)
        for index in (one for one in indexes(tape) if one < before.file_index):
            cursor = TapeCursor(tape, before._replace(file_index=index))
            for block in cursor.read(1 << 20):
                if block.position.file_index == index:
                    assert EntryPlace(block.header.session, block.header.last_n) <= unit.reaches
            cursor.close()
