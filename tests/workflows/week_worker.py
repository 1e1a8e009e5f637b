"""The worker of a `real_week`, as a process of its own that kills itself as kill -9 would where it was told to.

python -m tests.workflows.week_worker ENV WORKSPACE CLOCK KILLS

KILLS is a directory; in it `armed` has a line for every place to die at, once each, and `hit` gets a line for each that was
reached. A place is "asked STEP PHASE DATE" (the component has answered, the journal does not have it yet) or "done STEP PHASE
DATE" (it is journaled, Temporal does not know).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.workflows.shared_clock import SharedClock

from ssmd.clock import Clock, date_of
from ssmd.identifiers import system_random
from ssmd.services.armed_crash import kill_self
from ssmd.services.kalshi_rest.client import RestSettings
from ssmd.services.together import Together
from ssmd.settings import Workspace, variables
from ssmd.telemetry.logging import configure_logging
from ssmd.wiring import secmaster, venue_rest
from ssmd.wiring.day_steps import Control, DayProcedure
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment
from ssmd.wiring.worker import EnvironmentWork
from ssmd.workflows import service
from ssmd.workflows.orders import Begun, DayOrder, Turn

HURRIED = RestSettings(tries_max=3, deadline_s=2.0, pause_first_s=0.05)
"""A venue that is away is given up on soon, so that the day's own patience is what is looked at."""
READY = "ready-"
"""Before the process id, in KILLS: that worker has all it needs."""
_doing: ContextVar[str] = ContextVar("_doing", default="")


class Kills:
    """See the module."""

    def __init__(self, directory: Path) -> None:
        self._armed = directory / "armed"
        self._hit = directory / "hit"

    def __call__(self, place: str) -> None:
        try:
            if place not in self._armed.read_text(encoding="utf-8").splitlines():
                return
            if self._hit.exists() and place in self._hit.read_text(encoding="utf-8").splitlines():
                return
        except FileNotFoundError:
            return
        with self._hit.open("a", encoding="utf-8") as told:
            told.write(f"{place}\n")
        kill_self()


class _Asking:
    """A control client that may be killed once it has its answer."""

    def __init__(self, control: Control, kills: Kills) -> None:
        self._control = control
        self._kills = kills

    async def request(self, component: str, instance: str, verb: str, timeout_s: float) -> Mapping[str, Any]:
        answer = await self._control.request(component, instance, verb, timeout_s)
        # Some steps ask for the health of a component before they ask it for what they want.
        if _doing.get().startswith(f"{verb} "):
            self._kills(f"asked {_doing.get()}")
        return answer


class KilledWork(EnvironmentWork):
    """The real work, with places to die at."""

    kills: Kills

    @asynccontextmanager
    async def _opened(self, actor: str, request: str) -> AsyncGenerator[DayProcedure]:
        async with super()._opened(actor, request) as procedure:
            sync, verify = procedure.sync, procedure.verify
            assert sync is not None
            assert verify is not None

            async def synced() -> str:
                words = await sync()
                self.kills(f"asked {_doing.get()}")
                return words

            async def verified(date: str) -> str:
                words = await verify(date)
                self.kills(f"asked {_doing.get()}")
                return words

            yield procedure._replace(control=_Asking(procedure.control, self.kills), sync=synced, verify=verified)

    async def turn(self, env: str, scheduled_ns: int) -> Turn:
        turn = await super().turn(env, scheduled_ns)
        self.kills(f"done turn {date_of(scheduled_ns)}")
        return turn

    async def begin(self, order: DayOrder, request: str) -> Begun:
        begun = await super().begin(order, request)
        self.kills(f"done begin {order.phase} {order.date}")
        return begun

    async def step(self, order: DayOrder, step: str, request: str) -> None:
        what = f"{step} {order.phase} {order.date}"
        _doing.set(what)
        await super().step(order, step, request)
        self.kills(f"done {what}")

    async def finish(self, order: DayOrder, request: str) -> str:
        status = await super().finish(order, request)
        self.kills(f"done finish {order.phase} {order.date}")
        return status


async def run_worker(
    environment: ResolvedEnvironment, given: Mapping[str, str], clock: Clock, kills: Path, stack: AsyncExitStack
) -> None:
    """The worker as `ssmd worker run` has it, but for the places to die at. Once it follows the stream, a file says so."""
    environment = replace(environment, role="worker")
    work = KilledWork(environment, given, clock, system_random)
    work.kills = Kills(kills)
    namespace, address = environment.document.temporal.namespace, environment.server_url("temporal", given)
    worker = service.WorkerService(address, namespace, environment.name, work, instance="main", random=system_random)
    follower = await secmaster.lifecycle_follower(environment, given, clock, system_random, stack)
    assert follower is not None
    running = asyncio.create_task(Together(worker, follower, "secmaster_").run())
    try:
        while follower._reader is None:
            await asyncio.wait({running}, timeout=0.05)
            assert not running.done()
        (kills / f"{READY}{os.getpid()}").touch()
        await running
    finally:
        running.cancel()
        await asyncio.wait({running})


async def main(env: str, workspace: Path, clock: SharedClock, kills: Path) -> None:
    secmaster.open_rest = partial(venue_rest.open_rest, settings=HURRIED)  # type: ignore[attr-defined]
    # Temporal hands the work of a worker that was killed to another one at once.
    service.worker_of = partial(service.worker_of, grace_s=0, sticky_s=0.3)
    environment = resolve_environment(Workspace(workspace), env, date_of(clock.now_ns()))
    async with AsyncExitStack() as stack:
        await run_worker(environment, variables(), clock, kills, stack)


if __name__ == "__main__":
    env, workspace, clock, kills = sys.argv[1:]
    shared = SharedClock(Path(clock))
    configure_logging("worker", shared, sys.stderr, level="info")
    asyncio.run(main(env, Path(workspace), shared, Path(kills)))
