"""Sessions on a tape: begin one that explains the hole before it, close one whose process was killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.clock import Clock, iso_of
from ssmd.errors import Unavailable
from ssmd.schemas.control import AnyFact, Connected, DayMark, Disconnected, PreviousSession, TailCut
from ssmd.services.connector.venue_socket import Ending
from ssmd.streams.recorder import Recorder
from ssmd.streams.tape import TapeEnd, TapeWriter

SILENCES: Final = frozenset({"stale", "closed-by-venue", "connection-lost"})
"""Endings that are no outage during a planned pause."""


def new_session_number(end: TapeEnd | PreviousSession | None, now_ns: int, last_ts_ns: int = 0) -> int:
    """The number of a session begun now: the time, raised above all that the session before it has told of time.

    Else a wall clock that stepped back between them would make the hole between them end before it begins.

    Args:
        last_ts_ns: receive time of the last entry on the tape.
    """
    if end is None:
        return max(now_ns, last_ts_ns + 1)
    last_recv_ns = end.last_recv_ns if isinstance(end, PreviousSession) else end.last_ts_ns
    return max(now_ns, end.session + 1, last_recv_ns + 1, last_ts_ns + 1)


def judged(ending: Ending, failure: str, pause: str) -> tuple[str, str, bool]:
    """Why a session ended, what shows it, and whether that is no outage but the planned silence `pause` ("" = there is none).

    Args:
        failure: the protocol's own word, "" = it had no reason to end it.
    """
    cause = "channel-error" if failure else ending.cause
    evidence = failure or ending.evidence
    if pause and cause in SILENCES:
        evidence = f"{pause}; {cause} {evidence}".rstrip()
        cause = "planned-pause"
        return cause, evidence, True
    return cause, evidence, False


class Before(NamedTuple):
    """What a new session says of the one before it. `facts`: to be recorded behind its `Connected`, the last in its block."""

    previous: PreviousSession | None = None
    facts: tuple[AnyFact, ...] = ()


def close_killed_session(
    tape: TapeWriter, clock: Clock, make_recorder: Callable[[int], Recorder], day_of: Callable[[int], tuple[str, int]]
) -> Before:
    """End the tape's last session as its killed process could not, and tell a torn tail.

    After a restart of the machine nothing is appended to that session: the streams may hold entries of it that the tape
    has lost, under the very numbers that would come next. The new session says all of it.

    Args:
        make_recorder: a recorder by session number.
        day_of: as for `Recorder`.
    """
    end = tape.end
    if not end.session:
        return Before()
    if end.closing is not None:
        closing = end.closing
        return Before(PreviousSession(end.session, end.last_n, closing.last_recv_ns, closing.cause, closing.evidence))
    heard_ns = end.last_frame_ns or end.last_ts_ns
    evidence = _evidence(end, tape, clock.now_ns())
    cut = (TailCut(tape.cut.size_bytes, tape.cut.kept_as),) if tape.cut is not None else ()
    if tape.has_restarted:
        day, day_end_ns = day_of(end.last_ts_ns)
        mark = (DayMark(day),) if clock.now_ns() >= day_end_ns and not end.is_marked else ()
        return Before(PreviousSession(end.session, end.last_n, heard_ns, "killed", evidence), (*cut, *mark))
    recorder = make_recorder(end.session)
    recorder.resume(end.last_n, end.last_ts_ns, end.last_frame_ns, is_marked=end.is_marked)
    with tape.unbounded():
        recorder.turn_day()
        for fact in cut:
            recorder.fact(fact)
        recorder.fact(Disconnected("killed", last_recv_ns=heard_ns, evidence=evidence))
        recorder.flush()
    return Before(PreviousSession(end.session, recorder.last_n, heard_ns, "killed", evidence))


def begin_session(recorder: Recorder, connected: Connected, carried: tuple[AnyFact, ...]) -> None:
    """Write the first entries of a session: how it began, then what is `carried` over from the one before it."""
    recorder.fact(connected)
    for fact in carried:
        recorder.fact(fact)
    if carried:
        recorder.flush()  # a day-mark is the last entry of its block


def _evidence(end: TapeEnd, tape: TapeWriter, now_ns: int) -> str:
    torn = f", followed by {tape.cut.size_bytes} torn bytes" if tape.cut else ""
    restarted = "; the machine was restarted: what was written after the last fsync is lost" if tape.has_restarted else ""
    return (
        f"the tape ends at entry {end.last_n} of {iso_of(end.last_ts_ns)} without a disconnect{torn}; "
        f"the connector started again at {iso_of(now_ns)}{restarted}"
    )


def next_epoch(directory: Path, now_ns: int, known: int) -> int:
    """A fencing number above all earlier ones of this tape, above `known`, and above those of tapes elsewhere.

    It is the time in microseconds, raised where the clock stepped back: so it is known without the journal, too. Two that
    begin at one moment on two machines (they had power again, say) must not have the same: that would fence neither.

    Raises:
        Unavailable: it cannot be kept.
    """
    path = directory / "epoch"
    try:
        before = int(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        before = 0
    epoch = max(now_ns // 1_000, before + 1, known + 1)
    try:
        path.write_text(f"{epoch}\n", encoding="ascii")
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror}", mend="make room on its disk, or it writable") from error
    return epoch
