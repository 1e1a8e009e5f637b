"""Aggregate `trading-day . {date}`: one date of one environment, from its start to its totals.

    pending -> starting -> active -> ending -> complete
    starting | active | ending -> error -> starting | ending

The date is the calendar date in the environment's zone. The first error of an attempt stands; a start or an end
requested anew begins another attempt.
"""

from __future__ import annotations

from datetime import date as calendar_date
from typing import Final, Literal

import msgspec

from ssmd.domain.decider import Decider
from ssmd.errors import Rejected

AGGREGATE: Final = "trading-day"

Phase = Literal["start", "end"]
Status = Literal["pending", "starting", "active", "ending", "complete", "error"]

PHASE_OF: Final[dict[Phase, Status]] = {"start": "starting", "end": "ending"}
"""In which status the steps of a phase are done."""


class Totals(msgspec.Struct, frozen=True):
    """What the day came to. `messages`: venue frames; `records`: normalized records by kind; `gaps`: holes opened."""

    messages: int
    records: dict[str, int]
    segments: int
    size_bytes: int
    gaps: int


# Commands


class StartDay(msgspec.Struct, frozen=True):
    """Open the day `date` (YYYY-MM-DD, the aggregate's own); after an error: try again."""

    date: str
    reason: str = ""


class RecordStep(msgspec.Struct, frozen=True):
    """A step of the start or the end is done; once per attempt, the first detail stands."""

    phase: Phase
    step: str
    detail: str = ""


class ActivateDay(msgspec.Struct, frozen=True):
    """Every step of the start is done: capture runs."""


class EndDay(msgspec.Struct, frozen=True):
    """Close the day `date` (the aggregate's own); after an error: try again."""

    date: str
    reason: str = ""


class CompleteDay(msgspec.Struct, frozen=True):
    """Every step of the end is done: these are the totals for good."""

    totals: Totals


class FailDay(msgspec.Struct, frozen=True):
    """The attempt cannot go on."""

    error: str


# Events


class StartRequested(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.start-requested.v1"):
    date: str
    reason: str


class StepCompleted(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.step-completed.v1"):
    phase: Phase
    step: str
    detail: str


class Activated(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.activated.v1"):
    """The day takes data."""


class EndRequested(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.end-requested.v1"):
    reason: str


class Completed(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.completed.v1"):
    totals: Totals


class Errored(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.errored.v1"):
    """`status` is where the day stood."""

    status: Status
    error: str


DayCommand = StartDay | RecordStep | ActivateDay | EndDay | CompleteDay | FailDay
DayEvent = StartRequested | StepCompleted | Activated | EndRequested | Completed | Errored
EVENTS = (StartRequested, StepCompleted, Activated, EndRequested, Completed, Errored)


# State


class State(msgspec.Struct, frozen=True):
    """`steps`: (phase, step) done in this attempt; `error`: why it stopped, "" unless status is error."""

    status: Status = "pending"
    date: str = ""
    steps: tuple[tuple[Phase, str], ...] = ()
    totals: Totals | None = None
    error: str = ""


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
        case "ending" | "complete":
            return ()
        case "pending":
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
    if state.status in ("pending", "complete"):
        raise Rejected(
            "day-not-running", f"{_named(state)} is {state.status}: there is nothing that could fail", mend=_mend(state)
        )
    return (Errored(state.status, error),)


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
            return State(status="starting", date=date)
        case StepCompleted(phase=phase, step=step):
            return msgspec.structs.replace(state, steps=(*state.steps, (phase, step)))
        case Activated():
            return msgspec.structs.replace(state, status="active")
        case EndRequested():
            kept = tuple(done for done in state.steps if done[0] == "start")
            return msgspec.structs.replace(state, status="ending", steps=kept, error="")
        case Completed(totals=totals):
            return msgspec.structs.replace(state, status="complete", totals=totals)
        case Errored(error=error):
            return msgspec.structs.replace(state, status="error", error=error)


DECIDER: Decider[DayCommand, DayEvent, State] = Decider(AGGREGATE, ("date",), State(), decide, evolve, EVENTS)
