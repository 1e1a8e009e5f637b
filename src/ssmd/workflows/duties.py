"""Workflows beside the trading days: SecmasterSync and KeyExpiryCheck. One activity each, tried a few times."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from ssmd.workflows.orders import SyncOrder


@workflow.defn(name="SecmasterSync")
class SecmasterSync:
    """Compare the security master with the venue; what it came to, in words."""

    @workflow.run
    async def run(self, order: SyncOrder) -> str:
        patience = order.patience
        said: str = await workflow.execute_activity(
            "sync",
            order,
            result_type=str,
            start_to_close_timeout=timedelta(seconds=patience.step_s),
            heartbeat_timeout=timedelta(seconds=patience.heartbeat_s),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=patience.try_s),
                maximum_interval=timedelta(seconds=30),
                maximum_attempts=patience.tries,
            ),
        )
        return said


@workflow.defn(name="KeyExpiryCheck")
class KeyExpiryCheck:
    """Keys that should be replaced, in words; each finding is journaled once for a value (`key.expiry-noticed`)."""

    @workflow.run
    async def run(self, env: str) -> list[str]:
        found: list[str] = await workflow.execute_activity(
            "expiring-keys",
            env,
            result_type=list[str],
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=timedelta(seconds=20),
            retry_policy=RetryPolicy(maximum_attempts=5),
        )
        return found
