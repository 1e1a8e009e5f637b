"""The rules of time zones, weekly pauses and schedules."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from typing import Final

from ssmd.registry.conversion import Path
from ssmd.registry.documents import EnvironmentDocument, FeedDocument, Weekday
from ssmd.registry.findings import Finding, did_you_mean
from ssmd.registry.sources import Source

WEEKDAYS: Final[tuple[Weekday, ...]] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def zone_findings(source: Source[FeedDocument] | Source[EnvironmentDocument], at: Path, name: str) -> Iterator[Finding]:
    """Whether `name`, which stands at `at`, is a time zone this machine knows."""
    if name == "UTC":
        return
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        mend = did_you_mean(name, known) or "for example America/New_York"
        if not known:
            mend = "this machine has no time zones: apt-get install tzdata, or write UTC"
        yield source.finding(at, "unknown-timezone", f'time zone "{name}" is not known', mend)


def calendar_findings(source: Source[FeedDocument]) -> Iterator[Finding]:
    """What is wrong with the calendars of a feed's versions."""
    for index, version in enumerate(source.document.versions):
        at: Path = ("versions", index, "calendar")
        yield from zone_findings(source, (*at, "timezone"), version.calendar.timezone)
        pauses = version.calendar.weekly_pauses
        for place, pause in enumerate(pauses):
            where: Path = (*at, "weekly_pauses", place)
            if pause.end <= pause.start:
                message = f"the pause ends at {pause.end}, which is not after its start {pause.start}"
                mend = "a pause past midnight is two: one until 24:00, one from 00:00 of the next day"
                yield source.finding((*where, "end"), "bad-interval", message, mend)
            for other in pauses[:place]:
                if other.day == pause.day and other.start < pause.end and pause.start < other.end:
                    message = f"the pause overlaps the one on {other.day} from {other.start} to {other.end}"
                    yield source.finding((*where, "start"), "overlap", message, "make them one")


def schedule_findings(source: Source[EnvironmentDocument]) -> Iterator[Finding]:
    """What is wrong with an environment's schedule."""
    schedule = source.document.schedule
    if schedule.end <= schedule.start:
        message = f"schedule.end {schedule.end} is not after schedule.start {schedule.start}"
        mend = "a trading day is one calendar date: move the time zone instead"
        yield source.finding(("schedule", "end"), "bad-interval", message, mend)
    for index, day in enumerate(schedule.days):
        if day in schedule.days[:index]:
            yield source.finding(("schedule", "days", index), "duplicate-day", f"{day} stands twice", "delete one of them")
