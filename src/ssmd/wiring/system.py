"""One environment's whole system on this machine: embedded servers, streams, and every component as a process."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from ssmd.clock import Clock
from ssmd.errors import Misconfigured, Unavailable
from ssmd.registry.integrity import KEY_REFERENCE
from ssmd.services.embedded_servers import PreparedServer, prepare_cache, prepare_nats, usable_port
from ssmd.services.first_failure import first_failure
from ssmd.services.run_file import Endpoints, RunFile, RunLock
from ssmd.services.supervisor import ChildEvent, ChildSpec, RestartPolicy, Supervisor, last_word, spec_of
from ssmd.streams import topology
from ssmd.streams.control import ControlClient
from ssmd.wiring.backends import JOURNAL_DIRECTORY
from ssmd.wiring.environment import ResolvedEnvironment, Server, resolve_environment
from ssmd.wiring.schedules import apply_schedules
from ssmd.wiring.stream_servers import stream_connections, stream_definitions

TRANSPORT_DIRECTORY: Final = "nats-transport"
CACHE_DIRECTORY: Final = "cache"
TEMPORAL_DIRECTORY: Final = "temporal"
HEALTH_TIMEOUT_S: Final = 2.0
STARTED_WITHIN_S: Final = 60.0
CAPTURING_WITHIN_S: Final = 30.0

Say = Callable[[str], None]
Result = TypeVar("Result")


class LocalSystem:
    """Starts on entering, stops everything on leaving. One per environment and machine; a second one is refused.

    Args:
        say: told each step in a line for people.
        policy: how children that end are started again.
        child_variables: environment variables for the components, on top of this process's own.
        with_temporal: run the embedded Temporal (where the document wants one), schedules and a worker as well.
    """

    def __init__(
        self,
        environment: ResolvedEnvironment,
        variables: Mapping[str, str],
        clock: Clock,
        say: Say,
        *,
        policy: RestartPolicy | None = None,
        child_variables: Mapping[str, str] | None = None,
        with_temporal: bool = False,
    ) -> None:
        self.environment = environment
        self._with_temporal = with_temporal and bool(environment.document.temporal.url)
        self.variables = variables
        self._clock = clock
        self._say = say
        self._stack = AsyncExitStack()
        self._lock: RunLock | None = None
        self._endpoints = Endpoints()
        self._started_ns = 0
        self._is_stopping = False
        self._control: ControlClient | None = None
        self._opening_control = asyncio.Lock()
        # Its archivers are asked as "main": a name that the user's shell gives an archiver run alone is not theirs.
        self._child_variables = {"SSMD_INSTANCE": "", **(child_variables or {})}
        self.supervisor = Supervisor(self._on_event, policy=policy)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseExceptionGroup as group:
            await self._stop()
            raise first_failure(group) from None
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        self._is_stopping = True
        await self._stack.aclose()

    # Starting

    async def _start(self) -> None:
        environment = self.environment
        check_secrets(environment, self.variables)
        self._started_ns = self._clock.now_ns()
        self._lock = self._stack.enter_context(RunLock(environment.directory, environment.name))
        await self._lock.stop_leftovers(self._say)
        prepared = await self._prepare_servers()
        self._endpoints = self._choose_endpoints(prepared)
        await self._stack.enter_async_context(self.supervisor)
        for name, server in prepared.items():
            if name != "temporal":
                await self.supervisor.start(spec_of(server))
        self._publish()
        await apply_streams(self.environment, self.variables)
        # What consumes comes before what produces; all of it at once, because most of a start is waiting.
        async with asyncio.TaskGroup() as group:
            if self._with_temporal:
                # Data waits for no schedule.
                group.create_task(self._start_temporal(prepared.get("temporal")))
            async with asyncio.TaskGroup() as consumers:
                for kind in self._consumers():
                    consumers.create_task(self._start_component(kind))
            await self._start_component("connector")
        self._publish()

    async def _prepare_servers(self) -> dict[str, PreparedServer]:
        """The embedded servers this environment wants, configured and not started."""
        document, directory = self.environment.document, self.environment.directory
        prepared: dict[str, PreparedServer] = {}
        if document.transport.backend == "nats" and self.environment.is_embedded("transport"):
            prepared["transport"] = await prepare_nats(directory / TRANSPORT_DIRECTORY, sync_always=False, say=self._say)
        if document.journal.backend == "nats" and self.environment.is_embedded("journal"):
            prepared["journal"] = await prepare_nats(directory / JOURNAL_DIRECTORY, sync_always=True, say=self._say)
        if document.cache.backend == "redis" and self.environment.is_embedded("cache"):
            prepared["cache"] = await prepare_cache(directory / CACHE_DIRECTORY, say=self._say)
        if self._with_temporal and self.environment.is_embedded("temporal"):
            from ssmd.services.embedded_temporal import prepare_temporal  # noqa: PLC0415 - only where it is wanted

            namespace = document.temporal.namespace
            prepared["temporal"] = await prepare_temporal(directory / TEMPORAL_DIRECTORY, namespace, say=self._say)
        for server in prepared.values():
            self._stack.callback(server.release)
        return prepared

    async def _start_temporal(self, prepared: PreparedServer | None) -> None:
        """The embedded server, where it is one; then its schedules, and the worker."""
        if prepared is not None:
            await self.supervisor.start(spec_of(prepared))
        try:
            for change in await apply_schedules(self.environment, self.variables):
                self._say(f"schedule {change.id}: {change.action}{f' ({change.detail})' if change.detail else ''}")
        except Unavailable as error:
            self._say(f"schedules are as they were: {error.message}")
        await self._start_component("worker")

    def _choose_endpoints(self, prepared: Mapping[str, PreparedServer]) -> Endpoints:
        document = self.environment.document
        simulator = ""
        if self.environment.uses_simulator:
            simulator = f"127.0.0.1:{usable_port(document.capture.simulator.port)}"
        gateway = document.gateway
        try:
            gateway_port = usable_port(gateway.port)
        except Misconfigured as error:
            raise Misconfigured(
                f"the gateway cannot listen: {error.message}",
                mend=f"set gateway.port (0 = any free one) in exchanges/environments/{document.name}.yaml, or stop what has it",
            ) from error
        return Endpoints(
            transport_url=prepared["transport"].url if "transport" in prepared else "",
            journal_url=prepared["journal"].url if "journal" in prepared else "",
            cache_url=prepared["cache"].url if "cache" in prepared else "",
            simulator_rest=f"http://{simulator}/trade-api/v2" if simulator else "",
            simulator_websocket=f"ws://{simulator}/trade-api/ws/v2" if simulator else "",
            temporal_url=prepared["temporal"].url if "temporal" in prepared else "",
            gateway_url=f"{'https' if gateway.tls_certificate else 'http'}://{gateway.host}:{gateway_port}",
        )

    def _consumers(self) -> list[str]:
        """All components but the connector."""
        simulator = ["simulator"] if self.environment.uses_simulator else []
        return [*simulator, "projector", "raw-archiver", "normalized-archiver", "gateway"]

    def instance_of(self, kind: str) -> str:
        """The instance name of a component of this system."""
        return self.environment.document.capture.connection if kind == "connector" else "main"

    async def _start_component(self, kind: str) -> None:
        environment = self.environment
        log_path = environment.directory / "logs" / f"{kind}.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)

        async def ready(_pid: int) -> bool:
            try:
                await self.health(kind)
            except Unavailable:
                return False
            return True

        argv = (sys.executable, "-P", "-m", "ssmd.wiring.process", kind, environment.name, str(environment.workspace.root))
        await self.supervisor.start(
            ChildSpec(kind, argv, log_path, env=self._child_variables, ready=ready, ready_within_s=STARTED_WITHIN_S)
        )

    def _publish(self) -> None:
        if self._lock is None:
            return
        run = self._lock.publish(self._started_ns, self._endpoints, self.supervisor.processes())
        self._learn(run)

    def _learn(self, run: RunFile) -> None:
        environment = self.environment
        fresh = resolve_environment(environment.workspace, environment.name, environment.date)
        if fresh.run is None or fresh.run.pid != run.pid:
            raise Misconfigured(f"the run file of {environment.name} was taken by another process")
        self.environment = fresh

    def _on_event(self, event: ChildEvent) -> None:
        if event.what in ("exited", "restarting", "gave-up"):
            self._say(f"{event.name} {_news_of(event)}")
        if event.what == "ready" and not self._is_stopping:
            self._say(f"{event.name} is up (process {event.pid})")
            if self._lock is not None:
                self._lock.publish(self._started_ns, self._endpoints, self.supervisor.processes())

    # Asking

    async def _client(self) -> ControlClient:
        async with self._opening_control:
            if self._control is None or not self._control.is_open:
                url = self.environment.server_url("transport", self.variables)
                self._control = await ControlClient.open(url, self.environment.name)
                self._stack.push_async_callback(self._control.close)
            return self._control

    async def health(self, kind: str) -> dict[str, Any]:
        """A component's own word on itself.

        Raises:
            Unavailable: it does not answer.
        """
        client = await self._client()
        return await client.request(kind, self.instance_of(kind), "health", HEALTH_TIMEOUT_S)

    async def until_capturing(self) -> None:
        """Wait until the connector is connected.

        Raises:
            Unavailable: it is not, in time; with its own reason.
        """
        reason = "it does not answer"
        try:
            async with asyncio.timeout(CAPTURING_WITHIN_S):
                while True:
                    try:
                        health = await self.health("connector")
                    except Unavailable as error:
                        reason = error.message
                    else:
                        if health["ok"]:
                            return
                        reason = health["reason"]
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise Unavailable(f"the connector captures nothing after {CAPTURING_WITHIN_S:g} s: {reason}") from None


async def apply_streams(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> list[topology.Difference]:
    """Bring the environment's streams to their definitions; what was changed."""
    definitions = stream_definitions(environment)
    async with stream_connections(environment, variables, definitions) as connections:
        return await topology.apply(connections, definitions)


async def race_failure(system: LocalSystem, work: Awaitable[Result]) -> Result:
    """Do `work`; where a child gives up meanwhile, cancel it and raise the child's failure."""
    doing = asyncio.ensure_future(work)
    failed = asyncio.create_task(system.supervisor.failed())
    try:
        await asyncio.wait({doing, failed}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise failed.result()
        return doing.result()
    finally:
        for task in (doing, failed):
            task.cancel()
        await asyncio.gather(doing, failed, return_exceptions=True)


def check_secrets(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> None:
    """Refuse before anything is started or written where a secret that somebody must give was not given.

    Raises:
        Misconfigured: which, and how it is given.
    """
    servers: tuple[Server, ...] = ("journal", "transport", "cache")
    for server in servers:
        if not environment.is_embedded(server):
            environment.server_url(server, variables)
    match = KEY_REFERENCE.fullmatch(environment.document.capture.key)
    is_generated = match is None or environment.document.keys[match.group(1)].source == "generated"
    # A generated one is made by the process that needs it, inside the lock.
    if not (environment.uses_simulator and is_generated):
        environment.capture_key(variables)


def _news_of(event: ChildEvent) -> str:
    """What happened, in words. The log lines of a child that was killed say nothing about why."""
    if event.what == "restarting":
        return f"is started again: {event.detail}"
    if event.what == "gave-up":
        return f"is not started again: {event.detail}"
    if event.status is not None and event.status < 0:
        return f"was ended by {signal.Signals(-event.status).name}"
    said = last_word(event.detail)
    why = said.reason if said is not None else event.detail.rpartition("\n")[2]
    return f"ended with status {event.status}{f': {why}' if why else ''}"
