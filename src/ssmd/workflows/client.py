"""Asks Temporal for what people want: start a workflow of a day, follow it, hurry it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ssmd.clock import iso_of
from ssmd.errors import Rejected, Unavailable
from ssmd.workflows.connection import RPC_TIMEOUT, connect, task_queue, translating
from ssmd.workflows.days import DayEnd, DayStart
from ssmd.workflows.failures import cause_of
from ssmd.workflows.orders import REFUSED, DayOrder, Outcome, Progress, workflow_id

POLL_S: Final = 0.3
PICKED_UP_WITHIN_S: Final = 15.0
"""A workflow that no worker has touched by then is told of: most likely there is none."""


class DayClient:
    """See the module. Made by `open`; it holds no connection that must be closed."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    async def open(cls, address: str, namespace: str) -> DayClient:
        """Raises Unavailable."""
        return cls(await connect(address, namespace))

    async def start(self, order: DayOrder) -> str:
        """Start the phase's workflow; its id.

        Raises:
            Rejected: "day-at-work": one runs already, and who asked for it.
            Unavailable: Temporal does not answer.
        """
        name = workflow_id(order.env, order.phase, order.date)
        try:
            with translating(name):
                await self._client.start_workflow(
                    DayStart.run if order.phase == "start" else DayEnd.run,
                    order,
                    id=name,
                    task_queue=task_queue(order.env),
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    memo={"actor": order.actor},
                    rpc_timeout=RPC_TIMEOUT,
                )
        except WorkflowAlreadyStartedError:
            raise await self._at_work(name, order) from None
        return name

    async def _at_work(self, name: str, order: DayOrder) -> Rejected:
        with translating(name):
            found = await self._client.get_workflow_handle(name).describe(rpc_timeout=RPC_TIMEOUT)
            memo = await found.memo()
        since = iso_of(round(found.start_time.timestamp()) * 1_000_000_000)
        return Rejected(
            "day-at-work",
            f"the {order.phase} of trading day {order.date} is at work already: {memo.get('actor', 'the schedule')} asked for "
            f"it at {since} (request {name})",
            mend=f"ssmd day status --date {order.date} --follow",
        )

    async def follow(self, name: str, say: Callable[[str], None]) -> Outcome:
        """Tell each step until the workflow is over.

        Raises:
            Rejected: a rule refused the phase.
            Unavailable: it failed, or nobody works on it, or Temporal is away.
        """
        handle = self._client.get_workflow_handle(name, result_type=Outcome)
        result = asyncio.create_task(handle.result(), name="outcome of the workflow")
        try:
            await self._tell(handle, result, say)
            with translating(name):
                outcome: Outcome = await result
        except WorkflowFailureError as error:
            raise Unavailable(cause_of(error.cause).message, mend="ssmd day recover") from None
        finally:
            result.cancel()
        if outcome.status == REFUSED:
            raise Rejected(outcome.rule, outcome.error, mend=outcome.mend)
        return outcome

    async def _tell(
        self, handle: WorkflowHandle[object, Outcome], result: asyncio.Task[Outcome], say: Callable[[str], None]
    ) -> None:
        told = ""
        waited_s = 0.0
        while not result.done():
            words = await self._words(handle)
            if words is None and not told and waited_s >= PICKED_UP_WITHIN_S:
                raise Unavailable("no worker takes the day's workflow up", mend="ssmd worker run, or --no-temporal")
            if words and words != told:
                say(words)
                told = words
            await asyncio.wait({result}, timeout=POLL_S)
            waited_s += POLL_S

    async def _words(self, handle: WorkflowHandle[object, Outcome]) -> str | None:
        """Where it stands; None = nobody answers for it."""
        try:
            progress = await handle.query("progress", result_type=Progress, rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise Unavailable(f"Temporal does not know {handle.id}") from None
            return None
        if progress.waits_s:
            return f"round {progress.rounds} failed, the next in {progress.waits_s:g} s: {progress.error}"
        return f"step {progress.done + 1} of {progress.steps}: {progress.step}" if progress.step else ""

    async def is_running(self, name: str) -> bool:
        """Whether a workflow of that name is on."""
        try:
            found = await self._client.get_workflow_handle(name).describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise Unavailable(f"Temporal did not answer on {name}: {error.message}") from None
        return found.status is WorkflowExecutionStatus.RUNNING

    async def hurry(self, name: str) -> bool:
        """Let a workflow that waits to try again do so now; False = it does not wait.

        Raises:
            Unavailable: nobody works on it, or Temporal is away.
        """
        try:
            with translating(name):
                await self._client.get_workflow_handle(name).execute_update(
                    "retry-now", result_type=Progress, rpc_timeout=RPC_TIMEOUT
                )
        except WorkflowUpdateFailedError:
            return False
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            raise Unavailable(f"no worker takes {name} up", mend="ssmd worker run") from None
        return True
