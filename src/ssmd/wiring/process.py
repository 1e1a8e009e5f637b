"""One component as a process of its own: logs, signals, control subjects, exit status.

    python -m ssmd.wiring.process KIND ENV WORKSPACE

SIGTERM and SIGINT stop it: it finishes what it holds, within a deadline. Exit status 0 = stopped, 1 = a backend it
cannot go on without is away, 2 = misconfigured; both with one line on stderr.

Started like this it also stops when whoever started it is gone, and then soon: the embedded servers went with it, so
there is nobody to hand over to; what is not archived is on the tape.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from ssmd import __version__
from ssmd.clock import SystemClock, date_of
from ssmd.errors import Malformed, Misconfigured, SsmdError
from ssmd.identifiers import system_random
from ssmd.services.component import Component, Questioned
from ssmd.services.ended_tasks import end_tasks
from ssmd.settings import Workspace, variables
from ssmd.streams.control import ControlServer, Verb
from ssmd.telemetry import tracing
from ssmd.telemetry.logging import configure_logging, log_level
from ssmd.telemetry.structured import structlog
from ssmd.wiring.components import Parts, build
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment
from ssmd.wiring.key_loads import KeyLoads
from ssmd.wiring.monitoring import address_of, known_of, monitored

STOP_S: Final = 20.0
"""How long a component may take to stop before it is cut off."""
ORPHAN_STOP_S: Final = 3.0
"""The same where the process that started it is gone."""
ORPHAN_POLL_S: Final = 0.1
PARENT_POLL_S: Final = 0.5
"""How often a component looks for it, where the kernel does not tell (`services.child`)."""


def run_component(kind: str, environment: ResolvedEnvironment, *, parent: int = 0, shard: str = "") -> None:
    """Run one component until it is told to stop; blocks.

    Args:
        parent: pid of the process it must not outlive; 0 = none.
        shard: the part of the environment it looks after, "" = as SSMD_SHARD says, else all of it.

    Raises:
        Misconfigured, Unavailable: it cannot begin, or cannot go on.
    """
    configure_logging(kind, SystemClock(), sys.stderr, level=log_level(variables()))
    import uvloop  # noqa: PLC0415 - only processes that run a loop of their own need it

    given = variables()
    uvloop.run(_run(kind, environment, parent, {**given, "SSMD_SHARD": shard} if shard else given))


async def _run(kind: str, environment: ResolvedEnvironment, parent: int, given: Mapping[str, str]) -> None:
    log = structlog.get_logger(kind)
    loads = KeyLoads()
    environment = dataclasses.replace(environment, on_key=loads.note, role=kind)
    async with AsyncExitStack() as stack:
        component = await build(kind, Parts(environment, given, SystemClock(), system_random, stack))
        stack.callback(tracing.begin(component.name, component.instance, environment.name, given))
        process = f"{component.name}:{component.instance}"
        quiet = dataclasses.replace(environment, on_key=None)
        await stack.enter_async_context(loads.journaled(quiet, variables(), SystemClock(), system_random, process))
        component = await monitored(component, environment.name, known_of(kind, environment), address_of(given), stack)
        running = asyncio.create_task(component.run(), name=component.name)
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        control = asyncio.create_task(answer_control(environment, given, component, stopping), name="control")
        told = asyncio.create_task(_until_told(stopping, parent), name="told to stop")
        log.info("started", instance=component.instance, env=environment.name, pid=os.getpid())
        try:
            await asyncio.wait({running, told, control}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await _stop(component, running, parent, log)
            # A component that ended by itself says why.
            if not running.cancelled():
                running.result()
            # This ends only by an error nobody foresaw: who cannot be asked any more had better be started again.
            if control.done():
                control.result()
        finally:
            await end_tasks([control, told, running])
        log.info("stopped", instance=component.instance)


def _is_orphan(parent: int) -> bool:
    return parent != 0 and os.getppid() != parent


async def _until_told(stopping: asyncio.Event, parent: int) -> None:
    """Return when the component is to stop."""
    while not (stopping.is_set() or _is_orphan(parent)):
        with suppress(TimeoutError):
            async with asyncio.timeout(PARENT_POLL_S if parent else None):
                await stopping.wait()


async def _stop(component: Component, running: asyncio.Task[None], parent: int, log: Any) -> None:
    within_s = ORPHAN_STOP_S if _is_orphan(parent) else STOP_S
    try:
        async with asyncio.timeout(within_s) as limit:
            hurrying = asyncio.create_task(_hurry(limit, parent), name="orphaned while stopping")
            try:
                await component.stop()
                await asyncio.wait({running})
            finally:
                hurrying.cancel()
    except TimeoutError:
        log.warning("stop-took-too-long", deadline_s=ORPHAN_STOP_S if _is_orphan(parent) else STOP_S)
        running.cancel()
        await asyncio.wait({running})


async def _hurry(limit: asyncio.Timeout, parent: int) -> None:
    """Leave less time once the parent is gone. Of one with threads the kernel says so before it has another parent for us."""
    if not parent or _is_orphan(parent):
        return
    while not _is_orphan(parent):  # noqa: ASYNC110 - the kernel raises no event
        await asyncio.sleep(ORPHAN_POLL_S)
    limit.reschedule(asyncio.get_running_loop().time() + ORPHAN_STOP_S)


async def answer_control(
    environment: ResolvedEnvironment, given: Mapping[str, str], component: Component, stopping: asyncio.Event
) -> None:
    """Answer for `component` on the control subjects, `stop` by setting `stopping`; returns never."""
    if environment.document.transport.backend != "nats":
        await asyncio.Event().wait()

    async def health() -> Mapping[str, Any]:
        answer: Mapping[str, Any] = msgspec.to_builtins(component.health())
        return answer

    async def flush() -> Mapping[str, Any]:
        await component.flush()
        return {"ok": True, "reason": ""}

    async def stop() -> Mapping[str, Any]:
        stopping.set()
        return {"ok": True, "reason": ""}

    async def start() -> Mapping[str, Any]:
        # It runs, or nobody would answer; whether it can take part in a day is its own word.
        health = component.health()
        return {"ok": health.ok, "reason": health.reason}

    verbs: dict[str, Verb] = {"health": health, "flush": flush, "drain": flush, "stop": stop, "start": start}
    url = environment.server_url("transport", given)
    server = ControlServer(
        url, environment.name, component.name, component.instance, verbs, version=__version__, random=system_random,
        questions=component.questions() if isinstance(component, Questioned) else {},
    )  # fmt: skip
    await server.run()


def main(arguments: list[str]) -> int:
    """See the module."""
    kind, env, root = arguments
    parent = os.getppid()
    # Before anything can go wrong: who started this reads the last line of the log.
    configure_logging(kind, SystemClock(), sys.stderr, level="info")
    try:
        environment = resolve_environment(Workspace(Path(root)), env, date_of(SystemClock().now_ns()))
        run_component(kind, environment, parent=parent)
    except SsmdError as error:
        structlog.get_logger(kind).error("cannot-go-on", reason=error.message, mend=error.mend)
        return 2 if isinstance(error, Misconfigured | Malformed) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
