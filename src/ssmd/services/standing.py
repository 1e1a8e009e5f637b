"""A projector that also tells how the environment stands by its views: gaps, dead letters, the day, keys, divergence.

Read every few seconds, and only when the journal has grown; what depends on the time is worked out when it is asked for.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from ssmd.application.handler import Application
from ssmd.clock import Clock
from ssmd.domain import projection
from ssmd.errors import SsmdError
from ssmd.projections import queries
from ssmd.projections.access import KEYS
from ssmd.projections.days import DAYS, Day
from ssmd.projections.gaps import GAPS
from ssmd.projections.projection import Projection
from ssmd.projections.store import RowStore
from ssmd.projections.troubles import DEAD_LETTERS
from ssmd.projections.views import PROJECTIONS, open_views
from ssmd.services.component import Component, Health
from ssmd.services.ended_tasks import end_tasks
from ssmd.telemetry.structured import structlog

LOOK_S: Final = 5.0
AGAIN_S: Final = 1.0
"""Where the views could not be read: they are being built, or the cache is away."""
READ: Final[tuple[Projection, ...]] = (DAYS, GAPS, KEYS, DEAD_LETTERS)
_ENDED: Final = frozenset({"complete", "force-ended", "missed", "failed"})
_TROUBLED: Final = frozenset({"error", "failed", "missed"})


class Standing(NamedTuple):
    """What the views said at a journal position. `days`: yesterday and today; `keys`: name -> expiry, those that expire."""

    position: int = 0
    today: str = ""
    gaps_open: int = 0
    dead_letters: int = 0
    diverged: int = 0
    days: tuple[Day, ...] = ()
    keys: tuple[tuple[str, int], ...] = ()

    def stats(self, now_ns: int) -> dict[str, int | str]:
        """For `Health.stats`; nothing before the views have been read once."""
        if not self.today:
            return {}
        return {
            "gaps_open": self.gaps_open,
            "dead_letters": self.dead_letters,
            "diverged": self.diverged,
            "day_failed": int(any(day.status in _TROUBLED for day in self.days)),
            "day_overdue_ms": max((overdue_ns(day, now_ns) for day in self.days), default=0) // 1_000_000,
            **{f"day_status_{day.status}": 1 for day in self.days if day.date == self.today},
            **{f"key_expires_ms_{name}": (expires_ns - now_ns) // 1_000_000 for name, expires_ns in self.keys},
        }


def overdue_ns(day: Day, now_ns: int) -> int:
    """For how long a day should have started, or ended, by its schedule; 0 = it is in time, or has none."""
    if day.status in _ENDED:
        return 0
    if day.end_due_ns and now_ns > day.end_due_ns:
        return now_ns - day.end_due_ns
    is_begun = day.activated_ns and day.status not in {"pending", "starting"}
    return now_ns - day.start_due_ns if day.start_due_ns and not is_begun and now_ns > day.start_due_ns else 0


class StandingProjector:
    """`projector` with a word on the environment in its health; otherwise the same component.

    Args:
        store: where the projector keeps its views.
        zone: of the environment's trading days.
    """

    name = "projector"

    def __init__(
        self, projector: Component, store: RowStore, application: Application, clock: Clock, *, feed: str, zone: str
    ) -> None:
        self.instance = projector.instance
        self._projector = projector
        self._store = store
        self._application = application
        self._clock = clock
        self._feed = feed
        self._zone = ZoneInfo(zone)
        self._standing = Standing()
        self._log = structlog.get_logger("projector")

    async def run(self) -> None:
        looking = asyncio.create_task(self._look_on(), name="standing")
        try:
            await self._projector.run()
        finally:
            await end_tasks([looking])

    async def stop(self) -> None:
        await self._projector.stop()

    async def flush(self) -> None:
        """As the projector's; what is told of the environment is of then, too."""
        await self._projector.flush()
        with suppress(SsmdError):
            await self.look()

    def health(self) -> Health:
        health = self._projector.health()
        return Health(health.ok, health.reason, {**health.stats, **self._standing.stats(self._clock.now_ns())})

    async def _look_on(self) -> None:
        while True:
            pause_s = LOOK_S
            try:
                await self.look()
            except SsmdError as error:
                pause_s = AGAIN_S
                # The projector itself says what is away; the last answer stands until there is another.
                self._log.debug("standing-not-known", reason=error.message)
            await asyncio.sleep(pause_s)

    async def look(self) -> None:
        """Read the views, where they have moved.

        Raises:
            Unavailable, Malformed: they cannot be read.
        """
        views = await open_views(self._store, READ)
        dates = self._dates()
        if (views.position, dates[-1]) == (self._standing.position, self._standing.today):
            return
        self._standing = Standing(
            position=views.position,
            today=dates[-1],
            gaps_open=sum(gap.end_ns is None for gap in await queries.gaps(views, self._feed)),
            dead_letters=len(await queries.dead_letters(views)),
            diverged=await self._diverged(),
            days=tuple([await queries.day_status(views, date) for date in dates]),
            keys=tuple(
                (one.name, one.expires_ns) for one in await queries.keys(views) if one.status == "set" and one.expires_ns
            ),
        )

    def _dates(self) -> Sequence[str]:
        today = dt.datetime.fromtimestamp(self._clock.now_ns() // 1_000_000_000, tz=self._zone).date()
        return [(today - dt.timedelta(days=1)).isoformat(), today.isoformat()]

    async def _diverged(self) -> int:
        """Views whose latest word in the journal is a divergence."""
        count = 0
        for view in PROJECTIONS:
            state = await self._application.state(projection.DECIDER, (view.name,))
            if state.diverged is not None and (state.rebuilt is None or state.rebuilt.position < state.diverged.position):
                count += 1
        return count
