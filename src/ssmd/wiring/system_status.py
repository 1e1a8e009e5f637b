"""The whole of one environment at a moment: who answers, how far each is, the day, what is missing, what needs a hand.

Every part is asked by itself and within a deadline: what cannot be asked is told as such, and the rest still answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final, Literal

import msgspec

from ssmd.clock import Clock
from ssmd.errors import SsmdError, Unavailable
from ssmd.keys.expiry import findings
from ssmd.projections import access, captures, days, gaps, queries, troubles
from ssmd.projections.captures import Connection as CapturedConnection
from ssmd.projections.days import Day
from ssmd.projections.queries import GapLine
from ssmd.projections.views import PROJECTIONS, Views
from ssmd.streams.connection import Connection
from ssmd.streams.control import ControlClient, RunningService
from ssmd.streams.server_urls import redacted
from ssmd.wiring.backends import open_rows_store
from ssmd.wiring.day_steps import ComponentName
from ssmd.wiring.environment import ResolvedEnvironment, Server
from ssmd.wiring.schedules import has_temporal
from ssmd.wiring.trading_day import components_of, today_in
from ssmd.wiring.views import asking_views

ROLL_CALL_S: Final = 0.5
ASK_TIMEOUT_S: Final = 2.0
SERVER_TIMEOUT_S: Final = 2.0
LAG_MAX_EVENTS: Final = 1_000
"""A projector further behind than that is an alert."""
CAUSES_TOLD_MAX: Final = 5

State = Literal["ok", "trouble", "standby", "missing"]
_VIEWS: Final = frozenset({days.NAME, captures.NAME, gaps.NAME, access.KEYS_NAME, troubles.DEAD_LETTERS_NAME})


class ServerLine(msgspec.Struct, frozen=True):
    """A server the environment needs. `url` without credentials, "" = it is embedded and does not run."""

    name: str
    url: str
    ok: bool
    reason: str = ""


class ServiceLine(msgspec.Struct, frozen=True):
    """A component and its own word on itself.

    `state` "standby": it waits to take over; "missing": the environment needs it and nobody answers under that name.
    """

    component: str
    instance: str
    state: State
    reason: str = ""
    version: str = ""
    stats: dict[str, int | str] = {}


class SystemStatus(msgspec.Struct, frozen=True):
    """One environment at `at_ns`.

    Attributes:
        day: today's in the environment's zone; None = the journal could not be asked.
        connections: those the journal knows; gaps_open: holes that have not ended.
        dead_letters: that wait for a decision.
        alerts: what needs a hand, worst first, each a sentence.
        unknown: what could not be asked, and why.
    """

    env: str
    feed: str
    at_ns: int
    is_run_here: bool
    servers: tuple[ServerLine, ...] = ()
    services: tuple[ServiceLine, ...] = ()
    day: Day | None = None
    connections: tuple[CapturedConnection, ...] = ()
    gaps_open: tuple[GapLine, ...] = ()
    dead_letters: int = 0
    alerts: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


async def system_status(environment: ResolvedEnvironment, variables: Mapping[str, str], clock: Clock) -> SystemStatus:
    """See the module. Raises nothing an environment's trouble could cause: that is in the answer."""
    servers, (services, no_services), (views, no_views) = await asyncio.gather(
        _servers(environment, variables), _services(environment, variables), _views(environment, variables, clock)
    )
    status = msgspec.structs.replace(
        views,
        servers=servers,
        services=services,
        unknown=(*(one for one in (no_services, no_views) if one), *views.unknown),
    )
    return msgspec.structs.replace(status, alerts=(*alerts_of(status), *views.alerts))


async def _servers(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> tuple[ServerLine, ...]:
    document = environment.document
    lines = []
    if document.transport.backend == "nats":
        lines.append(_nats_server(environment, variables, "transport"))
    if document.journal.backend == "nats":
        lines.append(_nats_server(environment, variables, "journal"))
    if document.cache.backend == "redis":
        lines.append(_cache_server(environment, variables))
    if has_temporal(environment):
        lines.append(_temporal_server(environment, variables))
    return tuple(await asyncio.gather(*lines))


async def _nats_server(environment: ResolvedEnvironment, variables: Mapping[str, str], name: Server) -> ServerLine:
    url = ""
    try:
        url = environment.server_url(name, variables)
        connection = await Connection.open(url, name=f"ssmd {environment.name} status", timeout_s=SERVER_TIMEOUT_S)
    except SsmdError as error:
        return ServerLine(name, redacted(url) if url else "", ok=False, reason=error.message)
    await connection.close()
    return ServerLine(name, redacted(url), ok=True)


async def _cache_server(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> ServerLine:
    url = ""
    try:
        url = environment.server_url("cache", variables)
        store = open_rows_store(environment, variables)
        try:
            async with asyncio.timeout(SERVER_TIMEOUT_S):
                await store.current(PROJECTIONS[0].name)
        finally:
            await store.close()
    except TimeoutError:
        return ServerLine("cache", redacted(url), ok=False, reason=f"no answer within {SERVER_TIMEOUT_S:g} s")
    except SsmdError as error:
        return ServerLine("cache", redacted(url) if url else "", ok=False, reason=error.message)
    return ServerLine("cache", redacted(url), ok=True)


async def _temporal_server(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> ServerLine:
    from ssmd.workflows.connection import connect  # noqa: PLC0415 - temporalio is imported where it is used

    url = ""
    try:
        url = environment.server_url("temporal", variables)
        async with asyncio.timeout(SERVER_TIMEOUT_S):
            await connect(url, environment.document.temporal.namespace)
    except TimeoutError:
        return ServerLine("temporal", redacted(url), ok=False, reason=f"no answer within {SERVER_TIMEOUT_S:g} s")
    except SsmdError as error:
        return ServerLine("temporal", redacted(url) if url else "", ok=False, reason=error.message)
    return ServerLine("temporal", redacted(url), ok=True)


async def _services(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> tuple[tuple[ServiceLine, ...], str]:
    """The components, and why they could not be asked, "" = they could."""
    # Where there is no Temporal, nobody needs a worker.
    wanted = components_of(environment) + ((ComponentName("worker", "main"),) if has_temporal(environment) else ())
    if environment.document.transport.backend != "nats":
        return (), "the components answer over NATS, and the transport is in memory"
    async with AsyncExitStack() as stack:
        try:
            client = await ControlClient.open(environment.server_url("transport", variables), environment.name)
            stack.push_async_callback(client.close)
            # Nobody knows how many stand by: the whole wait is waited.
            running = await client.roll_call(ROLL_CALL_S)
        except SsmdError as error:
            missing = tuple(ServiceLine(*name, state="missing", reason="the transport server is away") for name in wanted)
            return missing, f"components were not asked: {error.message}"
        lines = await asyncio.gather(*(_service(client, one) for one in running))
    names = {(one.component, one.instance) for one in running}
    held = {one.component for one in lines if one.state != "standby"}
    missing = tuple(
        # An archiver that took over from the one named in the environment does its work under its own name.
        ServiceLine(*name, state="missing", reason="it does not answer")
        for name in wanted
        if name not in names and (name.component not in held or name.component == "connector")
    )
    order = {name.component: at for at, name in enumerate(wanted)}
    return tuple(sorted((*lines, *missing), key=lambda one: (order.get(one.component, 99), one.instance))), ""


async def _service(client: ControlClient, service: RunningService) -> ServiceLine:
    try:
        health = await client.request(service.component, service.instance, "health", ASK_TIMEOUT_S)
    except Unavailable as error:
        return ServiceLine(service.component, service.instance, "trouble", error.message, service.version)
    stats = health.get("stats") or {}
    is_standing_by = bool(stats.get("stands_by_for") or stats.get("standing_by"))
    state: State = "trouble" if not health.get("ok") else "standby" if is_standing_by else "ok"
    return ServiceLine(service.component, service.instance, state, str(health.get("reason") or ""), service.version, stats)


async def _views(environment: ResolvedEnvironment, variables: Mapping[str, str], clock: Clock) -> tuple[SystemStatus, str]:
    """The status as far as the journal knows it (with alerts only it can tell), and why it could not be asked."""
    document = environment.document
    status = SystemStatus(environment.name, document.feed, clock.now_ns(), is_run_here=environment.run is not None)
    wanted = [one for one in PROJECTIONS if one.name in _VIEWS]
    try:
        async with asking_views(environment, variables, projections=wanted) as views:
            return await _of_views(views, status, today_in(document.timezone, clock)), ""
    except SsmdError as error:
        return status, f"the journal was not asked: {error.message}"


async def _of_views(views: Views, status: SystemStatus, today: str) -> SystemStatus:
    found = await queries.gaps(views, status.feed)
    letters = await queries.dead_letters(views)
    return msgspec.structs.replace(
        status,
        day=await queries.day_status(views, today),
        connections=tuple(line.connection for line in await queries.captures(views, status.feed)),
        gaps_open=tuple(gap for gap in found if gap.end_ns is None),
        dead_letters=len(letters),
        alerts=tuple(
            # Rotation that is due can wait for a quiet hour: `ssmd key list` tells it.
            found.words
            for row in await queries.keys(views)
            for found in findings(row, 0, status.at_ns)
        ),
        unknown=views.warnings(),
    )


def alerts_of(status: SystemStatus) -> list[str]:
    """What needs a hand, worst first; of an environment that does not run, only what its journal says."""
    is_on = status.is_run_here or any(one.state != "missing" for one in status.services)
    alerts = []
    if is_on:
        alerts += [f"server {one.name} does not answer: {one.reason}" for one in status.servers if not one.ok]
        alerts += [
            f"{one.component} {one.instance} {'is missing' if one.state == 'missing' else 'is in trouble'}: {one.reason}"
            for one in status.services
            if one.state in {"missing", "trouble"}
        ]
        alerts += [
            f"connection {one.connection} is not connected: {one.cause or 'never was'}"
            for one in status.connections
            if not one.is_connected
        ]
        alerts += [
            f"{one.component} {one.instance} is {lag} events behind"
            for one in status.services
            if isinstance(lag := one.stats.get("lag", 0), int) and lag > LAG_MAX_EVENTS
        ]
    if status.day is not None and status.day.status in {"error", "failed"}:
        alerts.append(f"trading day {status.day.date}: {status.day.error or status.day.status}: ssmd day history")
    if status.gaps_open:
        causes = ", ".join(sorted({gap.cause for gap in status.gaps_open})[:CAUSES_TOLD_MAX])
        alerts.append(f"{len(status.gaps_open)} gaps are open ({causes}): ssmd data gaps")
    if status.dead_letters:
        alerts.append(f"{status.dead_letters} dead letters wait: ssmd dlq list")
    return alerts
