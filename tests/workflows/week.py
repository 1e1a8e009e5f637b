"""A week of trading days on a real Temporal server: components on a script, a clock that follows the schedule."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client, ScheduleBackfill, ScheduleOverlapPolicy

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Unavailable
from ssmd.identifiers import system_random
from ssmd.projections.views import Views, fold_views
from ssmd.registry.calendars import WEEKDAYS
from ssmd.registry.documents import Capture, EnvironmentDocument, Schedule
from ssmd.streams.journal import RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.wiring.day_steps import ComponentName, DayProcedure
from ssmd.wiring.schedules import desired
from ssmd.wiring.worker import DayWork
from ssmd.workflows import schedules
from ssmd.workflows.orders import Turn

FIRST = datetime(2026, 5, 11, tzinfo=UTC)  # a Monday
COMPONENTS = (
    ComponentName("projector", "main"),
    ComponentName("raw-archiver", "main"),
    ComponentName("connector", "main"),
    ComponentName("gateway", "main"),
)
WELL = {"ok": True, "reason": ""}

Hook = Callable[[str], Awaitable[None]]


def document_of(env: str, **schedule: Any) -> EnvironmentDocument:
    times = {"days": WEEKDAYS, "start": "08:00", "end": "17:00", **schedule}
    return EnvironmentDocument(
        name=env, feed="kalshi", schema="market:1", capture=Capture(endpoint="simulator"), schedule=Schedule(**times)
    )


class Components:
    """Answer well, unless the hook raises; `asked` in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.trouble: Hook | None = None

    async def request(self, component: str, instance: str, verb: str, timeout_s: float) -> Mapping[str, Any]:
        words = f"{verb} {component}"
        if self.trouble is not None:
            await self.trouble(words)
        self.asked.append(words)
        return WELL


class Week(DayWork):
    """The work of a worker, with a journal and components of its own."""

    def __init__(self, env: str, **schedule: Any) -> None:
        self.env = env
        self.document = document_of(env, **schedule)
        self.clock = ManualClock()
        self.journal = MemoryJournal(env)
        self.components = Components()
        self.synced = 0
        self.sync_trouble: Hook | None = None
        super().__init__(self.document, self.clock, self._opened)

    @asynccontextmanager
    async def _opened(self, actor: str, request: str) -> AsyncGenerator[DayProcedure]:
        async def views() -> Views:
            return await fold_views(self.journal)

        async def sync() -> str:
            if self.sync_trouble is not None:
                await self.sync_trouble("sync")
            self.synced += 1
            return "markets 20"

        async def verify(date: str) -> str:
            return "0 objects"

        application = Application(self.journal, CATALOGUE, self.clock, system_random, "c0ffee")
        yield DayProcedure(
            "kalshi",
            application,
            self.components,
            COMPONENTS,
            views,
            lambda _words: None,
            actor,
            request,
            sync,
            verify,
        )

    async def turn(self, env: str, scheduled_ns: int) -> Turn:
        self.clock.step(max(self.clock.now_ns(), scheduled_ns))
        return await super().turn(env, scheduled_ns)

    async def told(self) -> list[tuple[str, str, bytes]]:
        """(aggregate's id, type, content) of every event of a day, in journal order."""
        found: list[tuple[str, str, bytes]] = []
        async for batch in self.journal.replay(filters=["trading-day"]):
            for one in batch:
                assert isinstance(one, RecordedEvent)
                envelope = one.envelope
                found.append((envelope.aggregate_id, envelope.type.removeprefix("trading-day."), bytes(envelope.data)))
        return found

    # On a server

    async def scheduled(self, client: Client) -> None:
        """Its schedule is there, as `ssmd env apply` makes it."""
        wanted = [one for one in desired(self.document) if one.kind == "days"]
        await schedules.apply(client, self.env, wanted)
        # Nothing by itself: the test says which times pass.
        await client.get_schedule_handle(f"{self.env}/days").pause()

    async def pass_days(self, client: Client, days: int, first: datetime = FIRST) -> None:
        """Let the scheduled times of `days` days pass, at once."""
        await client.get_schedule_handle(f"{self.env}/days").backfill(
            ScheduleBackfill(first, first + timedelta(days=days), overlap=ScheduleOverlapPolicy.BUFFER_ALL)
        )

    async def until(self, date: str, status: str = "completed.v1", within_s: float = 60) -> None:
        """Wait until the day of `date` has come to that."""
        async with asyncio.timeout(within_s):
            while not any(one[0] == date and one[1] == status for one in await self.told()):
                await asyncio.sleep(0.05)


def outage(times: int, words: str) -> Hook:
    """Unavailable, so often."""
    left = [times]

    async def hook(_what: str) -> None:
        if left[0]:
            left[0] -= 1
            raise Unavailable(words)

    return hook
