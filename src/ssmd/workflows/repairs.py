"""Workflow GapRepair: has the gaps repaired that no connector repaired by itself, one after another.

One that cannot be repaired does not keep the next from being asked for. Where several of a connection fail in a row, venue or
connector are away: its rest is not asked for. What failed or was not asked for is found again by the next run.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from ssmd.workflows.failures import cause_of, rule_of
    from ssmd.workflows.orders import (
        GapName,
        Patience,
        Repaired,
        RepairOrder,
        RepairProgress,
        Unrepaired,
        is_left_alone,
    )

REPAIR_S = 300.0
"""Of one try: more than its connector is given."""


@workflow.defn(name="GapRepair")
class GapRepair:
    """See the module. Query `progress` tells how far it is."""

    def __init__(self) -> None:
        self._progress = RepairProgress()

    @workflow.query(name="progress")
    def progress(self) -> RepairProgress:
        return self._progress

    @workflow.run
    async def run(self, order: RepairOrder) -> list[Repaired]:
        patience = order.patience
        found: Unrepaired = await workflow.execute_activity(
            "unrepaired-gaps",
            order,
            result_type=Unrepaired,
            start_to_close_timeout=timedelta(seconds=REPAIR_S),
            heartbeat_timeout=timedelta(seconds=patience.heartbeat_s),
            retry_policy=_tries(patience),
        )
        outcomes: list[Repaired] = []
        for gap in found.gaps:
            if is_left_alone(gap.connection, [(one.gap.connection, one.result) for one in outcomes]):
                continue
            self._tell(gap.gap_id, len(found.gaps), outcomes)
            outcomes.append(await self._repaired(order, gap))
        self._tell("", len(found.gaps), outcomes)
        return outcomes

    async def _repaired(self, order: RepairOrder, gap: GapName) -> Repaired:
        try:
            result: str = await workflow.execute_activity(
                "repair-gap",
                args=[order, gap],
                result_type=str,
                start_to_close_timeout=timedelta(seconds=REPAIR_S),
                heartbeat_timeout=timedelta(seconds=order.patience.heartbeat_s),
                retry_policy=_tries(order.patience),
            )
        except ActivityError as error:
            cause = cause_of(error)
            return Repaired(gap, "refused" if rule_of(cause)[0] else "failed", cause.message)
        return Repaired(gap, result)

    def _tell(self, gap: str, of: int, outcomes: list[Repaired]) -> None:
        results: dict[str, int] = {}
        for one in outcomes:
            results[one.result] = results.get(one.result, 0) + 1
        self._progress = RepairProgress(len(outcomes), of, gap, results)


def _tries(patience: Patience) -> RetryPolicy:
    """What a rule refused is not tried again (`failures.carried`)."""
    return RetryPolicy(
        initial_interval=timedelta(seconds=patience.try_s),
        maximum_interval=timedelta(seconds=30),
        maximum_attempts=patience.tries,
    )
