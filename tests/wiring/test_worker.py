"""What a worker makes of the schedule's times: days that were missed, and phases that began late, are events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.workflows.week import Week

from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.trading_day import Late, Missed, Opened
from ssmd.errors import Misconfigured
from ssmd.streams.journal import RecordedEvent
from ssmd.workflows.orders import Begun, DayOrder

MINUTE = 60 * 10**9
WHY = "no run of the schedule came within its catch-up window"


def at(day: int, hour: int) -> int:
    """A time of May 2026 in UTC; the 11th is a Monday."""
    return int(datetime(2026, 5, day, hour, tzinfo=UTC).timestamp()) * 10**9


async def events(week: Week) -> list[tuple[str, trading_day.DayEvent]]:
    """(date, event) of every event of a day but its steps, in journal order."""
    found: list[tuple[str, trading_day.DayEvent]] = []
    async for batch in week.journal.replay(filters=["trading-day"]):
        for one in batch:
            assert isinstance(one, RecordedEvent)
            event = CATALOGUE.decode(one.envelope.type, one.envelope.data)
            assert isinstance(event, trading_day.EVENTS)
            if not isinstance(event, trading_day.StepCompleted):
                found.append((one.envelope.aggregate_id, event))
    return found


async def passed(week: Week, scheduled_ns: int, *, late_ns: int = 0) -> list[Begun]:
    """The schedule's time passes, and what is due then is begun `late_ns` afterwards."""
    turn = await week.turn("dev", scheduled_ns)
    week.clock.step(scheduled_ns + late_ns)
    return [await week.begin(order, "dev/request") for order in turn.orders]


async def test_days_that_nothing_started_are_missed_and_told_once_in_order() -> None:
    week = Week("dev", days=("monday", "tuesday", "wednesday", "thursday", "friday"))
    assert await week.turn("dev", at(11, 8)) is not None
    assert await events(week) == []  # a new environment has missed nothing
    await passed(week, at(11, 8))
    before = len(await events(week))
    # Tuesday to Friday nothing ran, for longer than is made up for; a weekend is nobody's.
    for _ in range(2):
        turn = await week.turn("dev", at(18, 8))
        assert [(one.phase, one.date) for one in turn.orders] == [("start", "2026-05-18")]
    assert (await events(week))[before:] == [
        (f"2026-05-{day}", Missed(f"2026-05-{day}", at(day, 8), WHY)) for day in (12, 13, 14, 15)
    ]
    # A missed day has nothing to be ended; started by hand it is a day like any other.
    assert await passed(week, at(15, 17)) == [Begun("missed")]
    by_hand = await week.begin(DayOrder("dev", "start", "2026-05-15", "cli:anna", "forgotten"), "c-1")
    assert by_hand.status == "starting"


@pytest.mark.parametrize(("minutes", "is_late"), [(0, False), (5, False), (6, True)])
async def test_a_phase_that_begins_late_says_so_once(minutes: int, is_late: bool) -> None:
    week = Week("dev", late_minutes=5)
    begun = await passed(week, at(11, 8), late_ns=minutes * MINUTE)
    again = await passed(week, at(11, 8), late_ns=minutes * MINUTE)
    assert [one.status for one in (*begun, *again)] == ["starting", "starting"]
    told = await events(week)
    assert ("2026-05-11", Opened("2026-05-11", at(11, 8), at(11, 17))) in told
    late = [event for _, event in told if isinstance(event, Late)]
    assert late == ([Late("start", at(11, 8))] if is_late else [])


async def test_an_end_is_late_by_itself_and_one_by_hand_never_is() -> None:
    week = Week("dev")
    await passed(week, at(11, 8))
    await week.finish(DayOrder("dev", "start", "2026-05-11", "schedule:dev/days"), "dev/request")
    await passed(week, at(11, 17), late_ns=30 * MINUTE)
    assert [event for _, event in await events(week) if isinstance(event, Late)] == [Late("end", at(11, 17))]
    other = Week("dev")
    other.clock.step(at(11, 20))
    await other.begin(DayOrder("dev", "start", "2026-05-11", "cli:anna"), "c-1")
    assert not [event for _, event in await events(other) if isinstance(event, Late | Opened)]


async def test_a_schedule_that_was_changed_keeps_the_days_first_times() -> None:
    week = Week("dev")
    await passed(week, at(11, 8))
    order = DayOrder("dev", "start", "2026-05-11", "schedule:dev/days", "", at(11, 9), at(11, 9), at(11, 18))
    assert (await week.begin(order, "dev/request")).status == "starting"
    assert [event for _, event in await events(week) if isinstance(event, Opened)] == [
        Opened("2026-05-11", at(11, 8), at(11, 17))
    ]


async def test_a_worker_works_for_its_own_environment_only() -> None:
    week = Week("dev")
    with pytest.raises(Misconfigured, match="this worker is for dev, it was asked for prod"):
        await week.turn("prod", at(11, 8))
