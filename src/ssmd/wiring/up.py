"""`ssmd up`: one environment's whole system until interrupted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress

from ssmd.clock import Clock
from ssmd.errors import Rejected
from ssmd.identifiers import RandomBytes
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.system import LocalSystem
from ssmd.wiring.trading_day import day_procedure, start_day, today_in


def run_up(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    *,
    clock: Clock,
    random: RandomBytes,
    actor: str,
    say: Callable[[str], None],
    with_day: bool = True,
) -> int:
    """Run the system until SIGINT or SIGTERM, while it starts as well; blocks. Returns the exit status.

    Args:
        actor: who starts the trading day ("cli:anna").
        with_day: start today's trading day once all is up.

    Raises:
        Misconfigured: it cannot start, or another `ssmd up` of the environment runs.
        Unavailable: a part did not come up, or gave up after its restarts.
    """
    return asyncio.run(_run(environment, variables, clock, random, actor if with_day else "", say))


async def _run(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    day_actor: str,
    say: Callable[[str], None],
) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    serving = asyncio.create_task(_serve(environment, variables, clock, random, day_actor, say))
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
    day_actor: str,
    say: Callable[[str], None],
) -> None:
    """Start the system and keep it until cancelled."""
    async with LocalSystem(environment, variables, clock, say) as system:
        run = system.environment.run
        if run is not None:
            say(f"gateway: {run.endpoints.gateway_url}/v1/health")
            if run.endpoints.simulator_websocket:
                say(f"simulator: {run.endpoints.simulator_websocket}")
        if day_actor:
            await begin_day(system.environment, variables, clock, random, say, actor=day_actor)
        say(f"{environment.name} is up; Ctrl-C stops it")
        raise await system.supervisor.failed()


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
