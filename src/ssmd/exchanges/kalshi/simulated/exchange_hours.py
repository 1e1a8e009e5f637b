"""When the simulated venue trades: always, but for Thursday 03:00 to 05:00 Eastern Time where it keeps the venue's hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

SECOND_NS: Final = 1_000_000_000
EASTERN: Final = "America/New_York"
_THURSDAY: Final = 3
_FROM_HOUR, _TO_HOUR = 3, 5


def thursday_pause_end_ns(now_ns: int, zone: ZoneInfo) -> int:
    """When the weekly pause that `now_ns` lies in ends, 0 outside of it."""
    local = datetime.fromtimestamp(now_ns // SECOND_NS, tz=UTC).astimezone(zone)
    if local.weekday() != _THURSDAY or not _FROM_HOUR <= local.hour < _TO_HOUR:
        return 0
    ends = local.replace(hour=_TO_HOUR, minute=0, second=0, microsecond=0, fold=0)
    return int(ends.astimezone(UTC).timestamp()) * SECOND_NS


class ExchangeHours:
    """Whether the exchange is open, by order or by the week.

    Args:
        keeps_thursdays: pause trading each Thursday from 03:00 to 05:00 Eastern Time.
    """

    def __init__(self, *, keeps_thursdays: bool) -> None:
        self._zone = ZoneInfo(EASTERN) if keeps_thursdays else None
        self._looked_until_ns = 0
        self._thursday_end_ns = 0
        self._ordered_end_ns = 0
        self._is_exchange_closed = False

    def pause(self, until_ns: int, *, whole_exchange: bool) -> None:
        """Stop trading (`whole_exchange`: cancelling too) until then, exclusive."""
        self._ordered_end_ns = until_ns
        self._is_exchange_closed = whole_exchange

    def resume(self) -> None:
        """End an ordered pause."""
        self._ordered_end_ns = 0

    def resumes_ns(self, now_ns: int) -> int:
        """When trading goes on, 0 while it goes on already."""
        if self._zone is not None and not self._looked_until_ns - 60 * SECOND_NS <= now_ns < self._looked_until_ns:
            self._thursday_end_ns = thursday_pause_end_ns(now_ns, self._zone)
            at = datetime.fromtimestamp(now_ns // SECOND_NS, tz=UTC)
            following = at.replace(second=0, microsecond=0) + timedelta(minutes=1)
            self._looked_until_ns = int(following.timestamp()) * SECOND_NS
        ordered = self._ordered_end_ns if self._ordered_end_ns > now_ns else 0
        return max(self._thursday_end_ns, ordered)

    def exchange_active(self, now_ns: int) -> bool:
        """Whether orders can at least be cancelled."""
        return not (self._is_exchange_closed and self._ordered_end_ns > now_ns)
