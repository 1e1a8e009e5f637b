"""The one module that reads a clock. Everything else is handed a `Clock`.

All times are UTC nanoseconds since 1970-01-01T00:00:00Z as `int`.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo


class Clock(Protocol):
    """What a component may know of time."""

    def now_ns(self) -> int:
        """Wall-clock UTC nanoseconds; may step in either direction."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary origin; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    # Bound as they are: every frame received asks for the time.
    now_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


class ManualClock:
    """A clock that moves only when told to; for tests and replays."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns
        self._monotonic_ns = 0

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def advance(self, delta_ns: int) -> None:
        """Let `delta_ns` (>= 0) pass on both clocks."""
        self._now_ns += delta_ns
        self._monotonic_ns += delta_ns

    def step(self, now_ns: int) -> None:
        """Step the wall clock to `now_ns`; the monotonic clock does not move."""
        self._now_ns = now_ns


def date_of(ts_ns: int) -> str:
    """UTC calendar date of `ts_ns` as YYYY-MM-DD."""
    return datetime.fromtimestamp(ts_ns // 1_000_000_000, tz=UTC).strftime("%Y-%m-%d")


class DayCalendar:
    """Calendar days of one time zone, as the archive counts them.

    Args:
        zone: IANA name ("UTC", "America/New_York").

    Raises:
        zoneinfo.ZoneInfoNotFoundError: for an unknown name; the registry has checked it before.
    """

    def __init__(self, zone: str = "UTC") -> None:
        self._zone = ZoneInfo(zone)

    def day_of(self, ts_ns: int) -> tuple[str, int]:
        """The day of `ts_ns` as YYYY-MM-DD, and the first nanosecond after that day."""
        local = datetime.fromtimestamp(ts_ns // 1_000_000_000, tz=self._zone)
        return local.strftime("%Y-%m-%d"), self.start_ns(local.date() + timedelta(days=1))

    def start_ns(self, day: date) -> int:
        """The first nanosecond of `day`."""
        return int(datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp()) * 1_000_000_000


def iso_of(ts_ns: int) -> str:
    """`ts_ns` as RFC 3339 UTC text with all nine fraction digits."""
    seconds, fraction = divmod(ts_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
