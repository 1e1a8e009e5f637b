"""Commands and events of aggregate `trading-day . {date}`; their rules are in `domain.trading_day`."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Phase = Literal["start", "end"]
Status = Literal["pending", "starting", "active", "ending", "complete", "error", "missed", "failed", "force-ended"]

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


class OpenDay(msgspec.Struct, frozen=True):
    """The schedule expects the day `date`. Both times are UTC, `end_due_ns` 0 = nobody said when it ends."""

    date: str
    start_due_ns: int
    end_due_ns: int = 0


class RecordMissed(msgspec.Struct, frozen=True):
    """The day was due to start and nothing started it."""

    date: str
    due_ns: int
    reason: str = ""


class RecordLate(msgspec.Struct, frozen=True):
    """A phase began later than it was due; once per attempt."""

    phase: Phase
    due_ns: int


class AbandonDay(msgspec.Struct, frozen=True):
    """No further attempt is made: a person has to look."""

    error: str
    attempts: int


class RecoverDay(msgspec.Struct, frozen=True):
    """What had stopped the day is over, and it goes on where it stood."""

    detail: str = ""


class ForceEndDay(msgspec.Struct, frozen=True):
    """End the day without its steps; its totals stay unknown."""

    reason: str


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


class Opened(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.opened.v1"):
    """The schedule expects the day. `end_due_ns` 0 = no end is due."""

    date: str
    start_due_ns: int
    end_due_ns: int


class Missed(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.missed.v1"):
    """Nothing started the day when it was due."""

    date: str
    due_ns: int
    reason: str


class Late(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.late.v1"):
    """`phase` began after `due_ns`; when, the events of the phase say."""

    phase: Phase
    due_ns: int


class Failed(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.failed.v1"):
    """Nobody tries again by itself. `status` is where the day stood."""

    status: Status
    error: str
    attempts: int


class Recovered(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.recovered.v1"):
    """The day goes on as `status`."""

    status: Status
    detail: str


class ForceEnded(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.force-ended.v1"):
    """Ended without its steps. `status` is where the day stood."""

    status: Status
    reason: str


DayCommand = (
    StartDay
    | RecordStep
    | ActivateDay
    | EndDay
    | CompleteDay
    | FailDay
    | OpenDay
    | RecordMissed
    | RecordLate
    | AbandonDay
    | RecoverDay
    | ForceEndDay
)
DayEvent = (
    StartRequested
    | StepCompleted
    | Activated
    | EndRequested
    | Completed
    | Errored
    | Opened
    | Missed
    | Late
    | Failed
    | Recovered
    | ForceEnded
)
EVENTS = (
    StartRequested,
    StepCompleted,
    Activated,
    EndRequested,
    Completed,
    Errored,
    Opened,
    Missed,
    Late,
    Failed,
    Recovered,
    ForceEnded,
)
