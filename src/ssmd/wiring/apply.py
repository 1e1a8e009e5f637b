"""What an environment keeps in servers, brought to its documents, or taken away: plan, then act, then say so in the journal.

Both may be called again after any failure: what is done is found done.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

import msgspec

from ssmd.application.handler import Application
from ssmd.clock import Clock
from ssmd.domain import environment as aggregate
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.environment import EnvironmentCommand, RecordApply, RecordTeardown
from ssmd.errors import Misconfigured, Rejected
from ssmd.identifiers import RandomBytes, encode_token, uuid7
from ssmd.registry.git import Git
from ssmd.registry.meaning import meaning_of
from ssmd.registry.tree import read_tree, tree_of_files
from ssmd.services.embedded_servers import start_nats
from ssmd.services.run_file import RunLock
from ssmd.streams import topology
from ssmd.streams.connection import Connection
from ssmd.streams.topology import StreamDefinition
from ssmd.wiring.backends import JOURNAL_DIRECTORY, open_rows_store, open_storage
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.schedules import apply_schedules, has_temporal, schedule_differences
from ssmd.wiring.stream_servers import stream_definitions
from ssmd.wiring.system import CACHE_DIRECTORY, TEMPORAL_DIRECTORY, TRANSPORT_DIRECTORY

CONNECT_TIMEOUT_S: Final = 5.0
NOT_NOW: Final = "not now"
UNCOMMITTED_MAX: Final = 100
_DIRECTORY_OF: Final[dict[topology.Endpoint, str]] = {"journal": JOURNAL_DIRECTORY, "transport": TRANSPORT_DIRECTORY}


class Step(NamedTuple):
    """One thing that differs, or that is to be removed. `action`: create, change, remove, or "not now" (nothing is done)."""

    kind: str
    name: str
    action: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.name}{f': {self.detail}' if self.detail else ''}"


class Servers:
    """The servers of one environment, reachable. `connections` has those that are NATS's."""

    def __init__(self, environment: ResolvedEnvironment, variables: Mapping[str, str]) -> None:
        self.environment = environment
        self.variables = variables
        self.urls: dict[topology.Endpoint, str] = {}
        self.connections: dict[topology.Endpoint, Connection] = {}

    @property
    def definitions(self) -> list[StreamDefinition]:
        """The streams that these servers should hold."""
        return [definition for definition in stream_definitions(self.environment) if definition.endpoint in self.connections]

    async def record(self, command: EnvironmentCommand, *, clock: Clock, random: RandomBytes, actor: str) -> bool:
        """Journal what was done; whether there was anything new to say."""
        from ssmd.streams.journal_nats import NatsJournal  # noqa: PLC0415 - as all backends, when it is asked for

        if "journal" not in self.urls:
            raise Misconfigured(
                f"the journal of {self.environment.name} is not in NATS: what is applied could not be recorded",
                mend=f"set journal.backend to nats in exchanges/environments/{self.environment.name}.yaml",
            )
        journal = await NatsJournal.open(self.urls["journal"], self.environment.name)
        try:
            application = Application(journal, CATALOGUE, clock, random, self.environment.config)
            handled = await application.handle(aggregate.DECIDER, (self.environment.name,), command, actor=actor)
        finally:
            await journal.close()
        return bool(handled.events)


@asynccontextmanager
async def reached_servers(
    environment: ResolvedEnvironment, variables: Mapping[str, str], say: Callable[[str], None]
) -> AsyncGenerator[Servers]:
    """The servers of `environment`; embedded ones that are off run for the block, and nobody else may run it meanwhile.

    Raises:
        Misconfigured: another process holds the environment.
        Unavailable: a server does not answer.
    """
    backends = {"journal": environment.document.journal.backend, "transport": environment.document.transport.backend}
    servers = Servers(environment, variables)
    async with AsyncExitStack() as stack:
        endpoints: tuple[topology.Endpoint, ...] = ("journal", "transport")
        wanted = [endpoint for endpoint in endpoints if backends[endpoint] == "nats"]
        if environment.run is None and any(environment.is_embedded(endpoint) for endpoint in wanted):
            lock = stack.enter_context(RunLock(environment.directory, environment.name))
            await lock.stop_leftovers(say)
        for endpoint in wanted:
            if environment.is_embedded(endpoint) and environment.run is None:
                directory = environment.directory / _DIRECTORY_OF[endpoint]
                server = await start_nats(directory, sync_always=endpoint == "journal", say=say)
                stack.push_async_callback(server.stop)
                servers.urls[endpoint] = server.url
            else:
                servers.urls[endpoint] = environment.server_url(endpoint, variables)
            connection = await Connection.open(
                servers.urls[endpoint], name=f"ssmd {environment.name} apply", timeout_s=CONNECT_TIMEOUT_S
            )
            stack.push_async_callback(connection.close)
            servers.connections[endpoint] = connection
        yield servers


# Applying


def uncommitted_changes(environment: ResolvedEnvironment) -> tuple[str, ...]:
    """What the registry holds beyond its last commit, in words; () when it is not under git."""
    workspace = environment.workspace
    git = Git(workspace.root, workspace.registry.name)
    if not git.is_there():
        return ()
    dirty = git.dirty_files()
    if not dirty:
        return ()
    old = git.tree("HEAD") if git.head() else tree_of_files(workspace.registry, {})
    meaning = meaning_of(old, read_tree(workspace.registry), date=environment.date)
    words = [f"{one.document}: {one.field or 'the document'}: {one.old} -> {one.new}" for one in meaning.fields]
    words += [f"{name}: the text" for name in meaning.texts]
    return tuple(words[:UNCOMMITTED_MAX]) or tuple(dirty[:UNCOMMITTED_MAX])


def refuse_uncommitted(environment: ResolvedEnvironment, changes: tuple[str, ...]) -> None:
    """Raise Rejected where there are changes that no commit holds."""
    if changes:
        raise Rejected(
            "uncommitted-registry",
            f"the registry of {environment.name} has {len(changes)} uncommitted changes: {'; '.join(changes[:3])}"
            f"{' ...' if len(changes) > 3 else ''}",
            mend="ssmd commit -m TEXT, or --allow-dirty (which is recorded)",
        )


def document_sha256(environment: ResolvedEnvironment) -> str:
    """Of the environment's document, its feed version in force and its schema, all defaults filled in."""
    parts = [environment.document, environment.feed_version, environment.schema.sha256]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


async def plan_apply(servers: Servers) -> list[Step]:
    """What `apply` would do, and what the document asks for that this version does not do."""
    document = servers.environment.document
    steps: list[Step] = []
    for one in await topology.diff(servers.connections, servers.definitions):
        action = "change" if one.field else "create"
        steps.append(Step("stream", one.stream, action, f"{one.field} from {one.found} to {one.wanted}" if one.field else ""))
    if document.storage.backend == "local" and not servers.environment.archive_directory.is_dir():
        steps.append(Step("storage", str(servers.environment.archive_directory), "create"))
    if document.storage.backend == "s3":
        await _check_bucket(servers)
    return [*steps, *await _plan_schedules(servers.environment, servers.variables)]


async def _plan_schedules(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> list[Step]:
    if has_temporal(environment):
        changes = await schedule_differences(environment, variables)
        return [Step("schedule", change.id, change.action, change.detail) for change in changes]
    schedule = environment.document.schedule
    if not schedule.days:
        return []
    why = (
        "its Temporal is embedded and does not run: ssmd up applies it"
        if environment.document.temporal.url
        else "no temporal.url"
    )
    return [Step("schedule", f"{schedule.start} on {', '.join(schedule.days)}", NOT_NOW, why)]


async def _check_bucket(servers: Servers) -> None:
    """Raise Unavailable unless the bucket answers: ssmd makes no buckets, it lacks the rights to say what they cost."""
    storage = open_storage(servers.environment, servers.variables)
    try:
        async for _ in storage.list(f"raw/{encode_token(servers.environment.name)}/"):
            break
    finally:
        await storage.close()


async def apply(
    servers: Servers, uncommitted: tuple[str, ...], *, clock: Clock, random: RandomBytes, actor: str
) -> tuple[list[Step], bool]:
    """Do what `plan_apply` says and journal it; (what was done, whether the journal had not known of it).

    Raises:
        Misconfigured: a server refuses a setting.
    """
    steps = [step for step in await plan_apply(servers) if step.action != NOT_NOW]
    await topology.apply(servers.connections, servers.definitions)
    if any(step.kind == "schedule" for step in steps):
        await apply_schedules(servers.environment, servers.variables)
    if any(step.kind == "storage" for step in steps):
        try:
            servers.environment.archive_directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(f"cannot make {servers.environment.archive_directory}: {error.strerror}") from error
    command = RecordApply(
        run_id=uuid7(clock.now_ns(), random),
        config=servers.environment.config,
        document_sha256=document_sha256(servers.environment),
        uncommitted=uncommitted,
        changes=tuple(str(step) for step in steps),
    )
    return steps, await servers.record(command, clock=clock, random=random, actor=actor)


# Tearing down


async def plan_teardown(servers: Servers, date: str, *, with_archive: bool) -> list[Step]:
    """What `teardown` would remove. `date`: only archived objects of that day."""
    environment = servers.environment
    steps: list[Step] = []
    if not date:
        steps += [
            Step("stream", status.name, "remove", f"{status.messages} messages, {status.size_bytes} bytes")
            for status in await topology.status(servers.connections, servers.definitions)
            if status.exists and not status.name.endswith("-journal")
        ]
        if environment.document.cache.backend == "redis":
            if not environment.is_embedded("cache"):
                steps.append(Step("cache", f"{encode_token(environment.name)}:projection:*", "remove"))
            elif (environment.directory / CACHE_DIRECTORY).is_dir():
                steps.append(Step("cache", str(environment.directory / CACHE_DIRECTORY), "remove"))
        if environment.is_embedded("temporal") and (environment.directory / TEMPORAL_DIRECTORY).is_dir():
            steps.append(Step("schedule", str(environment.directory / TEMPORAL_DIRECTORY), "remove"))
        elif has_temporal(environment) and not environment.is_embedded("temporal"):
            there = await schedule_differences(environment, servers.variables, wanted=())
            steps += [Step("schedule", change.id, change.action) for change in there]
    if date or with_archive:
        keys = await archive_keys(servers, date)
        if keys:
            steps.append(
                Step(
                    "archive",
                    f"{encode_token(environment.name)}{f' of {date}' if date else ''}",
                    "remove",
                    f"{len(keys)} objects",
                )
            )
    return steps


async def archive_keys(servers: Servers, date: str) -> list[str]:
    """Keys of the environment's objects, of one day or ("") of all."""
    token = encode_token(servers.environment.name)
    day = re.compile(rf"/{date.replace('-', '/')}/") if date else re.compile("")
    storage = open_storage(servers.environment, servers.variables)
    try:
        return [
            key for prefix in (f"raw/{token}/", f"normalized/{token}/") async for key in storage.list(prefix) if day.search(key)
        ]
    finally:
        await storage.close()


async def teardown(
    servers: Servers, date: str, *, with_archive: bool, clock: Clock, random: RandomBytes, actor: str
) -> list[Step]:
    """Remove what `plan_teardown` says and journal it. The journal itself stays, always."""
    steps = await plan_teardown(servers, date, with_archive=with_archive)
    environment = servers.environment
    kinds = {step.kind for step in steps}
    if "stream" in kinds:
        await topology.remove(servers.connections, servers.definitions)
    if "cache" in kinds:
        if environment.is_embedded("cache"):
            shutil.rmtree(environment.directory / CACHE_DIRECTORY)
        else:
            store = open_rows_store(environment, servers.variables, random)
            try:
                await store.clear()
            finally:
                await store.close()
    if "schedule" in kinds:
        if environment.is_embedded("temporal"):
            shutil.rmtree(environment.directory / TEMPORAL_DIRECTORY)
        else:
            await apply_schedules(environment, servers.variables, wanted=())
    if "archive" in kinds:
        storage = open_storage(environment, servers.variables)
        try:
            for key in await archive_keys(servers, date):
                await storage.delete(key)
        finally:
            await storage.close()
    if any(definition.role == "journal" for definition in servers.definitions):
        # What is recorded needs a journal to stand in, also where nobody ever applied.
        await topology.apply(servers.connections, [one for one in servers.definitions if one.role == "journal"])
    command = RecordTeardown(uuid7(clock.now_ns(), random), date, tuple(str(step) for step in steps))
    await servers.record(command, clock=clock, random=random, actor=actor)
    return steps
