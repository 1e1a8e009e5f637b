"""Activities: `work.Work` behind Temporal, with heartbeats, and with ssmd's errors as Temporal understands them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from temporalio import activity

from ssmd.errors import SsmdError
from ssmd.telemetry import request, tracing
from ssmd.telemetry.structured import structlog
from ssmd.workflows.failures import carried
from ssmd.workflows.orders import (
    Begun,
    DayOrder,
    GapName,
    RepairOrder,
    StepOrder,
    SyncOrder,
    Trouble,
    Turn,
    TurnOrder,
    Unrepaired,
)
from ssmd.workflows.work import Work

BEATS_PER_TIMEOUT: Final = 4
BEAT_S: Final = 5.0


class Activities:
    """See the module. `all` is for the worker."""

    def __init__(self, work: Work) -> None:
        self._work = work

    @property
    def all(self) -> list[Callable[..., Any]]:
        return [
            self.turn,
            self.begin,
            self.step,
            self.finish,
            self.fail,
            self.recover,
            self.abandon,
            self.sync,
            self.expiring_keys,
            self.unrepaired,
            self.repair,
        ]

    @activity.defn(name="turn")
    async def turn(self, order: TurnOrder, scheduled_ns: int) -> Turn:
        async with _alive():
            return await self._work.turn(order.env, scheduled_ns)

    @activity.defn(name="begin")
    async def begin(self, order: DayOrder) -> Begun:
        async with _alive():
            return await self._work.begin(order, _request())

    @activity.defn(name="step")
    async def step(self, order: StepOrder) -> None:
        async with _alive():
            await self._work.step(order.order, order.step, _request())

    @activity.defn(name="finish")
    async def finish(self, order: DayOrder) -> str:
        async with _alive():
            return await self._work.finish(order, _request())

    @activity.defn(name="fail")
    async def fail(self, trouble: Trouble) -> None:
        async with _alive():
            await self._work.fail(trouble.order, trouble.error, _request())

    @activity.defn(name="recover")
    async def recover(self, trouble: Trouble) -> None:
        async with _alive():
            await self._work.recover(trouble.order, f"round {trouble.rounds + 1}", _request())

    @activity.defn(name="abandon")
    async def abandon(self, trouble: Trouble) -> None:
        async with _alive():
            await self._work.abandon(trouble.order, trouble.error, trouble.rounds, _request())

    @activity.defn(name="sync")
    async def sync(self, order: SyncOrder) -> str:
        async with _alive():
            return await self._work.sync(order.env, is_full=order.is_full)

    @activity.defn(name="expiring-keys")
    async def expiring_keys(self, env: str) -> list[str]:
        async with _alive():
            return await self._work.expiring_keys(env, _request())

    @activity.defn(name="unrepaired-gaps")
    async def unrepaired(self, order: RepairOrder) -> Unrepaired:
        async with _alive():
            return await self._work.unrepaired(order, _request())

    @activity.defn(name="repair-gap")
    async def repair(self, order: RepairOrder, gap: GapName) -> str:
        async with _alive():
            return await self._work.repair(order, gap, _request())


def _request() -> str:
    return activity.info().workflow_id or ""


@asynccontextmanager
async def _alive() -> AsyncGenerator[None]:
    """Tell Temporal that this worker lives, for as long as the block runs; what it does belongs to its workflow."""
    info = activity.info()
    timeout = info.heartbeat_timeout
    every_s = BEAT_S if timeout is None else timeout.total_seconds() / BEATS_PER_TIMEOUT

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(every_s)

    beating = asyncio.create_task(beat(), name="heartbeat")
    try:
        with request.begun(_request()), tracing.span(f"activity {info.activity_type}", attempt=info.attempt):
            structlog.get_logger("worker").info("activity", activity=info.activity_type, attempt=info.attempt)
            yield
    except SsmdError as error:
        raise carried(error) from error
    finally:
        beating.cancel()
        await asyncio.wait({beating})
