"""What people ask of trading days: by a workflow where there is a Temporal, else by the same steps in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Literal

from ssmd.clock import Clock
from ssmd.domain import trading_day
from ssmd.errors import Rejected
from ssmd.identifiers import RandomBytes
from ssmd.wiring.day_steps import DayProcedure
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.schedules import has_temporal
from ssmd.wiring.trading_day import before, day_procedure, end_day, force_end_day, recover_day, roll_day, start_day

if TYPE_CHECKING:
    from ssmd.workflows.client import DayClient

Verb = Literal["start", "end", "roll", "recover"]


class DayAsker:
    """Asks for one environment's days.

    Args:
        by_workflow: False = never by a workflow.
        follows: wait for a workflow's end; in this process there is no other way.
    """

    def __init__(
        self,
        environment: ResolvedEnvironment,
        variables: Mapping[str, str],
        clock: Clock,
        random: RandomBytes,
        actor: str,
        say: Callable[[str], None],
        *,
        by_workflow: bool = True,
        follows: bool = True,
    ) -> None:
        self._environment = environment
        self._variables = variables
        self._clock = clock
        self._random = random
        self._actor = actor
        self._say = say
        self._by_workflow = by_workflow and has_temporal(environment)
        self._follows = follows

    async def go(self, verb: Verb, date: str, reason: str) -> trading_day.State:
        """Do it; the day's state afterwards.

        Raises:
            Rejected: a rule says no, or somebody else is at it.
            Unavailable: a component, the journal or Temporal is away, or the phase failed.
        """
        if self._by_workflow:
            await self._ask(verb, date, reason)
            async with self._procedure() as procedure:
                return await procedure.application.state(trading_day.DECIDER, (date,))
        async with self._procedure() as procedure:
            return await self._do(procedure, verb, date, reason)

    async def force_end(self, date: str, reason: str) -> trading_day.State:
        """End the day without its steps. Raises Rejected."""
        async with self._procedure() as procedure:
            return await force_end_day(procedure, date, reason)

    def _procedure(self) -> AbstractAsyncContextManager[DayProcedure]:
        return day_procedure(
            self._environment,
            self._variables,
            clock=self._clock,
            random=self._random,
            actor=self._actor,
            say=self._say,
            is_whole=True,
        )

    async def _do(self, procedure: DayProcedure, verb: Verb, date: str, reason: str) -> trading_day.State:
        match verb:
            case "start":
                return await start_day(procedure, date, reason)
            case "end":
                return await end_day(procedure, date, reason)
            case "roll":
                return await roll_day(procedure, date, reason)
            case "recover":
                return await recover_day(procedure, date, reason)

    async def _ask(self, verb: Verb, date: str, reason: str) -> None:
        from ssmd.workflows.client import DayClient  # noqa: PLC0415 - temporalio is imported where it is used
        from ssmd.workflows.orders import DayOrder, Phase, workflow_id  # noqa: PLC0415 - as above

        env = self._environment.name
        address = self._environment.server_url("temporal", self._variables)
        client = await DayClient.open(address, self._environment.document.temporal.namespace)
        orders = [DayOrder(env, "end" if verb == "end" else "start", date, self._actor, reason)]
        if verb == "roll" and await self._status(before(date)) in {"active", "ending", "error"}:
            orders.insert(0, DayOrder(env, "end", before(date), self._actor, reason))
        if verb == "recover":
            state = await self._state(date)
            phase: Phase = "end" if "ending" in {state.status, state.errored_in} else "start"
            if await client.is_running(workflow_id(env, phase, date)):
                if not await client.hurry(workflow_id(env, phase, date)):
                    raise Rejected(
                        "day-at-work",
                        f"the {phase} of trading day {date} is at work: it needs no recovery",
                        mend="ssmd day status",
                    )
                orders = []
                await self._followed(client, workflow_id(env, phase, date))
            else:
                orders = [DayOrder(env, phase, date, self._actor, reason, is_recovery=True)]
        for order in orders:
            await self._followed(client, await client.start(order))

    async def _followed(self, client: DayClient, name: str) -> None:
        self._say(f"workflow {name}")
        if self._follows:
            outcome = await client.follow(name, self._say)
            self._say(f"trading day {outcome.date} is {outcome.status}")

    async def _state(self, date: str) -> trading_day.State:
        async with self._procedure() as procedure:
            return await procedure.application.state(trading_day.DECIDER, (date,))

    async def _status(self, date: str) -> str:
        return (await self._state(date)).status
