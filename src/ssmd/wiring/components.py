"""Components put together from an environment: which backend, which address, which settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict
from urllib.parse import urlsplit

from ssmd.application.handler import Application
from ssmd.clock import Clock
from ssmd.crash_points import CrashPoint, no_crash
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Misconfigured, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.services.armed_crash import ArmedCrash
from ssmd.services.component import Component
from ssmd.telemetry.structured import structlog
from ssmd.wiring.backends import open_journal, open_rows_store, open_snapshots, open_storage, open_transport
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.instances import Ask, claim_archiver, refuse_second_connector

if TYPE_CHECKING:
    from ssmd.archive.storage import Storage
    from ssmd.exchanges.kalshi.signing import PrivateKey
    from ssmd.gateway.past_books import PastBooks
    from ssmd.gateway.record_routes import OpenViews
    from ssmd.gateway.server import TlsFiles
    from ssmd.registry.documents import ArchiveSettings
    from ssmd.services.connector.venue import Venue
    from ssmd.streams.journal import Journal
    from ssmd.streams.transport import Transport

ALIVE_TIMEOUT_S: Final = 2.0
CHECK_S: Final = 5.0
"""How long a component's start waits for its storage to say what is wrong with it."""
KINDS: Final = ("simulator", "connector", "raw-archiver", "normalized-archiver", "projector", "gateway", "worker")


@dataclass(frozen=True)
class Parts:
    """What every component is made of. `stack` closes what was opened, in reverse order, when the component is done."""

    environment: ResolvedEnvironment
    variables: Mapping[str, str]
    clock: Clock
    random: RandomBytes
    stack: AsyncExitStack

    def crash_point(self, component: str) -> CrashPoint | None:
        """The hook of a process that may be killed on purpose (SSMD_CRASH_POINTS); None = of one that may not."""
        directory = self.variables.get("SSMD_CRASH_POINTS", "")
        return ArmedCrash(Path(directory), component) if directory else None


async def build(kind: str, parts: Parts) -> Component:
    """The component `kind` of the environment, not started.

    Raises:
        Misconfigured: no such kind, or a setting of the environment does not work.
        Unavailable: a backend it cannot begin without does not answer.
    """
    if kind not in _BUILDERS:
        raise Misconfigured(f"there is no component {kind!r}", mend=f"one of: {', '.join(KINDS)}")
    return await _BUILDERS[kind](parts)


def _capture_secrets(parts: Parts) -> tuple[str, PrivateKey | None]:
    """The key id and private key the capture signs with; ("", None) where the environment has none."""
    from ssmd.exchanges.kalshi.signing import load_private_key  # noqa: PLC0415 - a component imports what it uses

    fields = parts.environment.capture_key(parts.variables, parts.random)
    if not fields:
        return "", None
    return fields["api_key"].reveal(), load_private_key(fields["private_key"].reveal().encode())


async def _simulator(parts: Parts) -> Component:
    from ssmd.exchanges.kalshi.signing import public_pem  # noqa: PLC0415 - a component imports what it uses
    from ssmd.services.simulator.config import SimulatorConfig  # noqa: PLC0415 - as above
    from ssmd.services.simulator.simulator import Simulator  # noqa: PLC0415 - as above

    environment = parts.environment
    settings = environment.document.capture.simulator
    key_id, private_key = _capture_secrets(parts)
    running = environment.run.endpoints.simulator_rest if environment.run is not None else ""
    config = SimulatorConfig(
        port=urlsplit(running).port or settings.port if running else settings.port,
        capture=settings.capture,
        speed=settings.speed,
        seed=settings.seed,
        markets=settings.markets,
        rate=settings.rate,
        start_paused=settings.start_paused,
        public_keys={key_id: public_pem(private_key).decode()} if private_key is not None else {},
        require_auth=private_key is not None,
    )
    return Simulator(config, parts.clock)


async def _connector(parts: Parts) -> Component:
    from ssmd.services.connector.kalshi_venue import KalshiAccess  # noqa: PLC0415 - a component imports what it uses
    from ssmd.services.connector.service import ConnectorService  # noqa: PLC0415 - as above
    from ssmd.services.connector.settings import ConnectorSettings  # noqa: PLC0415 - as above
    from ssmd.streams.journal_nats import NatsJournal  # noqa: PLC0415 - as above
    from ssmd.streams.transport_nats import NatsTransport  # noqa: PLC0415 - as above
    from ssmd.wiring.capture import COMMANDS_S, capture_group, shard_part, tape_of  # noqa: PLC0415 - as above
    from ssmd.wiring.venue_key import watched_key  # noqa: PLC0415 - as above

    environment, variables = parts.environment, parts.variables
    document = environment.document
    part = shard_part(document, variables)
    await refuse_second_connector(document.feed, part.connection, _answers(parts, "connector", within_s=1.0))
    capture, endpoint = document.capture, environment.endpoint
    access = KalshiAccess(
        rest_url=endpoint.rest,
        websocket_url=endpoint.websocket,
        ask_key=await watched_key(environment, variables, parts.random, parts.stack),
        channels=capture.channels,
        tickers=capture.tickers,
        tickers_max=capture.tickers_max,
        clock=parts.clock,
    )
    # Both connect when first used: a capture begins whether or not the servers are there.
    transport = (
        NatsTransport(environment.server_url("transport", variables), environment.name, parts.random)
        if document.transport.backend == "nats"
        else await open_transport(environment, variables)
    )
    parts.stack.push_async_callback(transport.close)
    journal = (
        NatsJournal(environment.server_url("journal", variables), environment.name)
        if document.journal.backend == "nats"
        else await open_journal(environment, variables)
    )
    parts.stack.push_async_callback(journal.close)
    snapshots = open_snapshots(environment, variables)
    parts.stack.push_async_callback(snapshots.close)
    tape = document.tape
    application = Application(journal, CATALOGUE, parts.clock, parts.random, environment.config, snapshots)
    settings = ConnectorSettings(
        block_ms=tape.block_ms,
        block_bytes=tape.block_bytes,
        fsync_ms=tape.fsync_ms,
        file_bytes=tape.file_bytes,
        bytes_max=tape.bytes_max,
        zone=document.timezone,
        config=environment.config,
    )

    def member(connection: str, venue: Venue) -> ConnectorService:
        return ConnectorService(
            venue,
            environment.name,
            connection,
            tape_of(environment.directory, connection),
            transport,
            application,
            parts.clock,
            parts.random,
            settings,
            crash_point=parts.crash_point("connector"),
        )

    venue = access.venue(document.feed, environment.feed_version.wire)
    commands_s = min(COMMANDS_S, environment.feed_version.rate_limits.websocket_commands_per_second or COMMANDS_S)
    return capture_group(document, part, replace(venue, commands_s=commands_s), access.listing(), member, parts.random)


async def _raw_archiver(parts: Parts) -> Component:
    from ssmd.services.raw_archiver import RawArchiver  # noqa: PLC0415 - a component imports what it uses

    return RawArchiver(parts.environment.name, parts.environment.document.feed, **await _archiver(parts, "raw-archiver"))


async def _normalized_archiver(parts: Parts) -> Component:
    from ssmd.services.normalized_archiver import NormalizedArchiver  # noqa: PLC0415 - a component imports what it uses

    environment = parts.environment
    return NormalizedArchiver(environment.name, environment.document.feed, **await _archiver(parts, "normalized-archiver"))


class _ArchiverParts(TypedDict):
    instance: str
    transport: Transport
    storage: Storage
    application: Application
    clock: Clock
    random: RandomBytes
    spool: Path
    settings: ArchiveSettings
    zone: str
    crash_point: CrashPoint
    is_alive: Ask | None


async def _archiver(parts: Parts, component: str) -> _ArchiverParts:
    """What both archivers are made of."""
    environment = parts.environment
    answers = _answers(parts, component)
    given = parts.variables.get("SSMD_INSTANCE", "")
    instance, spool = await claim_archiver(component, given, environment.directory / "spool", answers, parts.stack)
    transport = await open_transport(environment, parts.variables)
    parts.stack.push_async_callback(transport.close)
    journal = await open_journal(environment, parts.variables)
    parts.stack.push_async_callback(journal.close)
    snapshots = open_snapshots(environment, parts.variables)
    parts.stack.push_async_callback(snapshots.close)
    storage = await _checked_storage(parts, component)
    return {
        "instance": instance,
        "transport": transport,
        "storage": storage,
        "application": Application(journal, CATALOGUE, parts.clock, parts.random, environment.config, snapshots),
        "clock": parts.clock,
        "random": parts.random,
        "spool": spool,
        "settings": environment.document.archive,
        "zone": environment.document.timezone,
        "crash_point": parts.crash_point(component) or no_crash,
        "is_alive": answers,
    }


async def _checked_storage(parts: Parts, component: str) -> Storage:
    """The storage of those who write to it. One that is away is waited for by them: what it lacks is on the stream.

    Raises:
        Misconfigured: as `open_storage` and `Storage.check`.
    """
    storage = open_storage(parts.environment, parts.variables)
    parts.stack.push_async_callback(storage.close)
    try:
        async with asyncio.timeout(CHECK_S):
            await storage.check()
    except (Unavailable, TimeoutError) as error:
        reason = str(error) or f"no answer within {CHECK_S:g} s"
        structlog.get_logger().warning("storage-is-away", component=component, reason=reason)
    return storage


def _answers(parts: Parts, component: str, *, within_s: float = 2 * ALIVE_TIMEOUT_S) -> Ask | None:
    """How to ask whether an instance of `component` answers; None = there is no server to ask over."""
    if parts.environment.document.transport.backend != "nats":
        return None
    from ssmd.streams.control import ControlClient  # noqa: PLC0415 - a component imports what it uses

    async def ask(instance: str) -> bool:
        try:
            url = parts.environment.server_url("transport", parts.variables)
            async with asyncio.timeout(within_s):
                client = await ControlClient.open(url, parts.environment.name)
                try:
                    await client.request(component, instance, "health", ALIVE_TIMEOUT_S)
                finally:
                    await client.close()
        except (Unavailable, TimeoutError):
            return False
        return True

    return ask


async def _projector(parts: Parts) -> Component:
    from ssmd.projections.manifest_sink import ManifestSink  # noqa: PLC0415 - a component imports what it uses
    from ssmd.services.anchoring import Anchoring  # noqa: PLC0415 - as above
    from ssmd.services.projection_record import ProjectionRecord  # noqa: PLC0415 - as above
    from ssmd.services.projector import ProjectorService  # noqa: PLC0415 - as above
    from ssmd.services.standing import StandingProjector  # noqa: PLC0415 - as above

    environment = parts.environment
    journal = await open_journal(environment, parts.variables)
    parts.stack.push_async_callback(journal.close)
    store = open_rows_store(environment, parts.variables, parts.random)
    parts.stack.push_async_callback(store.close)
    storage = open_storage(environment, parts.variables)
    parts.stack.push_async_callback(storage.close)
    application = Application(journal, CATALOGUE, parts.clock, parts.random, environment.config)
    projector = ProjectorService(
        journal,
        store,
        ManifestSink(store, storage),
        random=parts.random,
        crash_point=parts.crash_point("projector") or no_crash,
        record=ProjectionRecord(application, "projector:main"),
        anchoring=Anchoring(environment.name, journal, storage, parts.clock),
    )
    document = environment.document
    return StandingProjector(projector, store, application, parts.clock, feed=document.feed, zone=document.timezone)


async def _gateway(parts: Parts) -> Component:
    from ssmd.gateway.app import GatewayService, Surroundings  # noqa: PLC0415 - a component imports what it uses
    from ssmd.streams.journal_nats import NatsJournal  # noqa: PLC0415 - as above

    environment = parts.environment
    transport = await open_transport(environment, parts.variables)
    parts.stack.push_async_callback(transport.close)
    document = environment.document
    settings = document.gateway
    running = environment.run.endpoints.gateway_url if environment.run is not None else ""
    # Connects when first used: live data needs no journal.
    journal = (
        NatsJournal(environment.server_url("journal", parts.variables), environment.name)
        if document.journal.backend == "nats"
        else await open_journal(environment, parts.variables)
    )
    parts.stack.push_async_callback(journal.close)
    return GatewayService(
        transport,
        env=environment.name,
        feed=document.feed,
        host=settings.host,
        port=urlsplit(running).port or settings.port if running else settings.port,
        clock=parts.clock,
        around=Surroundings(
            journal=None if settings.auth == "dev" else journal,
            views=await _views(parts, journal),
            listings=journal,
            past=_past_books(parts),
            origins=settings.cors_origins,
            tls=tls_files(environment),
            checkpoint=environment.directory / "gateway" / "main.sqlite" if document.transport.backend == "nats" else None,
        ),
    )


async def _worker(parts: Parts) -> Component:
    from ssmd.services.together import Together  # noqa: PLC0415 - a component imports what it uses
    from ssmd.wiring.secmaster import lifecycle_follower  # noqa: PLC0415 - as above
    from ssmd.wiring.worker import worker_service  # noqa: PLC0415 - as above

    worker = worker_service(parts.environment, parts.variables, parts.clock, parts.random)
    environment = replace(parts.environment, role="worker")
    follower = await lifecycle_follower(environment, parts.variables, parts.clock, parts.random, parts.stack)
    return worker if follower is None else Together(worker, follower, "secmaster_")


def _past_books(parts: Parts) -> PastBooks:
    from ssmd.clock import DayCalendar  # noqa: PLC0415 - a component imports what it uses
    from ssmd.gateway.past_books import PastBooks  # noqa: PLC0415 - as above

    environment, document = parts.environment, parts.environment.document
    storage = open_storage(environment, parts.variables)
    parts.stack.push_async_callback(storage.close)
    return PastBooks(storage, environment.name, document.feed, DayCalendar(document.timezone))


def tls_files(environment: ResolvedEnvironment) -> TlsFiles | None:
    """The gateway's certificate and key; None = it serves plain.

    Raises:
        Misconfigured: one is given without the other.
    """
    from ssmd.gateway.server import TlsFiles  # noqa: PLC0415 - a component imports what it uses

    settings, root = environment.document.gateway, environment.workspace.root
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise Misconfigured(
            f"gateway.tls_certificate and gateway.tls_key of {environment.name} belong together: one is missing",
            mend=f"set both, or none, in exchanges/environments/{environment.name}.yaml",
        )
    return TlsFiles(root / settings.tls_certificate, root / settings.tls_key) if settings.tls_key else None


async def _views(parts: Parts, journal: Journal) -> OpenViews:
    """Views as fresh as the journal, from the cache where there is one."""
    from ssmd.projections.views import Views, freshest_views  # noqa: PLC0415 - a component imports what it uses

    environment = parts.environment
    store = None
    if environment.document.cache.backend == "redis":
        store = open_rows_store(environment, parts.variables, parts.random)
        parts.stack.push_async_callback(store.close)

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Views]:
        yield await freshest_views(store, journal)

    return opened


_BUILDERS: Final[Mapping[str, Callable[[Parts], Awaitable[Component]]]] = {
    "simulator": _simulator,
    "connector": _connector,
    "raw-archiver": _raw_archiver,
    "normalized-archiver": _normalized_archiver,
    "projector": _projector,
    "gateway": _gateway,
    "worker": _worker,
}
