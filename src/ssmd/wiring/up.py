"""`ssmd up`: one environment's whole system until interrupted."""

from __future__ import annotations

import asyncio
import getpass
import signal
from collections.abc import Callable, Mapping

from ssmd.clock import Clock
from ssmd.errors import Rejected
from ssmd.identifiers import RandomBytes
from ssmd.settings import Workspace
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.system import LocalSystem, race_failure
from ssmd.wiring.trading_day import day_procedure, start_day, today_in


def run_up(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    *,
    clock: Clock,
    random: RandomBytes,
    say: Callable[[str], None],
    with_day: bool = True,
) -> int:
    """Run the system until SIGINT or SIGTERM; blocks. Returns the exit status.

    Args:
        with_day: start today's trading day once all is up.

    Raises:
        Misconfigured: it cannot start, or another `ssmd up` of the environment runs.
        Unavailable: a part did not come up, or gave up after its restarts.
    """
    return asyncio.run(_run(environment, variables, clock, random, say, with_day=with_day))


async def _run(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    say: Callable[[str], None],
    *,
    with_day: bool,
) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    starting = asyncio.create_task(_serve(environment, variables, clock, random, say, stopping, with_day=with_day))
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
        await starting
    finally:
        told.cancel()
    return 0


async def _serve(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    say: Callable[[str], None],
    stopping: asyncio.Event,
    *,
    with_day: bool,
) -> None:
    async with LocalSystem(environment, variables, clock, say) as system:
        run = system.environment.run
        if run is not None:
            say(f"gateway: {run.endpoints.gateway_url}/v1/health")
            if run.endpoints.simulator_websocket:
                say(f"simulator: {run.endpoints.simulator_websocket}")
        if with_day:
            await begin_day(system.environment, variables, clock, random, say)
        say(f"{environment.name} is up; Ctrl-C stops it")
        await race_failure(system, asyncio.create_task(stopping.wait()))
        say("stopping")


async def begin_day(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    say: Callable[[str], None],
) -> str:
    """Start today's trading day; a day that is over already stays so. Returns its date."""
    date = today_in(environment.document.timezone, clock)
    actor = f"cli:{user_name()}"
    async with day_procedure(environment, variables, clock=clock, random=random, actor=actor, say=say) as procedure:
        try:
            await start_day(procedure, date, reason="ssmd up")
        except Rejected as error:
            say(f"trading day {date} is not started: {error.message}")
    return date


def user_name() -> str:
    """Who runs this, for the journal's `actor`."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def workspace_hint(workspace: Workspace, here: Workspace) -> str:
    """What to put between `ssmd` and its command so that it means `workspace` when called from `here`."""
    return "" if workspace.root == here.root else f" --workspace {workspace.root}"
