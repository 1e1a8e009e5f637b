"""Component `worker`: what workflows ask for, done to one environment with the steps that one process would do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Final

from ssmd.clock import Clock, date_of
from ssmd.domain import trading_day
from ssmd.domain.trading_day import (
    PHASE_OF,
    AbandonDay,
    EndDay,
    FailDay,
    OpenDay,
    RecordLate,
    RecordMissed,
    RecoverDay,
    StartDay,
)
from ssmd.errors import Misconfigured, Rejected, SsmdError
from ssmd.identifiers import RandomBytes
from ssmd.keys import journaling
from ssmd.keys.expiry import findings
from ssmd.projections import queries
from ssmd.registry.documents import EnvironmentDocument
from ssmd.telemetry.structured import structlog
from ssmd.wiring import gap_repair
from ssmd.wiring.day_duties import sync_words
from ssmd.wiring.day_steps import DayProcedure, decide_day, do_step, hand_on, steps_of
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.gap_repair_run import repair_one
from ssmd.wiring.schedules import dates_before, due_at
from ssmd.wiring.trading_day import begin, day_procedure, finish
from ssmd.workflows.orders import Begun, DayOrder, GapName, RepairOrder, Turn, Unrepaired
from ssmd.workflows.service import WorkerService

INSTANCE: Final = "main"
MISSED_DAYS_MAX: Final = 31
_NOT_BEGUN: Final = frozenset({"pending", "missed"})

Open = Callable[[str, str], AbstractAsyncContextManager[DayProcedure]]
"""A day's procedure for an actor and a request."""


class DayWork:
    """`workflows.work.Work` of the days of one environment, whose servers `opened` reaches; without the duties beside."""

    def __init__(
        self,
        document: EnvironmentDocument,
        clock: Clock,
        opened: Open,
    ) -> None:
        self._document = document
        self._clock = clock
        self._open = opened

    async def turn(self, env: str, scheduled_ns: int) -> Turn:
        self._check(env)
        actor = f"schedule:{env}/days"
        orders = [
            DayOrder(env, due.phase, due.date, actor, "the schedule", due.due_ns, due.start_ns, due.end_ns)
            for due in due_at(self._document, scheduled_ns)
        ]
        missed: list[str] = []
        for order in orders:
            if order.phase == "start":
                async with self._open(actor, f"{env}/days") as procedure:
                    missed = await self._missed(procedure, order.date)
        return Turn(orders, missed)

    async def _missed(self, procedure: DayProcedure, date: str) -> list[str]:
        """Journal scheduled days before `date` that nothing started, back to the last day that is known, oldest first."""
        found = []
        for due in dates_before(self._document, date, MISSED_DAYS_MAX):
            state = await procedure.application.state(trading_day.DECIDER, (due.date,))
            if state.date:
                break  # it was started, opened, or called missed before
            found.append(due)
        else:
            return []  # nothing is known: the environment is new
        for due in reversed(found):
            reason = "no run of the schedule came within its catch-up window"
            await decide_day(procedure, due.date, RecordMissed(due.date, due.start_ns, reason))
        return [due.date for due in reversed(found)]

    async def begin(self, order: DayOrder, request: str) -> Begun:
        self._check(order.env)
        async with self._open(order.actor, request) as procedure:
            if order.phase == "start" and order.start_due_ns:
                await self._expect(procedure, order)
            command = (
                RecoverDay(order.reason)
                if order.is_recovery
                else StartDay(order.date, order.reason)
                if order.phase == "start"
                else EndDay(order.date, order.reason)
            )
            if order.due_ns and order.phase == "end":
                state = await procedure.application.state(trading_day.DECIDER, (order.date,))
                if state.status in _NOT_BEGUN:
                    return Begun(state.status)  # the history says that it was missed: there is nothing to end
            state = await begin(procedure, order.date, command)
            late_ns = self._document.schedule.late_minutes * 60 * 10**9
            if order.due_ns and state.status == PHASE_OF[order.phase] and self._clock.now_ns() > order.due_ns + late_ns:
                state = await decide_day(procedure, order.date, RecordLate(order.phase, order.due_ns))
            steps = list(steps_of(procedure, order.phase)) if state.status == PHASE_OF[order.phase] else []
            return Begun(state.status, steps)

    async def _expect(self, procedure: DayProcedure, order: DayOrder) -> None:
        try:
            await decide_day(procedure, order.date, OpenDay(order.date, order.start_due_ns, order.end_due_ns))
        except Rejected as error:
            # The schedule was changed since; the day's first times stand.
            structlog.get_logger("worker").warning("day-opened-before", date=order.date, reason=error.message)

    async def step(self, order: DayOrder, step: str, request: str) -> None:
        async with self._open(order.actor, request) as procedure:
            await do_step(procedure, order.phase, order.date, step)

    async def finish(self, order: DayOrder, request: str) -> str:
        async with self._open(order.actor, request) as procedure:
            return (await finish(procedure, order.phase, order.date)).status

    async def fail(self, order: DayOrder, error: str, request: str) -> None:
        async with self._open(order.actor, request) as procedure:
            state = await procedure.application.state(trading_day.DECIDER, (order.date,))
            if state.status == PHASE_OF[order.phase]:  # else it was told already, or ended by force meanwhile
                await decide_day(procedure, order.date, FailDay(error))

    async def recover(self, order: DayOrder, detail: str, request: str) -> None:
        async with self._open(order.actor, request) as procedure:
            await decide_day(procedure, order.date, RecoverDay(detail))

    async def abandon(self, order: DayOrder, error: str, rounds: int, request: str) -> None:
        async with self._open(order.actor, request) as procedure:
            state = await procedure.application.state(trading_day.DECIDER, (order.date,))
            if state.status in {"failed", "force-ended", "complete"}:
                return
            if order.phase == "start":
                # Half started: what came in meanwhile is not left lying in memory.
                try:
                    await hand_on(procedure)
                except SsmdError as trouble:
                    structlog.get_logger("worker").warning("not-handed-on", date=order.date, reason=trouble.message)
            await decide_day(procedure, order.date, AbandonDay(error, rounds))

    async def sync(self, env: str, *, is_full: bool) -> str:
        self._check(env)
        return "everything" if is_full else "what changed"

    async def expiring_keys(self, env: str, request: str) -> list[str]:
        self._check(env)
        actor, told = f"schedule:{env}/keys", []
        async with self._open(actor, request) as procedure:
            for row in await queries.keys(await procedure.views()):
                definition = self._document.keys.get(row.name)
                for one in findings(row, definition.rotation_days if definition else 0, self._clock.now_ns()):
                    if await journaling.record_expiry(procedure.application, *one, actor):
                        structlog.get_logger("worker").warning("key-expiry-noticed", what=one.words)
                    told.append(one.words)
        return told

    async def unrepaired(self, order: RepairOrder, request: str) -> Unrepaired:
        self._check(order.env)
        wanted = gap_repair.Wanted(order.date, order.gap_id, order.settled_s * 10**9)
        async with self._open(order.actor, request) as procedure:
            views = await procedure.views()
            found = await gap_repair.gaps_to_repair(views, procedure.feed, wanted, self._clock.now_ns())
        names = [GapName(one.connection, one.gap_id, date_of(one.start_ns)) for one in found[: gap_repair.GAPS_MAX]]
        return Unrepaired(names, len(found) - len(names))

    async def repair(self, order: RepairOrder, gap: GapName, request: str) -> str:
        self._check(order.env)
        async with self._open(order.actor, request) as procedure:
            return await repair_one(procedure, gap.gap_id, gap.connection, gap.date)

    def _check(self, env: str) -> None:
        if env != self._document.name:
            raise Misconfigured(f"this worker is for {self._document.name}, it was asked for {env}")


class EnvironmentWork(DayWork):
    """The work of a running environment: servers and venue are those of its document, opened anew each time."""

    def __init__(
        self, environment: ResolvedEnvironment, variables: Mapping[str, str], clock: Clock, random: RandomBytes
    ) -> None:
        self._environment = environment
        self._variables = variables
        self._random = random
        super().__init__(environment.document, clock, self._opened)

    @asynccontextmanager
    async def _opened(self, actor: str, request: str) -> AsyncGenerator[DayProcedure]:
        async with day_procedure(
            self._environment,
            self._variables,
            clock=self._clock,
            random=self._random,
            actor=actor,
            say=lambda words: structlog.get_logger("worker").info("step", what=words, request=request),
            is_whole=True,
            request=request,
        ) as procedure:
            yield procedure

    async def sync(self, env: str, *, is_full: bool) -> str:
        self._check(env)
        actor = f"schedule:{env}/{'sync-full' if is_full else 'sync'}"
        return await sync_words(self._environment, self._variables, self._clock, self._random, actor, is_full=is_full)


def worker_service(
    environment: ResolvedEnvironment, variables: Mapping[str, str], clock: Clock, random: RandomBytes
) -> WorkerService:
    """The component, not started.

    Raises:
        Misconfigured: the environment names no Temporal. Unavailable: it is embedded, and none runs.
    """
    temporal = environment.document.temporal
    if not temporal.url:
        raise Misconfigured(
            f"{environment.name} names no Temporal", mend=f"set temporal.url in exchanges/environments/{environment.name}.yaml"
        )
    address = environment.server_url("temporal", variables)
    work = EnvironmentWork(replace(environment, role="worker"), variables, clock, random)
    instance = variables.get("SSMD_INSTANCE", "") or INSTANCE
    return WorkerService(address, temporal.namespace, environment.name, work, instance=instance, random=random)
