"""Given events, when a command, then events: the trading day."""

from __future__ import annotations

import pytest

from ssmd.domain.trading_day import (
    DECIDER,
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
    RecordStep,
    StartDay,
    StartRequested,
    State,
    StepCompleted,
    Totals,
)
from ssmd.errors import Rejected

DATE = "2026-05-14"
TOTALS = Totals(messages=3, records={"trade": 2, "book": 1}, segments=1, size_bytes=10, gaps=0)

STARTING: list[DayEvent] = [StartRequested(DATE, "")]
ACTIVE: list[DayEvent] = [*STARTING, StepCompleted("start", "streams", ""), Activated()]
ENDING: list[DayEvent] = [*ACTIVE, EndRequested("")]
COMPLETE: list[DayEvent] = [*ENDING, Completed(TOTALS)]
FAILED_START: list[DayEvent] = [*STARTING, Errored("starting", "no disk")]
FAILED_END: list[DayEvent] = [*ENDING, StepCompleted("end", "seal", ""), Errored("ending", "no disk")]


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        ([], StartDay(DATE, "demo"), [StartRequested(DATE, "demo")]),
        (STARTING, StartDay(DATE, "again"), []),
        (ACTIVE, StartDay(DATE), []),
        (FAILED_START, StartDay(DATE, "retry"), [StartRequested(DATE, "retry")]),
        (STARTING, RecordStep("start", "streams", "4"), [StepCompleted("start", "streams", "4")]),
        (ACTIVE, RecordStep("start", "streams", "other detail"), []),
        ([*FAILED_START, StartRequested(DATE, "")], RecordStep("start", "streams"), [StepCompleted("start", "streams", "")]),
        (STARTING, ActivateDay(), [Activated()]),
        (ACTIVE, ActivateDay(), []),
        (ACTIVE, EndDay(DATE, "evening"), [EndRequested("evening")]),
        (ENDING, EndDay(DATE), []),
        (COMPLETE, EndDay(DATE), []),
        (FAILED_START, EndDay(DATE), [EndRequested("")]),
        (FAILED_END, EndDay(DATE), [EndRequested("")]),
        ([*FAILED_END, EndRequested("")], RecordStep("end", "seal"), [StepCompleted("end", "seal", "")]),
        (ENDING, CompleteDay(TOTALS), [Completed(TOTALS)]),
        (COMPLETE, CompleteDay(TOTALS), []),
        (ACTIVE, FailDay("no disk"), [Errored("active", "no disk")]),
        (FAILED_START, FailDay("something later"), []),
    ],
)
def test_decisions(given: list[DayEvent], when: DayCommand, then: list[DayEvent]) -> None:
    assert list(DECIDER.decide(DECIDER.fold(given), when)) == then


HISTORY, STATUS, START = (f"ssmd day history --date {DATE}", f"ssmd day status --date {DATE}", f"ssmd day start --date {DATE}")


@pytest.mark.parametrize(
    ("given", "when", "rule", "mend"),
    [
        ([], StartDay("14 May"), "invalid-date", "give the date as YYYY-MM-DD"),
        ([], StartDay("20260514"), "invalid-date", "give the date as YYYY-MM-DD"),
        ([], StartDay("2026-02-29"), "invalid-date", "give the date as YYYY-MM-DD"),
        ([], EndDay(DATE), "day-not-started", START),
        ([], RecordStep("start", "streams"), "day-not-started", "ssmd day start"),
        ([], ActivateDay(), "day-not-started", "ssmd day start"),
        ([], CompleteDay(TOTALS), "day-not-started", "ssmd day start"),
        ([], FailDay("x"), "day-not-running", "ssmd day start"),
        (STARTING, StartDay("2026-05-15"), "wrong-day", ""),
        (STARTING, EndDay(DATE), "day-not-active", STATUS),
        (STARTING, RecordStep("end", "seal"), "day-not-ending", STATUS),
        (STARTING, CompleteDay(TOTALS), "day-not-ending", STATUS),
        (ACTIVE, RecordStep("start", "late step"), "day-not-starting", STATUS),
        (ACTIVE, CompleteDay(TOTALS), "day-not-ending", STATUS),
        (ENDING, StartDay(DATE), "day-ending", STATUS),
        (ENDING, ActivateDay(), "day-not-starting", STATUS),
        (FAILED_END, CompleteDay(TOTALS), "day-not-ending", STATUS),
        (COMPLETE, StartDay(DATE), "day-already-complete", HISTORY),
        (COMPLETE, ActivateDay(), "day-already-complete", STATUS),
        (COMPLETE, FailDay("x"), "day-not-running", STATUS),
        (COMPLETE, CompleteDay(Totals(4, {}, 1, 10, 0)), "day-already-complete", HISTORY),
    ],
)
def test_refusals(given: list[DayEvent], when: DayCommand, rule: str, mend: str) -> None:
    with pytest.raises(Rejected) as raised:
        DECIDER.decide(DECIDER.fold(given), when)
    assert (raised.value.rule, raised.value.mend) == (rule, mend)


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ([], State()),
        (STARTING, State("starting", DATE)),
        (ACTIVE, State("active", DATE, (("start", "streams"),))),
        (FAILED_START, State("error", DATE, error="no disk", errored_in="starting")),
        (FAILED_END, State("error", DATE, (("start", "streams"), ("end", "seal")), error="no disk", errored_in="ending")),
        ([*FAILED_END, EndRequested("")], State("ending", DATE, (("start", "streams"),))),
        (COMPLETE, State("complete", DATE, (("start", "streams"),), TOTALS)),
    ],
)
def test_states(given: list[DayEvent], state: State) -> None:
    assert DECIDER.fold(given) == state


def test_totals_are_stored_with_their_kinds_sorted() -> None:
    (event,) = DECIDER.decide(DECIDER.fold(ENDING), CompleteDay(TOTALS))
    assert isinstance(event, Completed)
    assert list(event.totals.records) == ["book", "trade"]
