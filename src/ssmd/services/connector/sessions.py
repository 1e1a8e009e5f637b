"""Sessions on a tape: begin one that explains the hole before it, close one whose process was killed."""

from __future__ import annotations

from collections.abc import Callable

from ssmd.clock import Clock, iso_of
from ssmd.schemas.control import Disconnected, PreviousSession, TailCut
from ssmd.streams.recorder import Recorder
from ssmd.streams.tape import CutTail, TapeEnd, TapeWriter


def new_session_number(end: TapeEnd | PreviousSession | None, now_ns: int) -> int:
    """The number of a session begun now: the time, raised above the last session's where the clock stepped back."""
    return max(now_ns, end.session + 1) if end is not None else now_ns


def close_killed_session(tape: TapeWriter, clock: Clock, make_recorder: Callable[[int], Recorder]) -> PreviousSession | None:
    """End the tape's last session as its killed process could not, and tell a torn tail; what a new session says of it.

    Args:
        make_recorder: a recorder by session number.

    Returns:
        None for a tape without any session.
    """
    end = tape.end
    if not end.session:
        return None
    if end.closing is not None:
        return PreviousSession(end.session, end.last_n, end.closing.last_recv_ns, end.closing.cause, end.closing.evidence)
    recorder = make_recorder(end.session)
    recorder.resume(end.last_n, end.last_ts_ns, end.last_frame_ns)
    recorder.turn_day()
    if tape.cut is not None:
        recorder.fact(TailCut(tape.cut.size_bytes, tape.cut.kept_as))
    evidence = _evidence(end, tape.cut, clock.now_ns())
    recorder.fact(Disconnected("killed", last_recv_ns=end.last_frame_ns or end.last_ts_ns, evidence=evidence))
    recorder.flush()
    return PreviousSession(end.session, recorder.last_n, end.last_frame_ns or end.last_ts_ns, "killed", evidence)


def _evidence(end: TapeEnd, cut: CutTail | None, now_ns: int) -> str:
    torn = f", followed by {cut.size_bytes} torn bytes" if cut else ""
    return (
        f"the tape ends at entry {end.last_n} of {iso_of(end.last_ts_ns)} without a disconnect{torn}; "
        f"the connector started again at {iso_of(now_ns)}"
    )
