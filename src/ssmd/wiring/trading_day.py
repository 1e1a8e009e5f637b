"""How a trading day is started, ended, rolled, recovered, and ended by force: `day_steps`, in order.

Plain async functions that may be called again after any failure: what is done stays done, what is not is done then.
Who asks second while somebody else is at it is refused, and told who; where that one is gone, the second goes on.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import zoneinfo
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from ssmd import __version__
from ssmd.application.handler import Application
from ssmd.clock import Clock, date_of, iso_of
from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.domain.trading_day import (
    PHASE_OF,
    ActivateDay,
    CompleteDay,
    EndDay,
    FailDay,
    ForceEndDay,
    Phase,
    RecoverDay,
    StartDay,
)
from ssmd.errors import Rejected, SsmdError
from ssmd.identifiers import RandomBytes, uuid7
from ssmd.projections.views import Views, freshest_views
from ssmd.services.ended_tasks import end_tasks
from ssmd.streams.control import ControlClient, ControlServer
from ssmd.telemetry.request import current as at_hand
from ssmd.wiring.backends import open_journal, open_rows_store
from ssmd.wiring.day_steps import (
    ARCHIVERS,
    ComponentName,
    DayProcedure,
    decide_day,
    do_step,
    health_of,
    steps_of,
    totals_of,
)
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.gap_repair import repair_of
from ssmd.wiring.schedules import has_temporal

AT_WORK: Final = "day"
"""As this component, under its request's id, whoever works on a day answers health."""
WORKER: Final = ComponentName("worker", "main")
AT_WORK_WITHIN_S: Final = 1.0
"""Who began a moment ago may not answer yet."""
POLL_S: Final = 0.2
_ASKED_BY: Final = frozenset({"trading-day.start-requested.v1", "trading-day.end-requested.v1", "trading-day.recovered.v1"})
_PHASE_IN: Final[dict[str, Phase]] = {status: phase for phase, status in PHASE_OF.items()}


def connectors_of(environment: ResolvedEnvironment) -> tuple[ComponentName, ...]:
    """Its connectors: one for each shard, but under `ssmd up`, where one process has all of it."""
    document = environment.document
    shards = document.shards if environment.run is None else ()
    connection = document.capture.connection
    return tuple(ComponentName("connector", f"{connection}-{name}") for name in shards) or (
        ComponentName("connector", connection),
    )


def components_of(environment: ResolvedEnvironment) -> tuple[ComponentName, ...]:
    """The components that capture, store and serve an environment."""
    return (
        ComponentName("projector", "main"),
        *(ComponentName(name, "main") for name in ARCHIVERS),
        *connectors_of(environment),
        ComponentName("gateway", "main"),
    )


def today_in(timezone: str, clock: Clock) -> str:
    """The calendar date now in the environment's zone."""
    if timezone == "UTC":
        return date_of(clock.now_ns())
    moment = dt.datetime.fromtimestamp(clock.now_ns() // 1_000_000_000, tz=zoneinfo.ZoneInfo(timezone))
    return moment.date().isoformat()


def before(date: str) -> str:
    """The calendar date before `date`."""
    return (dt.date.fromisoformat(date) - dt.timedelta(days=1)).isoformat()


def refuse_date(phase: Phase, date: str, today: str, *, is_forced: bool, reason: str) -> None:
    """The rule for what people ask for; a schedule asks for the date of its own time, however late.

    Today may be started; today and yesterday may be ended (a day's end comes after its midnight). With force and a reason
    yesterday may be started, and any past day ended. Tomorrow is nobody's.

    Raises:
        Rejected: which rule says no.
    """
    if date > today:
        raise Rejected("day-in-the-future", f"trading day {date} has not come: today is {today}", mend=f"ssmd day {phase}")
    if is_forced and not reason.strip():
        raise Rejected("no-reason", "force needs a reason, for the history", mend="--reason TEXT")
    first = today if phase == "start" else before(today)
    if is_forced:
        first = before(today) if phase == "start" else ""
    if date < first:
        rest = "" if is_forced else ", with --force and a reason "
        allowed = f"{first or 'any past day'}{rest + (before(today) if phase == 'start' else 'any past day') if rest else ''}"
        raise Rejected(
            "day-in-the-past",
            f"trading day {date} is over: today is {today}; what may be {phase}ed by hand is {allowed}",
            mend=f"ssmd day show --date {date}",
        )


async def start_day(procedure: DayProcedure, date: str, reason: str = "") -> trading_day.State:
    """Start the day `date`: every component healthy, then active. The day's state afterwards.

    Raises:
        Rejected: the day cannot be started, or somebody else is starting it.
        Unavailable: a component is not healthy in time (journaled as the day's error), or the journal is away.
    """
    return await _go(procedure, "start", date, await begin(procedure, date, StartDay(date, reason)))


async def end_day(procedure: DayProcedure, date: str, reason: str = "") -> trading_day.State:
    """End the day `date`: all that is captured by now is published, sealed and projected, then the totals.

    The capture goes on meanwhile; a connector that does not run has nothing to be waited for.

    Returns:
        the day's state afterwards.

    Raises:
        Rejected: the day cannot be ended, or somebody else is ending it.
        Unavailable: a component is not done in time (journaled as the day's error).
    """
    return await _go(procedure, "end", date, await begin(procedure, date, EndDay(date, reason)))


async def roll_day(procedure: DayProcedure, date: str, reason: str = "") -> trading_day.State:
    """End the day before `date` where it is still on, then start `date`. Raises as both."""
    state = await procedure.application.state(trading_day.DECIDER, (before(date),))
    if state.status in {"active", "ending", "error"}:
        await end_day(procedure, before(date), reason)
    return await start_day(procedure, date, reason)


async def recover_day(procedure: DayProcedure, date: str, reason: str = "") -> trading_day.State:
    """Go on with the day where an error, a failure or a dead process left it. Raises as `start_day` and `end_day`."""
    state = await begin(procedure, date, RecoverDay(reason))
    phase = _PHASE_IN.get(state.status)
    return state if phase is None else await _go(procedure, phase, date, state)


async def force_end_day(procedure: DayProcedure, date: str, reason: str) -> trading_day.State:
    """End the day without its steps: nobody is asked, and its totals stay unknown. Raises Rejected."""
    if not reason.strip():
        raise Rejected("no-reason", "an end by force needs a reason, for the history", mend="--reason TEXT")
    state = await decide_day(procedure, date, ForceEndDay(reason))
    procedure.say(f"trading day {date} is {state.status}")
    return state


async def begin(procedure: DayProcedure, date: str, command: StartDay | EndDay | RecoverDay) -> trading_day.State:
    """Ask for a phase of the day; where it is in "starting" or "ending" then, its steps are the caller's to do.

    Raises:
        Rejected: a rule says no, or "day-at-work": somebody else does it now; the message says who.
    """
    handled = await procedure.application.handle(
        trading_day.DECIDER, (date,), command, actor=procedure.actor, correlation_id=procedure.correlation_id
    )
    if handled.state.status in _PHASE_IN and not handled.events:
        asked = await _asked_by(procedure, date)
        if asked is not None and asked.correlation_id != procedure.correlation_id and await _is_at_work(procedure, asked):
            doing = handled.state.status
            raise Rejected(
                "day-at-work",
                f"trading day {date} is {doing} already: {asked.actor} asked for it at {iso_of(asked.ts_ns)} "
                f"(request {asked.correlation_id})",
                mend=f"ssmd day status --date {date} --follow",
            )
    return handled.state


async def _asked_by(procedure: DayProcedure, date: str) -> Envelope | None:
    """The event that began what the day is in now."""
    events = await procedure.application.journal.load(AggregateId(trading_day.AGGREGATE, (date,)))
    return next((one.envelope for one in reversed(events) if one.envelope.type in _ASKED_BY), None)


async def _is_at_work(procedure: DayProcedure, asked: Envelope) -> bool:
    """Whether whoever asked still lives. Temporal sees to its workflows (their requests are named by a path); where there is
    none any more, one is at work if a worker is.
    """
    is_workflow = "/" in asked.correlation_id
    if is_workflow and procedure.has_workflows:
        return True
    who = WORKER if is_workflow else ComponentName(AT_WORK, asked.correlation_id)
    try:
        async with asyncio.timeout(AT_WORK_WITHIN_S):
            while await health_of(procedure.control, who) is None:  # noqa: ASYNC110 - another process says it
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return False
    return True


async def _go(procedure: DayProcedure, phase: Phase, date: str, state: trading_day.State) -> trading_day.State:
    """Do the steps of a phase that was begun; an error in them is the day's."""
    if state.status != PHASE_OF[phase]:
        procedure.say(f"trading day {date} is {state.status} already")
        return state
    async with _Attempt(procedure, date):
        for step in steps_of(procedure, phase):
            await do_step(procedure, phase, date, step)
        state = await finish(procedure, phase, date)
    procedure.say(f"trading day {date} is {state.status}")
    return state


async def finish(procedure: DayProcedure, phase: Phase, date: str) -> trading_day.State:
    """Call the phase done, its steps being so."""
    if phase == "start":
        return await decide_day(procedure, date, ActivateDay())
    state = await procedure.application.state(trading_day.DECIDER, (date,))
    if state.status == "complete":
        return state  # the totals stand, whatever was captured since
    try:
        return await decide_day(procedure, date, CompleteDay(await totals_of(await procedure.views(), procedure.feed, date)))
    except Rejected as error:
        if error.rule != "day-already-complete":
            raise
        # Another try of the same, taken for dead, was done a moment ago, with totals of its moment.
        return await procedure.application.state(trading_day.DECIDER, (date,))


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
            await decide_day(self._procedure, self._date, FailDay(error.message))
        except SsmdError as second:
            error.add_note(f"and the day's error could not be journaled: {second.message}")


@asynccontextmanager
async def day_procedure(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    *,
    clock: Clock,
    random: RandomBytes,
    actor: str,
    say: Callable[[str], None],
    is_whole: bool = False,
    request: str = "",
) -> AsyncGenerator[DayProcedure]:
    """The procedure for a running environment, with its connections open.

    Args:
        is_whole: with the security master's sync at the start, and the archive read at the end.
        request: correlation id; default: that of the request at hand, and while the block runs its health can be asked.

    Raises:
        Unavailable: the environment does not run, or a server of it does not answer.
    """
    async with AsyncExitStack() as stack:
        journal = await open_journal(environment, variables)
        stack.push_async_callback(journal.close)
        url = environment.server_url("transport", variables)
        control = await ControlClient.open(url, environment.name)
        stack.push_async_callback(control.close)
        store = open_rows_store(environment, variables, random) if environment.document.cache.backend == "redis" else None
        if store is not None:
            stack.push_async_callback(store.close)
        request_id = request or at_hand() or uuid7(clock.now_ns(), random)
        if not request:
            server = ControlServer(
                url, environment.name, AT_WORK, request_id, {"health": _well}, version=__version__, random=random
            )
            answering = asyncio.create_task(server.run(), name="day at work")
            stack.push_async_callback(end_tasks, [answering])

        async def views() -> Views:
            return await freshest_views(store, journal)

        procedure = DayProcedure(
            feed=environment.document.feed,
            application=Application(journal, CATALOGUE, clock, random, environment.config),
            control=control,
            components=components_of(environment),
            views=views,
            say=say,
            actor=actor,
            correlation_id=request_id,
            has_workflows=has_temporal(environment),
        )
        if is_whole:
            from ssmd.wiring.day_duties import sync_of, verify_of  # noqa: PLC0415 - much that a lean day does not need

            procedure = procedure._replace(
                sync=sync_of(environment, variables, clock, random, actor),
                verify=verify_of(environment, variables, journal),
                repair=repair_of(environment.document, connectors_of(environment), control),
            )
        yield procedure


async def _well() -> Mapping[str, Any]:
    return {"ok": True, "reason": ""}
