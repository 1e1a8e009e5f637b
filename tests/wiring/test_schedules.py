import datetime as dt
from typing import Any

import pytest
from temporalio.client import ScheduleUpdate, ScheduleUpdateInput

from ssmd.registry.calendars import WEEKDAYS
from ssmd.registry.documents import Capture, EnvironmentDocument, Schedule, TemporalSettings
from ssmd.services.embedded_servers import RunningServer
from ssmd.wiring.schedules import Due, desired, due_at
from ssmd.workflows import schedules
from ssmd.workflows.connection import NAMESPACE, connect
from ssmd.workflows.schedules import Change, Definition, Moment


def document(
    name: str = "kalshi-test", timezone: str = "UTC", temporal: str = "embedded", **schedule: Any
) -> EnvironmentDocument:
    return EnvironmentDocument(
        name=name,
        feed="kalshi",
        schema="market:1",
        timezone=timezone,
        capture=Capture(endpoint="simulator"),
        schedule=Schedule(**schedule),
        temporal=TemporalSettings(url=temporal),
    )


def ns(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp()) * 10**9


def test_days_that_touch_are_rolled_at_midnight_the_end_first() -> None:
    every = document(days=WEEKDAYS)
    (days, *_) = desired(every)
    assert days == Definition("kalshi-test", "days", "UTC", (Moment(0, 0, tuple(range(7))),), 0, True, 72 * 3600)
    found = due_at(every, ns("2026-05-14T00:00:00+00:00"))
    assert [(due.phase, due.date) for due in found] == [("end", "2026-05-13"), ("start", "2026-05-14")]


def test_days_with_hours_have_two_times_on_their_weekdays() -> None:
    office = document(days=("monday", "friday"), start="08:00", end="17:30")
    (days, *_) = desired(office)
    assert days.moments == (Moment(8, 0, (1, 5)), Moment(17, 30, (1, 5)))
    start, end = ns("2026-05-15T08:00:00+00:00"), ns("2026-05-15T17:30:00+00:00")
    assert due_at(office, start) == [Due("start", "2026-05-15", start, end)]
    assert due_at(office, end) == [Due("end", "2026-05-15", start, end)]
    assert due_at(office, ns("2026-05-14T08:00:00+00:00")) == []  # a Thursday


def test_a_friday_that_ends_at_midnight_ends_on_saturday() -> None:
    fridays = document(days=("friday",), start="08:00")
    (days, *_) = desired(fridays)
    assert days.moments == (Moment(0, 0, (6,)), Moment(8, 0, (5,)))
    assert [(due.phase, due.date) for due in due_at(fridays, ns("2026-05-16T00:00:00+00:00"))] == [("end", "2026-05-15")]


def test_the_date_is_that_of_the_zone_and_the_clocks_change_is_met() -> None:
    york = document(timezone="America/New_York", days=WEEKDAYS, start="02:30", end="20:00")
    assert [one.date for one in due_at(york, ns("2026-05-15T00:00:00+00:00"))] == ["2026-05-14"]
    # 02:30 does not exist on 2026-03-08: Temporal starts an hour before or after what we make of it.
    assert [one.date for one in due_at(york, ns("2026-03-08T07:00:00+00:00"))] == ["2026-03-08"]


def test_who_names_no_temporal_or_no_days_has_no_such_schedules() -> None:
    assert desired(document(temporal="", days=WEEKDAYS)) == []
    assert [one.kind for one in desired(document())] == ["sync", "sync-full", "gaps"]
    assert [one.kind for one in desired(document(sync_minutes=0, repair_minutes=0))] == []


async def test_schedules_are_created_compared_changed_and_removed(temporal_server: RunningServer, fresh_env: str) -> None:
    client = await connect(temporal_server.url, NAMESPACE)
    wanted = desired(document(fresh_env, days=("monday",), start="08:00", end="17:00"))
    assert await schedules.differences(client, fresh_env, wanted) == [
        Change(f"{fresh_env}/days", "create", "08:00 on 01; 17:00 on 01 UTC"),
        Change(f"{fresh_env}/sync", "create", "every 300 s"),
        Change(f"{fresh_env}/sync-full", "create", "04:00 on 00,01,02,03,04,05,06 UTC"),
        Change(f"{fresh_env}/gaps", "create", "every 3600 s"),
    ]
    assert len(await schedules.apply(client, fresh_env, wanted)) == 4
    assert await schedules.apply(client, fresh_env, wanted) == []

    def by_hand(given: ScheduleUpdateInput) -> ScheduleUpdate:
        given.description.schedule.policy.catchup_window = dt.timedelta(minutes=1)
        return ScheduleUpdate(given.description.schedule)

    await client.get_schedule_handle(f"{fresh_env}/days").update(by_hand)
    changed = "catch-up window from 0:01:00 to 3 days, 0:00:00"
    assert await schedules.differences(client, fresh_env, wanted) == [Change(f"{fresh_env}/days", "change", changed)]
    later = desired(document(fresh_env, days=("monday",), start="09:00", end="17:00", sync_minutes=0, repair_minutes=30))
    changes = await schedules.apply(client, fresh_env, later)
    assert [(one.id.partition("/")[2], one.action) for one in changes] == [
        ("days", "change"),
        ("sync", "remove"),
        ("sync-full", "remove"),
        ("gaps", "change"),
    ]
    assert "times from 08:00 on 01, 17:00 on 01 to 09:00 on 01, 17:00 on 01" in changes[0].detail
    assert await schedules.apply(client, fresh_env, later) == []
    assert changes[3].detail.startswith("every from 1:00:00 to 0:30:00; ")
    assert [one.action for one in await schedules.apply(client, fresh_env, [])] == ["remove", "remove"]


@pytest.mark.parametrize("kind", schedules.KINDS)
def test_the_policies_are_said(kind: schedules.Kind) -> None:
    buffered = schedules.schedule_of(Definition("e", kind, "UTC", (), 60, kind == "days", 3600)).policy
    assert buffered.catchup_window == dt.timedelta(hours=1)
    assert buffered.overlap.name == ("BUFFER_ALL" if kind == "days" else "SKIP")
