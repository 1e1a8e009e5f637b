"""How a trading day is started and ended: the steps, in order, each journaled when it is done.

Plain async functions that may be called again after any failure: what is done stays done, what is not is done then.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import zoneinfo
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, NamedTuple, Protocol

from ssmd.application.handler import Application
from ssmd.clock import Clock, date_of
from ssmd.domain import archive, trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.trading_day import ActivateDay, CompleteDay, DayCommand, EndDay, FailDay, Phase, RecordStep, StartDay, Totals
from ssmd.errors import SsmdError, Unavailable
from ssmd.identifiers import RandomBytes, uuid7
from ssmd.projections import queries
from ssmd.projections.views import Views, freshest_views
from ssmd.registry.documents import EnvironmentDocument
from ssmd.services.archive_positions import load_positions
from ssmd.services.standby import holder_of
from ssmd.streams.control import ControlClient
from ssmd.wiring.backends import open_journal, open_rows_store
from ssmd.wiring.environment import ResolvedEnvironment

HEALTHY_WITHIN_S: Final = 30.0
FLUSHED_WITHIN_S: Final = 120.0
POLL_S: Final = 0.2
ASK_TIMEOUT_S: Final = 5.0

ARCHIVERS: Final = ("raw-archiver", "normalized-archiver")
CONNECTORS: Final = ("connector",)
PROJECTORS: Final = ("projector",)
FLUSHES: Final = (
    (CONNECTORS, "published what it captured"),
    (ARCHIVERS, "sealed what it held"),
    (PROJECTORS, "caught up with the journal"),
)


class ComponentName(NamedTuple):
    """A component as its control subjects name it."""

    component: str
    instance: str

    def __str__(self) -> str:
        return f"{self.component} {self.instance}"


class Control(Protocol):
    """Asks running components (`streams.control.ControlClient`)."""

    async def request(self, component: str, instance: str, verb: str, timeout_s: float) -> Mapping[str, Any]:
        """The component's answer: {"ok": bool, "reason": str, ...}.

        Raises:
            Unavailable: none within `timeout_s`.
        """
        ...


class DayProcedure(NamedTuple):
    """What starting and ending a day need.

    Attributes:
        feed: whose data the day's totals count.
        components: that must be healthy before the day is active.
        views: opens the views as fresh as the journal.
        say: told each step when it is done.
        actor, correlation_id: of every event written.
    """

    feed: str
    application: Application
    control: Control
    components: Sequence[ComponentName]
    views: Callable[[], Awaitable[Views]]
    say: Callable[[str], None]
    actor: str
    correlation_id: str


def components_of(environment: EnvironmentDocument) -> tuple[ComponentName, ...]:
    """The components that capture, store and serve an environment."""
    connection = environment.capture.connection
    return (
        ComponentName("projector", "main"),
        *(ComponentName(name, "main") for name in ARCHIVERS),
        ComponentName("connector", connection),
        ComponentName("gateway", "main"),
    )


def today_in(timezone: str, clock: Clock) -> str:
    """The calendar date now in the environment's zone."""
    if timezone == "UTC":
        return date_of(clock.now_ns())
    moment = dt.datetime.fromtimestamp(clock.now_ns() // 1_000_000_000, tz=zoneinfo.ZoneInfo(timezone))
    return moment.date().isoformat()


async def start_day(procedure: DayProcedure, date: str, reason: str = "") -> trading_day.State:
    """Start the day `date`: every component healthy, then active. The day's state afterwards.

    Raises:
        Rejected: the day cannot be started.
        Unavailable: a component is not healthy in time (journaled as the day's error), or the journal is away.
    """
    state = await _decide(procedure, date, StartDay(date, reason))
    if state.status == "active":
        procedure.say(f"trading day {date} is active already")
        return state
    async with _Attempt(procedure, date):
        for name in procedure.components:
            detail = await _until_healthy(procedure.control, name)
            await _step(procedure, date, "start", f"{name} is healthy", detail)
    state = await _decide(procedure, date, ActivateDay())
    procedure.say(f"trading day {date} is active")
    return state


async def end_day(procedure: DayProcedure, date: str, reason: str = "") -> trading_day.State:
    """End the day `date`: all that is captured by now is published, sealed and projected, then the totals.

    The capture goes on meanwhile; a connector that does not run has nothing to be waited for.

    Returns:
        the day's state afterwards.

    Raises:
        Rejected: the day cannot be ended.
        Unavailable: a component is not done in time (journaled as the day's error).
    """
    state = await _decide(procedure, date, EndDay(date, reason))
    if state.status == "complete":
        procedure.say(f"trading day {date} is complete already")
        return state
    async with _Attempt(procedure, date):
        # The order matters: each holds what the one before it has handed on.
        for kinds, done in FLUSHES:
            if kinds == PROJECTORS:
                await _complete_partitions(procedure, date)
            for name in procedure.components:
                if name.component in kinds:
                    await _flush(procedure, date, name, done)
        totals = await totals_of(await procedure.views(), procedure.feed, date)
    state = await _decide(procedure, date, CompleteDay(totals))
    procedure.say(f"trading day {date} is complete")
    return state


async def _complete_partitions(procedure: DayProcedure, date: str) -> None:
    """Call what is sealed of the date complete. A capture that goes on opens its partition again with its next seal."""
    for line in await queries.inventory(await procedure.views(), procedure.feed, date, date):
        if line.status == "open" and line.segments:
            await procedure.application.handle(
                archive.DECIDER,
                (procedure.feed, date, line.type, line.partition),
                archive.CompletePartition("day-end"),
                actor=procedure.actor,
                correlation_id=procedure.correlation_id,
            )


async def _flush(procedure: DayProcedure, date: str, name: ComponentName, done: str) -> None:
    """Let one component hand on what it holds; the step is journaled."""
    if name.component in CONNECTORS and await _health(procedure.control, name) is None:
        await _step(procedure, date, "end", f"{name} does not run", "what it had not published is on its tape")
        return
    if name.component in ARCHIVERS:
        name = await _that_archives(procedure, name)
    answer = await procedure.control.request(*name, "flush", FLUSHED_WITHIN_S)
    if not answer.get("ok"):
        raise Unavailable(f"{name} could not flush: {_reason(answer)}", mend=f"ssmd day end --date {date}")
    await _step(procedure, date, "end", f"{name} {done}", str(answer.get("reason", "")))


async def _that_archives(procedure: DayProcedure, name: ComponentName) -> ComponentName:
    """The instance that archives now: `name`, or a standby that took over from it. A takeover is waited for.

    Raises:
        Unavailable: none does.
    """
    data_type = name.component.removesuffix("-archiver")
    try:
        async with asyncio.timeout(HEALTHY_WITHIN_S):
            while True:
                positions = await load_positions(procedure.application.journal, procedure.feed, data_type)
                for instance in dict.fromkeys((holder_of(positions) or name.instance, name.instance)):
                    asked = ComponentName(name.component, instance)
                    health = await _health(procedure.control, asked)
                    if health is not None and not health.get("stats", {}).get("stands_by_for"):
                        return asked
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise Unavailable(f"no {name.component} archives", mend="ssmd up, or see its log under .ssmd/") from None


async def _health(control: Control, name: ComponentName) -> Mapping[str, Any] | None:
    """The component's word on itself; None = it does not answer."""
    try:
        return await control.request(*name, "health", ASK_TIMEOUT_S)
    except Unavailable:
        return None


async def totals_of(views: Views, feed: str, date: str) -> Totals:
    """What the inventory of `feed` and the gaps that opened on `date` (UTC) come to."""
    records: dict[str, int] = {}
    messages = segments = size_bytes = 0
    for line in await queries.inventory(views, feed, date, date):
        segments += line.segments
        size_bytes += line.size_bytes
        if line.type == "raw":
            messages += line.records
        elif line.kind:
            records[line.kind] = records.get(line.kind, 0) + line.records
    gaps = sum(1 for gap in await queries.gaps(views, feed, date) if date_of(gap.start_ns) == date)
    return Totals(messages=messages, records=dict(sorted(records.items())), segments=segments, size_bytes=size_bytes, gaps=gaps)


def _reason(answer: Mapping[str, Any]) -> str:
    return str(answer.get("reason") or "it gave no reason")


class _Attempt:
    """A block of steps; an error in it is journaled as the day's error, and goes on to the caller."""

    def __init__(self, procedure: DayProcedure, date: str) -> None:
        self._procedure = procedure
        self._date = date

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, SsmdError):
            return
        try:
            await _decide(self._procedure, self._date, FailDay(error.message))
        except SsmdError as second:
            error.add_note(f"and the day's error could not be journaled: {second.message}")


async def _decide(procedure: DayProcedure, date: str, command: DayCommand) -> trading_day.State:
    handled = await procedure.application.handle(
        trading_day.DECIDER, (date,), command, actor=procedure.actor, correlation_id=procedure.correlation_id
    )
    return handled.state


async def _step(procedure: DayProcedure, date: str, phase: Phase, step: str, detail: str) -> None:
    await _decide(procedure, date, RecordStep(phase, step, detail))
    procedure.say(f"{step}{f' ({detail})' if detail else ''}")


async def _until_healthy(control: Control, name: ComponentName) -> str:
    """Wait until the component says that it is well; "" (what it could add is in its own health)."""
    reason = "it did not answer"
    try:
        async with asyncio.timeout(HEALTHY_WITHIN_S):
            while True:
                try:
                    health = await control.request(*name, "health", ASK_TIMEOUT_S)
                except Unavailable as error:
                    reason = error.message
                else:
                    if health.get("ok"):
                        return ""
                    reason = _reason(health)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise Unavailable(
            f"{name} was not healthy within {HEALTHY_WITHIN_S:g} s: {reason}", mend="ssmd up, or see its log under .ssmd/"
        ) from None


@asynccontextmanager
async def day_procedure(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    *,
    clock: Clock,
    random: RandomBytes,
    actor: str,
    say: Callable[[str], None],
) -> AsyncGenerator[DayProcedure]:
    """The procedure for a running environment, with its connections open.

    Raises:
        Unavailable: the environment does not run, or a server of it does not answer.
    """
    async with AsyncExitStack() as stack:
        journal = await open_journal(environment, variables)
        stack.push_async_callback(journal.close)
        control = await ControlClient.open(environment.server_url("transport", variables), environment.name)
        stack.push_async_callback(control.close)
        store = open_rows_store(environment, variables, random) if environment.document.cache.backend == "redis" else None
        if store is not None:
            stack.push_async_callback(store.close)

        async def views() -> Views:
            return await freshest_views(store, journal)

        yield DayProcedure(
            feed=environment.document.feed,
            application=Application(journal, CATALOGUE, clock, random, environment.config),
            control=control,
            components=components_of(environment.document),
            views=views,
            say=say,
            actor=actor,
            correlation_id=uuid7(clock.now_ns(), random),
        )
