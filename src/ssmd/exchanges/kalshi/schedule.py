"""When Kalshi trades: its weekly hours and maintenance windows, as `GET /exchange/schedule` tells them.

Hours are Eastern Time, HH:MM; `00:00` as a close is the end of the day. A weekday without hours is closed all day.
Source: the recording of 2026-01 (the only one there is) and the API reference; the standing pause is Thursday 03:00-05:00.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.timestamps import rfc3339_ns

EASTERN: Final = ZoneInfo("America/New_York")
DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NS: Final = 1_000_000_000


class Pause(NamedTuple):
    """A planned silence: from `start_ns` (inclusive) to `end_ns` (exclusive)."""

    start_ns: int
    end_ns: int
    reason: str


class _Hours(msgspec.Struct):
    open_time: str
    close_time: str


class _Week(msgspec.Struct):
    start_time: str = ""
    end_time: str = ""
    monday: list[_Hours] = []
    tuesday: list[_Hours] = []
    wednesday: list[_Hours] = []
    thursday: list[_Hours] = []
    friday: list[_Hours] = []
    saturday: list[_Hours] = []
    sunday: list[_Hours] = []


class _Window(msgspec.Struct):
    start_datetime: str
    end_datetime: str


class _Body(msgspec.Struct):
    standard_hours: list[_Week] = []
    maintenance_windows: list[_Window] = []


class _Answer(msgspec.Struct):
    schedule: _Body


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class Schedule(NamedTuple):
    """`pauses`: per weekday (0 = Monday) the closed times of the day as (first minute, minute after the last), Eastern."""

    pauses: tuple[tuple[tuple[int, int], ...], ...]
    windows: tuple[Pause, ...] = ()

    def pause_at(self, ts_ns: int) -> Pause | None:
        """The planned silence that `ts_ns` lies in, None = the venue should be there."""
        for window in self.windows:
            if window.start_ns <= ts_ns < window.end_ns:
                return window
        local = datetime.fromtimestamp(ts_ns // _NS, tz=EASTERN)
        minute = local.hour * 60 + local.minute
        for first, after in self.pauses[local.weekday()]:
            if first <= minute < after:
                midnight = datetime.combine(local.date(), time(), tzinfo=EASTERN)
                return Pause(_ns(midnight, first), _ns(midnight, after), "weekly pause")
        return None


def _ns(midnight: datetime, minute: int) -> int:
    # By the wall clock: a day may have 23 or 25 hours.
    moment = midnight + timedelta(days=minute // 1440)
    return int(moment.replace(hour=minute % 1440 // 60, minute=minute % 60).astimezone(UTC).timestamp()) * _NS


STANDING: Final = Schedule(tuple(((180, 300),) if day == "thursday" else () for day in DAYS))
"""What holds until the venue says otherwise."""


def schedule_of(body: bytes, ts_ns: int) -> Schedule:
    """The schedule in the answer `body`, with the weekly hours in force at `ts_ns`.

    Raises:
        Malformed: it is none.
    """
    try:
        schedule = _ANSWER.decode(body).schedule
    except msgspec.DecodeError as error:
        raise Malformed(f"not an exchange schedule: {error}") from error
    windows = tuple(
        Pause(rfc3339_ns(one.start_datetime), rfc3339_ns(one.end_datetime), "maintenance window")
        for one in schedule.maintenance_windows
    )
    for week in schedule.standard_hours:
        if (not week.start_time or rfc3339_ns(week.start_time) <= ts_ns) and (
            not week.end_time or ts_ns < rfc3339_ns(week.end_time)
        ):
            return Schedule(tuple(_closed(getattr(week, day)) for day in DAYS), windows)
    return Schedule(STANDING.pauses, windows)


def _closed(hours: list[_Hours]) -> tuple[tuple[int, int], ...]:
    closed: list[tuple[int, int]] = []
    at = 0
    for first, after in sorted((_minute(one.open_time), _minute(one.close_time) or 1440) for one in hours):
        if first > at:
            closed.append((at, first))
        at = max(at, after)
    return (*closed, (at, 1440)) if at < 1440 else tuple(closed)


def _minute(text: str) -> int:
    hour, colon, minute = text.partition(":")
    if not (colon and hour.isascii() and hour.isdigit() and minute.isascii() and minute.isdigit()):
        raise Malformed(f"not a time of day: {text[:20]!r}; expected HH:MM")
    found = int(hour) * 60 + int(minute)
    if found > 1440:
        raise Malformed(f"not a time of day: {text[:20]!r}")
    return found
