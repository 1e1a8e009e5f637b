"""When an environment's days and duties are due: its document as Temporal schedules, and a scheduled time as days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from ssmd.domain.trading_day import Phase
from ssmd.registry.calendars import WEEKDAYS
from ssmd.registry.documents import EnvironmentDocument
from ssmd.wiring.environment import ResolvedEnvironment

if TYPE_CHECKING:
    from ssmd.workflows.schedules import Change, Definition

SYNCED_FEEDS: Final = frozenset({"kalshi"})
"""Feeds with a security master."""
REPAIRED_FEEDS: Final = frozenset({"kalshi"})
"""Feeds of which something can be had again after a gap."""
MIDNIGHT_AFTER: Final = "24:00"
TOLERANCE_NS: Final = 3_600 * 10**9
"""A time of day that the clock's change skips or doubles is met within an hour."""
DAILY_CATCH_UP_S: Final = 12 * 3600
SYNC_CATCH_UP_S: Final = 60


class Due(NamedTuple):
    """A phase of a day and its times, UTC."""

    phase: Phase
    date: str
    start_ns: int
    end_ns: int

    @property
    def due_ns(self) -> int:
        return self.start_ns if self.phase == "start" else self.end_ns


def desired(document: EnvironmentDocument) -> list[Definition]:
    """The schedules the document asks for; [] where it names no Temporal."""
    from ssmd.workflows.schedules import Definition, Moment  # noqa: PLC0415 - temporalio is imported where it is used

    if not document.temporal.url:
        return []
    schedule, zone = document.schedule, document.timezone
    every_day = tuple(range(7))
    found = []
    if schedule.days:
        indexes = [WEEKDAYS.index(day) for day in schedule.days]
        starts = tuple(sorted((index + 1) % 7 for index in indexes))
        is_next = schedule.end == MIDNIGHT_AFTER
        ends = tuple(sorted((index + (2 if is_next else 1)) % 7 for index in indexes))
        moments: dict[tuple[int, int], set[int]] = {}
        for time, weekdays in ((schedule.start, starts), ("00:00" if is_next else schedule.end, ends)):
            moments.setdefault(_hour_minute(time), set()).update(weekdays)
        days = tuple(Moment(*time, tuple(sorted(weekdays))) for time, weekdays in sorted(moments.items()))
        found.append(
            Definition(document.name, "days", zone, days, 0, is_buffered=True, catchup_s=schedule.catch_up_hours * 3600)
        )
    daily = (Moment(*_hour_minute(schedule.full_sync.replace(MIDNIGHT_AFTER, "00:00")), every_day),)
    if document.feed in SYNCED_FEEDS and schedule.sync_minutes:
        every_s = schedule.sync_minutes * 60
        found.append(Definition(document.name, "sync", zone, (), every_s, is_buffered=False, catchup_s=SYNC_CATCH_UP_S))
        found.append(Definition(document.name, "sync-full", zone, daily, 0, is_buffered=False, catchup_s=DAILY_CATCH_UP_S))
    if document.feed in REPAIRED_FEEDS and schedule.repair_minutes:
        every_s = schedule.repair_minutes * 60
        found.append(Definition(document.name, "gaps", zone, (), every_s, is_buffered=False, catchup_s=SYNC_CATCH_UP_S))
    if document.keys:
        found.append(Definition(document.name, "keys", zone, daily, 0, is_buffered=False, catchup_s=DAILY_CATCH_UP_S))
    return found


def _hour_minute(time: str) -> tuple[int, int]:
    hour, minute = time.split(":")
    return int(hour), int(minute)


def due_of(document: EnvironmentDocument, date: dt.date, phase: Phase) -> Due | None:
    """When a phase of `date` is due; None = the schedule has no such day."""
    schedule = document.schedule
    if WEEKDAYS[date.weekday()] not in schedule.days:
        return None
    return Due(phase, date.isoformat(), *(_instant(date, time, document.timezone) for time in (schedule.start, schedule.end)))


def due_at(document: EnvironmentDocument, scheduled_ns: int) -> list[Due]:
    """What is due at a scheduled time: an end before a start, () = nothing, as the schedule is now."""
    local = dt.datetime.fromtimestamp(scheduled_ns // 10**9, tz=ZoneInfo(document.timezone)).date()
    around = [local + dt.timedelta(days=days) for days in (-1, 0)]
    phases: tuple[Phase, ...] = ("end", "start")
    found = [due for phase in phases for date in around if (due := due_of(document, date, phase)) is not None]
    exact = [due for due in found if due.due_ns == scheduled_ns]
    return exact or [due for due in found if abs(due.due_ns - scheduled_ns) <= TOLERANCE_NS]


def dates_before(document: EnvironmentDocument, date: str, most: int) -> Iterator[Due]:
    """The starts of scheduled days before `date`, the latest first, of the `most` calendar days before it."""
    day = dt.date.fromisoformat(date)
    for back in range(1, most + 1):
        due = due_of(document, day - dt.timedelta(days=back), "start")
        if due is not None:
            yield due


def _instant(date: dt.date, time: str, zone: str) -> int:
    if time == MIDNIGHT_AFTER:
        date, time = date + dt.timedelta(days=1), "00:00"
    hour, minute = _hour_minute(time)
    return int(dt.datetime(date.year, date.month, date.day, hour, minute, tzinfo=ZoneInfo(zone)).timestamp()) * 10**9


async def schedule_differences(
    environment: ResolvedEnvironment, variables: Mapping[str, str], *, wanted: Sequence[Definition] | None = None
) -> list[Change]:
    """What `apply_schedules` would do. Raises Unavailable: Temporal does not answer."""
    from ssmd.workflows import connection, schedules  # noqa: PLC0415 - temporalio is imported where it is used

    temporal = environment.document.temporal
    client = await connection.connect(environment.server_url("temporal", variables), temporal.namespace)
    return await schedules.differences(client, environment.name, desired(environment.document) if wanted is None else wanted)


async def apply_schedules(
    environment: ResolvedEnvironment, variables: Mapping[str, str], *, wanted: Sequence[Definition] | None = None
) -> list[Change]:
    """Bring Temporal's schedules to `wanted` (default: the document; () = none are left); what was done.

    Raises:
        Unavailable: Temporal does not answer.
    """
    from ssmd.workflows import connection, schedules  # noqa: PLC0415 - temporalio is imported where it is used

    temporal = environment.document.temporal
    client = await connection.connect(environment.server_url("temporal", variables), temporal.namespace)
    return await schedules.apply(client, environment.name, desired(environment.document) if wanted is None else wanted)


def has_temporal(environment: ResolvedEnvironment) -> bool:
    """Whether there is a Temporal to ask now: one elsewhere, or an embedded one that runs."""
    if not environment.document.temporal.url:
        return False
    if not environment.is_embedded("temporal"):
        return True
    return environment.run is not None and bool(environment.run.endpoints.temporal_url)
