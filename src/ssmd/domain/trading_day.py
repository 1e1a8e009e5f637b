"""Aggregate `trading-day . {date}`: one date of one environment, from its start to its totals.

    pending -> starting -> active -> ending -> complete
    starting | active | ending -> error -> starting | ending, or back to where it stood (recovered)
    pending -> missed -> starting
    starting | active | ending | error -> failed -> starting | ending
    everything that was started and is not complete -> force-ended

The date is the calendar date in the environment's zone. The first error of an attempt stands; a start or an end
requested anew begins another attempt. An error ends an attempt, a failure says that nobody will try again by itself.
"""

from __future__ import annotations

from datetime import date as calendar_date
from typing import Final

import msgspec

from ssmd.domain.decider import Decider
from ssmd.domain.trading_day_events import (
    EVENTS,
    PHASE_OF,
    AbandonDay,
    Activated,
    ActivateDay,
    Completed,
    CompleteDay,
    DayCommand,
    DayEvent,
    EndDay,
    EndRequested,
    Errored,
    FailDay,
    Failed,
    ForceEndDay,
    ForceEnded,
    Late,
    Missed,
    OpenDay,
    Opened,
    Phase,
    RecordLate,
    RecordMissed,
    RecordStep,
    RecoverDay,
    Recovered,
    StartDay,
    StartRequested,
    Status,
    StepCompleted,
    Totals,
)
from ssmd.errors import Rejected

__all__ = [
    "AGGREGATE",
    "DECIDER",
    "EVENTS",
    "PHASE_OF",
    "AbandonDay",
    "ActivateDay",
    "Activated",
    "CompleteDay",
    "Completed",
    "DayCommand",
    "DayEvent",
    "EndDay",
    "EndRequested",
    "Errored",
    "FailDay",
    "Failed",
    "ForceEndDay",
    "ForceEnded",
    "Late",
    "Missed",
    "OpenDay",
    "Opened",
    "Phase",
    "RecordLate",
    "RecordMissed",
    "RecordStep",
    "RecoverDay",
    "Recovered",
    "StartDay",
    "StartRequested",
    "State",
    "Status",
    "StepCompleted",
    "Totals",
    "decide",
    "evolve",
]

AGGREGATE: Final = "trading-day"

# State


class State(msgspec.Struct, frozen=True):
    """Where the day stands.

    Attributes:
        steps: (phase, step) done in this attempt; late: phases of this attempt that began late.
        error: why it stopped, "" unless status is error or failed; errored_in: the status it stood in then.
        due_ns: (start, end) as the schedule has them, None = it never said.
    """

    status: Status = "pending"
    date: str = ""
    steps: tuple[tuple[Phase, str], ...] = ()
    totals: Totals | None = None
    error: str = ""
    errored_in: Status | None = None
    late: tuple[Phase, ...] = ()
    due_ns: tuple[int, int] | None = None


_RUNNING: Final[frozenset[Status]] = frozenset({"starting", "active", "ending"})
_NOT_BEGUN: Final[frozenset[Status]] = frozenset({"pending", "missed"})


def decide(state: State, command: DayCommand) -> tuple[DayEvent, ...]:
    match command:
        case StartDay(date=date, reason=reason):
            return _start(state, date, reason)
        case RecordStep():
            return _step(state, command)
        case ActivateDay():
            if state.status == "active":
                return ()
            _require(state, "starting", "activate")
            return (Activated(),)
        case EndDay(date=date, reason=reason):
            return _end(state, date, reason)
        case CompleteDay(totals=totals):
            return _complete(state, totals)
        case FailDay(error=error):
            return _fail(state, error)
        case _:
            return _decide_by_schedule(state, command)


def _decide_by_schedule(
    state: State, command: OpenDay | RecordMissed | RecordLate | AbandonDay | RecoverDay | ForceEndDay
) -> tuple[DayEvent, ...]:
    match command:
        case OpenDay():
            return _open(state, command)
        case RecordMissed():
            return _miss(state, command)
        case RecordLate(phase=phase, due_ns=due_ns):
            return _late(state, phase, due_ns)
        case AbandonDay(error=error, attempts=attempts):
            return _abandon(state, error, attempts)
        case RecoverDay(detail=detail):
            return _recover(state, detail)
        case ForceEndDay(reason=reason):
            return _force_end(state, reason)


def _start(state: State, date: str, reason: str) -> tuple[DayEvent, ...]:
    _check_date(state, date)
    match state.status:
        case "starting" | "active":
            return ()
        case "ending":
            raise Rejected("day-ending", f"trading day {date} is being ended", mend=f"ssmd day status --date {date}")
        case "complete":
            raise Rejected(
                "day-already-complete",
                f"trading day {date} is complete; a day starts once",
                mend=f"ssmd day history --date {date}",
            )
        case "force-ended":
            raise Rejected(
                "day-force-ended",
                f"trading day {date} was ended by force; a day starts once",
                mend=f"ssmd day history --date {date}",
            )
        case _:
            return (StartRequested(date, reason),)


def _step(state: State, command: RecordStep) -> tuple[DayEvent, ...]:
    if (command.phase, command.step) in state.steps:
        return ()
    _require(state, PHASE_OF[command.phase], f"record step {command.step!r} of its {command.phase} for")
    return (StepCompleted(command.phase, command.step, command.detail),)


def _end(state: State, date: str, reason: str) -> tuple[DayEvent, ...]:
    _check_date(state, date)
    match state.status:
        case "ending" | "complete" | "force-ended":
            return ()
        case "pending" | "missed":
            raise Rejected("day-not-started", f"trading day {date} was never started", mend=f"ssmd day start --date {date}")
        case "starting":
            raise Rejected("day-not-active", f"trading day {date} is still starting", mend=f"ssmd day status --date {date}")
        case _:
            return (EndRequested(reason),)


def _complete(state: State, totals: Totals) -> tuple[DayEvent, ...]:
    settled = msgspec.structs.replace(totals, records=dict(sorted(totals.records.items())))
    if state.status == "complete":
        if settled == state.totals:
            return ()
        raise Rejected(
            "day-already-complete",
            f"trading day {state.date} is complete with other totals",
            mend=f"ssmd day history --date {state.date}",
        )
    _require(state, "ending", "complete")
    return (Completed(settled),)


def _fail(state: State, error: str) -> tuple[DayEvent, ...]:
    if state.status == "error":
        return ()
    if state.status not in _RUNNING:
        raise _not_running(state, "there is nothing that could fail")
    return (Errored(state.status, error),)


def _not_running(state: State, why: str) -> Rejected:
    return Rejected("day-not-running", f"{_named(state)} is {state.status}: {why}", mend=_mend(state))


def _open(state: State, command: OpenDay) -> tuple[DayEvent, ...]:
    _check_date(state, command.date)
    if command.end_due_ns and command.end_due_ns <= command.start_due_ns:
        raise Rejected("day-ends-before-it-starts", f"trading day {command.date} is due to end before it is due to start")
    if state.due_ns is None:
        # One that was started by hand is expected as well from now on.
        return (Opened(command.date, command.start_due_ns, command.end_due_ns),)
    if state.due_ns != (command.start_due_ns, command.end_due_ns):
        raise Rejected("day-already-open", f"trading day {command.date} was opened with other times: {state.due_ns}")
    return ()


def _miss(state: State, command: RecordMissed) -> tuple[DayEvent, ...]:
    _check_date(state, command.date)
    if state.status == "missed":
        return ()
    if state.status != "pending":
        raise Rejected("day-not-missed", f"trading day {command.date} was started: it is {state.status}")
    return (Missed(command.date, command.due_ns, command.reason),)


def _late(state: State, phase: Phase, due_ns: int) -> tuple[DayEvent, ...]:
    if phase in state.late:
        return ()
    is_begun = state.status not in _NOT_BEGUN if phase == "start" else state.status in ("ending", "complete")
    if not is_begun:
        raise Rejected("phase-not-begun", f"the {phase} of {_named(state)} has not begun: it is {state.status}")
    return (Late(phase, due_ns),)


def _abandon(state: State, error: str, attempts: int) -> tuple[DayEvent, ...]:
    if state.status == "failed":
        return ()
    if state.status not in _RUNNING and state.status != "error":
        raise _not_running(state, "there is nothing that could fail")
    return (Failed(state.errored_in or state.status, error, attempts),)


def _recover(state: State, detail: str) -> tuple[DayEvent, ...]:
    if state.status in _RUNNING:
        return ()
    if state.status not in ("error", "failed") or state.errored_in not in _RUNNING:
        raise _not_running(state, "there is nothing to recover")
    return (Recovered(state.errored_in, detail),)


def _force_end(state: State, reason: str) -> tuple[DayEvent, ...]:
    if state.status in ("force-ended", "complete"):
        return ()
    if state.status in _NOT_BEGUN:
        raise Rejected("day-not-started", f"{_named(state)} was never started", mend=_mend(state))
    return (ForceEnded(state.status, reason),)


def _named(state: State) -> str:
    return f"trading day {state.date}" if state.date else "the trading day"


def _mend(state: State) -> str:
    return f"ssmd day status --date {state.date}" if state.date else "ssmd day start"


def _require(state: State, status: Status, verb: str) -> None:
    if state.status == status:
        return
    rule = {"pending": "day-not-started", "complete": "day-already-complete"}.get(state.status, f"day-not-{status}")
    raise Rejected(rule, f"cannot {verb} {_named(state)}: it is {state.status}, not {status}", mend=_mend(state))


def _check_date(state: State, date: str) -> None:
    try:
        is_valid = calendar_date.fromisoformat(date).isoformat() == date
    except ValueError:
        is_valid = False
    if not is_valid:
        raise Rejected("invalid-date", f"{date!r} is not a calendar date", mend="give the date as YYYY-MM-DD")
    if state.date not in ("", date):
        raise Rejected("wrong-day", f"the command is for {date}, the trading day is {state.date}")


def evolve(state: State, event: DayEvent) -> State:
    match event:
        case StartRequested(date=date):
            return State(status="starting", date=date, due_ns=state.due_ns)
        case StepCompleted(phase=phase, step=step):
            return msgspec.structs.replace(state, steps=(*state.steps, (phase, step)))
        case Activated():
            return msgspec.structs.replace(state, status="active")
        case EndRequested():
            kept = tuple(done for done in state.steps if done[0] == "start")
            late = tuple(phase for phase in state.late if phase == "start")
            return msgspec.structs.replace(state, status="ending", steps=kept, error="", errored_in=None, late=late)
        case Completed(totals=totals):
            return msgspec.structs.replace(state, status="complete", totals=totals)
        case Errored(status=status, error=error):
            return msgspec.structs.replace(state, status="error", error=error, errored_in=status)
        case _:
            return _evolve_by_schedule(state, event)


def _evolve_by_schedule(state: State, event: DayEvent) -> State:
    match event:
        case Opened(date=date, start_due_ns=start_due_ns, end_due_ns=end_due_ns):
            return msgspec.structs.replace(state, date=date, due_ns=(start_due_ns, end_due_ns))
        case Missed(date=date):
            return msgspec.structs.replace(state, status="missed", date=date)
        case Late(phase=phase):
            return msgspec.structs.replace(state, late=(*state.late, phase))
        case Failed(status=status, error=error):
            return msgspec.structs.replace(state, status="failed", error=error, errored_in=status)
        case Recovered(status=status):
            return msgspec.structs.replace(state, status=status, error="", errored_in=None)
        case ForceEnded():
            return msgspec.structs.replace(state, status="force-ended")
        case _:
            return state


DECIDER: Decider[DayCommand, DayEvent, State] = Decider(AGGREGATE, ("date",), State(), decide, evolve, EVENTS)
