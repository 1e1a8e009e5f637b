"""What a start writes about the session before it, when its process was killed at an awkward moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssmd.clock import DayCalendar, ManualClock
from ssmd.schemas.blocks import EntryKind
from ssmd.schemas.control import AnyFact, DayMark, Disconnected, decode_fact
from ssmd.services.connector.sessions import close_killed_session
from ssmd.streams.recorder import Recorder
from ssmd.streams.tape import TapeWriter
from ssmd.streams.tape_cursor import TapeCursor

DAY_END = 1_778_803_200_000_000_000  # 2026-05-15T00:00:00Z
DAY_OF = DayCalendar().day_of


def recorder_on(tape: TapeWriter, clock: ManualClock, session: int) -> Recorder:
    return Recorder(tape, session, clock, day_of=DAY_OF, on_block=lambda _: None, on_begin=lambda: None)


def facts_of(directory: Path) -> list[AnyFact]:
    entries = [entry for block in TapeCursor(directory).read() for entry in block.decode().entries]
    return [decode_fact(entry.payload) for entry in entries if entry.kind == EntryKind.CTL]


@pytest.mark.parametrize("boot", ["one", "two"])
def test_a_day_that_was_marked_before_the_kill_is_not_marked_again(tmp_path: Path, boot: str) -> None:
    clock = ManualClock(DAY_END - 5)
    tape = TapeWriter(tmp_path, boot="one")
    recorder = recorder_on(tape, clock, DAY_END - 5)
    recorder.frame(b"{}\n")
    clock.advance(5)
    recorder.turn_day()
    tape.close()
    clock.advance(1_000)

    tape = TapeWriter(tmp_path, boot=boot)
    assert tape.end.is_marked
    before = close_killed_session(tape, clock, lambda session: recorder_on(tape, clock, session), DAY_OF)
    assert before.previous is not None
    told = [DayMark("2026-05-14"), Disconnected("killed", last_recv_ns=DAY_END - 5, evidence=before.previous.evidence)]
    # After a restart of the machine nothing is appended to the old session, and nothing is left to be marked in the new one.
    assert (facts_of(tmp_path), before.facts) == (told if boot == "one" else told[:1], ())
    tape.close()
