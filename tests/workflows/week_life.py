"""How a `real_week` passes: calmly, or with trouble at some of its midnights."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from tests.workflows.real_week import RealWeek
from tests.workflows.week_record import WeekRecord, record_of

Turn = Callable[[RealWeek, str], Awaitable[None]]
"""Passes the midnight that begins a date, until that date's day is active."""

END_STEPS = (
    "drain gateway main",
    "flush connector main",
    "flush raw-archiver main",
    "flush normalized-archiver main",
    "flush projector main",
    "verify",
)
START_STEPS = (
    "sync",
    "health projector main",
    "health raw-archiver main",
    "health normalized-archiver main",
    "health connector main",
    "health gateway main",
)


async def calm_turn(week: RealWeek, day: str) -> None:
    """Nothing happens but what is due."""
    await week.midnight(day)
    await week.due(day, day)
    await week.until_status(day, "active")


def turns_of(before: str, day: str, when: str) -> list[str]:
    """Every place to kill the worker at while `before` is ended and `day` started; `when`: "asked" or "done".

    Asked: the component did what it was asked for. Done: that is journaled, and Temporal does not know. What only
    journals (to begin, to finish) has no first.
    """
    places = [f"done turn {day}"] if when == "done" else []
    for phase, date, steps in (("end", before, END_STEPS), ("start", day, START_STEPS)):
        around = ("begin", *steps, "finish") if when == "done" else steps
        places += [f"{when} {step} {phase} {date}" for step in around]
    return places


async def live(
    week: RealWeek, dates: Sequence[str], nights: Collection[str], troubles: Mapping[str, Turn] | None = None
) -> WeekRecord:
    """Let the dates pass; the last one only begins. What it came to.

    Args:
        nights: dates in whose night the venue closes every connection: from then on a week with an outage before has the
            same session as one without.
    """
    for number, day in enumerate(dates):
        turn = (troubles or {}).get(day, calm_turn)
        await turn(week, day)
        if number + 1 < len(dates):
            if day in nights:
                await week.night(day)
            await week.evening(day)
    return await record_of(week)
