"""What workflows are told and what they answer. Plain dataclasses: Temporal keeps them as JSON, for years.

A field may be added with a default; none may change its meaning or go, or recorded histories cannot be replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

Phase = Literal["start", "end"]

REFUSED: Final = "refused"
"""Status of an outcome where a rule said no; nothing was changed."""


@dataclass(frozen=True)
class Patience:
    """How long a phase goes on trying.

    An activity is tried `tries` times at once. Then the day is in error, and after a pause (`pause_s`, doubled each time,
    at most `pause_max_s`) it goes on where it stood, at most `rounds` times. A worker that has not said for
    `heartbeat_s` that it lives counts as dead. `away_s`: how long the journal may be away.
    """

    tries: int = 3
    try_s: float = 1.0
    pause_s: float = 30.0
    pause_max_s: float = 600.0
    rounds: int = 12
    heartbeat_s: float = 20.0
    step_s: float = 6 * 3600.0
    away_s: float = 24 * 3600.0


@dataclass(frozen=True)
class DayOrder:
    """One phase of one day.

    Attributes:
        actor: who wants it ("cli:anna", "schedule:kalshi-prod/days").
        due_ns: when the schedule wanted it, 0 = by hand.
        start_due_ns, end_due_ns: both times of the day as the schedule has them, 0 = by hand.
        is_recovery: go on where an error stopped the day, instead of asking for the phase anew.
    """

    env: str
    phase: Phase
    date: str
    actor: str
    reason: str = ""
    due_ns: int = 0
    start_due_ns: int = 0
    end_due_ns: int = 0
    is_recovery: bool = False
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Begun:
    """Where the day stands once its phase was asked for; `steps` are left to do, in order, () = nothing is."""

    status: str
    steps: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StepOrder:
    """One step of a phase."""

    order: DayOrder
    step: str


@dataclass(frozen=True)
class Trouble:
    """What stopped a phase, after how many rounds."""

    order: DayOrder
    error: str
    rounds: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a phase. `rule`, `mend`: where a rule refused it."""

    date: str
    phase: Phase
    status: str
    error: str = ""
    rule: str = ""
    mend: str = ""
    rounds: int = 1


@dataclass(frozen=True)
class Progress:
    """How far a phase is: `done` steps of `steps`; `step` is being done; `waits_s` > 0 = it will try again then."""

    date: str = ""
    phase: str = ""
    step: str = ""
    done: int = 0
    steps: int = 0
    rounds: int = 1
    error: str = ""
    waits_s: float = 0.0


@dataclass(frozen=True)
class TurnOrder:
    """For the schedule of days: which environment; the business dates come from the scheduled time."""

    env: str
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Turn:
    """What is due at a scheduled time, in order; `missed`: dates before it that nothing started, now journaled."""

    orders: list[DayOrder] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SyncOrder:
    """Compare the security master with the venue: all of it, or what changed."""

    env: str
    is_full: bool = True
    patience: Patience = field(default_factory=Patience)


FAILURES_MAX: Final = 3
"""After so many gaps of one connection in a row that failed, it is left alone until the next run."""


@dataclass(frozen=True)
class RepairOrder:
    """Have gaps repaired that no connector repaired by itself.

    Attributes:
        date: of one UTC date only, "" = of the last days. gap_id: this one only.
        settled_s: for so long at least they are over: before that the connector sees to them itself.
        actor: who wants it.
    """

    env: str
    date: str = ""
    gap_id: str = ""
    settled_s: int = 600
    actor: str = ""
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class GapName:
    """A gap, by its connection and its id, with a UTC date that it touches."""

    connection: str
    gap_id: str
    date: str


@dataclass(frozen=True)
class Unrepaired:
    """Gaps to repair, in this order; `left_out` older ones come when those before them are repaired, or too old."""

    gaps: list[GapName] = field(default_factory=list)
    left_out: int = 0


@dataclass(frozen=True)
class Repaired:
    """What became of a gap: repaired, already (somebody had), nothing (to be had again), refused or failed; and why."""

    gap: GapName
    result: str
    detail: str = ""


@dataclass(frozen=True)
class RepairProgress:
    """How far a repair is: `done` gaps of `of`; `gap` is asked for now; `results`: how many came to which."""

    done: int = 0
    of: int = 0
    gap: str = ""
    results: dict[str, int] = field(default_factory=dict)


def is_left_alone(connection: str, tried: Sequence[tuple[str, str]]) -> bool:
    """Whether the last FAILURES_MAX gaps of `connection` all failed; `tried`: (connection, result) so far, in order.

    Venue or connector are away then. Another connection has a process of its own, that may well be there.
    """
    last = [result for name, result in tried if name == connection][-FAILURES_MAX:]
    return last == ["failed"] * FAILURES_MAX


def workflow_id(env: str, phase: Phase, date: str) -> str:
    """One name per phase of a day: Temporal runs at most one workflow of a name at a time."""
    return f"{env}/day-{phase}/{date}"
