"""Workflows of trading days: DayStart, DayEnd, DayRoll (end one, start the next), and DayTurn, which the schedule starts.

Deterministic: they read no clock and ask nobody, but through activities. The rules of a day are in `domain.trading_day`;
here is only the order, the patience, and what is undone when a phase cannot be finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from ssmd.workflows.failures import cause_of, rule_of
    from ssmd.workflows.orders import (
        REFUSED,
        Begun,
        DayOrder,
        Outcome,
        Patience,
        Progress,
        StepOrder,
        Trouble,
        Turn,
        TurnOrder,
        workflow_id,
    )

SCHEDULED_AT: Final = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")
IN_PHASE: Final = frozenset({"starting", "ending"})
FAILED: Final = "DayFailed"
_FINAL: Final = frozenset({"Rejected", "Malformed", "Misconfigured"})


class _Phase:
    """A phase of a day, step by step. A step that fails through all its tries is the day's error; after a pause the day
    recovers and the step is tried again. When that does not help either, the day is abandoned.
    """

    def __init__(self) -> None:
        self.progress = Progress()
        self.is_hurried = False

    async def run(self, order: DayOrder) -> Outcome:
        self._tell(order)
        try:
            begun: Begun = await _always("begin", order, order.patience, returns=Begun)
        except ActivityError as error:
            return _refused(order, error)
        if begun.status not in IN_PHASE:
            return Outcome(order.date, order.phase, begun.status)
        rounds = 1
        for number, step in enumerate(begun.steps):
            while True:
                self._tell(order, step=step, done=number, steps=len(begun.steps), rounds=rounds)
                try:
                    await _patiently("step", StepOrder(order, step), order.patience)
                    break
                except ActivityError as error:
                    rounds = await self._again(order, cause_of(error), rounds)
        status: str = await _always("finish", order, order.patience, returns=str)
        self._tell(order, done=len(begun.steps), steps=len(begun.steps), rounds=rounds)
        return Outcome(order.date, order.phase, status, rounds=rounds)

    async def _again(self, order: DayOrder, cause: ApplicationError, rounds: int) -> int:
        """Journal the error, wait, recover; the number of the next round. Raises ApplicationError when it is over."""
        patience = order.patience
        trouble = Trouble(order, cause.message, rounds)
        await _always("fail", trouble, patience)
        if cause.type in _FINAL or rounds >= patience.rounds:
            await _always("abandon", trouble, patience)
            raise ApplicationError(
                f"the {order.phase} of trading day {order.date} failed after {rounds} rounds: {cause.message}",
                type=FAILED,
                non_retryable=True,
            )
        pause_s = min(patience.pause_max_s, patience.pause_s * 2 ** (rounds - 1))
        self._tell(order, step=self.progress.step, rounds=rounds, error=cause.message, waits_s=pause_s)
        self.is_hurried = False
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self.is_hurried, timeout=timedelta(seconds=pause_s))
        await _always("recover", trouble, patience)
        return rounds + 1

    def _tell(
        self,
        order: DayOrder,
        *,
        step: str = "",
        done: int | None = None,
        steps: int | None = None,
        rounds: int = 1,
        error: str = "",
        waits_s: float = 0.0,
    ) -> None:
        before = self.progress
        self.progress = Progress(
            order.date,
            order.phase,
            step,
            before.done if done is None else done,
            before.steps if steps is None else steps,
            rounds,
            error,
            waits_s,
        )


def _refused(order: DayOrder, error: ActivityError) -> Outcome:
    """What a rule's no comes to; anything else goes on as the workflow's failure."""
    cause = cause_of(error)
    rule, mend = rule_of(cause)
    if not rule:
        raise ApplicationError(cause.message, type=cause.type or FAILED, non_retryable=True) from error
    return Outcome(order.date, order.phase, REFUSED, cause.message, rule, mend)


async def _patiently(name: str, argument: object, patience: Patience) -> Any:
    """An activity that may fail: a few tries."""
    return await workflow.execute_activity(
        name,
        argument,
        start_to_close_timeout=timedelta(seconds=patience.step_s),
        heartbeat_timeout=timedelta(seconds=patience.heartbeat_s),
        # A worker that dies is not the component's failure: such a try is counted all the same, so there is one to spare.
        retry_policy=_tries(patience, at_most=patience.tries),
    )


async def _always(name: str, argument: object, patience: Patience, *, returns: type | None = None) -> Any:
    """An activity that only speaks with the journal: tried until that is back, at most `away_s`."""
    return await workflow.execute_activity(
        name,
        argument,
        result_type=returns,
        start_to_close_timeout=timedelta(seconds=patience.step_s),
        heartbeat_timeout=timedelta(seconds=patience.heartbeat_s),
        schedule_to_close_timeout=timedelta(seconds=patience.away_s),
        retry_policy=_tries(patience),
    )


def _tries(patience: Patience, *, at_most: int = 0) -> RetryPolicy:
    """`at_most` 0 = as often as the time allows."""
    return RetryPolicy(
        initial_interval=timedelta(seconds=patience.try_s), maximum_interval=timedelta(seconds=30), maximum_attempts=at_most
    )


class _Told:
    """What every workflow of a day answers: how far it is; and takes: do not wait any longer."""

    def __init__(self) -> None:
        self._phase = _Phase()

    @workflow.query(name="progress")
    def progress(self) -> Progress:
        return self._phase.progress

    @workflow.update(name="retry-now")
    def retry_now(self) -> Progress:
        self._phase.is_hurried = True
        return self._phase.progress

    @retry_now.validator
    def _waits(self) -> None:
        if not self._phase.progress.waits_s:
            raise ApplicationError("it does not wait: there is nothing to hurry", type="Rejected")


@workflow.defn(name="DayStart")
class DayStart(_Told):
    """Sync the security master, wait until every component is healthy, then the day is active."""

    @workflow.run
    async def run(self, order: DayOrder) -> Outcome:
        return await self._phase.run(order)


@workflow.defn(name="DayEnd")
class DayEnd(_Told):
    """Drain, flush and verify what the day came to, then it is complete."""

    @workflow.run
    async def run(self, order: DayOrder) -> Outcome:
        return await self._phase.run(order)


@workflow.defn(name="DayRoll")
class DayRoll:
    """Phases one after the other. One that fails or is refused does not keep the next from being tried."""

    @workflow.run
    async def run(self, orders: list[DayOrder]) -> list[Outcome]:
        return await _each(orders)


@workflow.defn(name="DayTurn")
class DayTurn:
    """What the schedule's time asks for. The date comes from that time, never from the clock: a late run is of its day."""

    @workflow.run
    async def run(self, order: TurnOrder) -> list[Outcome]:
        at = workflow.info().typed_search_attributes.get(SCHEDULED_AT)
        if at is None:
            raise ApplicationError(
                "DayTurn is for a schedule: it has no scheduled time", type="Misconfigured", non_retryable=True
            )
        scheduled_ns = round(at.timestamp()) * 1_000_000_000
        turn: Turn = await workflow.execute_activity(
            "turn",
            args=[order, scheduled_ns],
            result_type=Turn,
            start_to_close_timeout=timedelta(seconds=order.patience.step_s),
            heartbeat_timeout=timedelta(seconds=order.patience.heartbeat_s),
            schedule_to_close_timeout=timedelta(seconds=order.patience.away_s),
            retry_policy=_tries(order.patience),
        )
        return await _each([replace(one, patience=order.patience) for one in turn.orders])


async def _each(orders: Sequence[DayOrder]) -> list[Outcome]:
    """Each phase as a workflow of its own, under its one name.

    Raises:
        ApplicationError: of those that failed, once all were tried.
    """
    outcomes: list[Outcome] = []
    failed: list[str] = []
    for order in orders:
        run = DayStart.run if order.phase == "start" else DayEnd.run
        try:
            outcomes.append(
                await workflow.execute_child_workflow(run, order, id=workflow_id(order.env, order.phase, order.date))
            )
        except WorkflowAlreadyStartedError:
            # Somebody asked for it by hand, and that runs.
            outcomes.append(Outcome(order.date, order.phase, REFUSED, "another workflow does it already", "day-at-work"))
        except ChildWorkflowError as error:
            failed.append(cause_of(error).message)
    if failed:
        raise ApplicationError("; ".join(failed), type=FAILED, non_retryable=True)
    return outcomes
