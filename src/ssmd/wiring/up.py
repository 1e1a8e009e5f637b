"""`ssmd up`: one environment's whole system until interrupted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from ssmd.clock import Clock
from ssmd.errors import Rejected, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.wiring.day_asking import DayAsker
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.system import LocalSystem
from ssmd.wiring.trading_day import day_procedure, start_day, today_in


class _Plan(NamedTuple):
    """`day_actor` "" = no day is started."""

    day_actor: str
    with_temporal: bool


def run_up(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    *,
    clock: Clock,
    random: RandomBytes,
    actor: str,
    say: Callable[[str], None],
    with_day: bool = True,
    with_temporal: bool = True,
) -> int:
    """Run the system until SIGINT or SIGTERM, while it starts as well; blocks. Returns the exit status.

    Args:
        actor: who starts the trading day ("cli:anna").
        with_day: start today's trading day once all is up.
        with_temporal: have workflows do days and duties, where the document names a Temporal; else this process starts the day.

    Raises:
        Misconfigured: it cannot start, or another `ssmd up` of the environment runs.
        Unavailable: a part did not come up, or gave up after its restarts.
    """
    plan = _Plan(actor if with_day else "", with_temporal)
    return asyncio.run(_run(environment, variables, clock, random, plan, say))


async def _run(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    plan: _Plan,
    say: Callable[[str], None],
) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    serving = asyncio.create_task(_serve(environment, variables, clock, random, plan, say))
    stopping = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            say("stopping")
            serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
    finally:
        stopping.cancel()
    return 0


async def _serve(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    plan: _Plan,
    say: Callable[[str], None],
) -> None:
    """Start the system and keep it until cancelled."""
    async with LocalSystem(environment, variables, clock, say, with_temporal=plan.with_temporal) as system:
        run = system.environment.run
        if run is not None:
            say(f"gateway: {run.endpoints.gateway_url}/v1/health")
            if run.endpoints.simulator_websocket:
                say(f"simulator: {run.endpoints.simulator_websocket}")
        if plan.day_actor:
            await _begin_day(system.environment, variables, clock, random, say, plan)
        say(f"{environment.name} is up; Ctrl-C stops it")
        raise await system.supervisor.failed()


async def _begin_day(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    say: Callable[[str], None],
    plan: _Plan,
) -> None:
    """As `begin_day`, by a workflow where there is a Temporal. A day that cannot be started does not stop the capture."""
    date = today_in(environment.document.timezone, clock)
    asker = DayAsker(environment, variables, clock, random, plan.day_actor, say, by_workflow=plan.with_temporal)
    try:
        await asker.go("start", date, "ssmd up")
    except Rejected as error:
        say(f"trading day {date} is not started: {error.message}")
    except Unavailable as error:
        say(f"trading day {date} is not started yet: {error.message}; try ssmd day recover")


async def begin_day(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    say: Callable[[str], None],
    *,
    actor: str = "cli:unknown",
    reason: str = "ssmd up",
) -> str:
    """Start today's trading day; a day that is over already stays so. Returns its date."""
    date = today_in(environment.document.timezone, clock)
    async with day_procedure(environment, variables, clock=clock, random=random, actor=actor, say=say) as procedure:
        try:
            await start_day(procedure, date, reason=reason)
        except Rejected as error:
            say(f"trading day {date} is not started: {error.message}")
    return date
