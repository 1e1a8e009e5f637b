"""Component `worker`: takes workflows and activities of one environment from Temporal and does them.

A server that is away is waited for. A worker that is killed loses nothing: another, or its next life, goes on where the
history says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from temporalio.client import Client
from temporalio.worker import Worker

from ssmd.errors import Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.services.component import Health
from ssmd.streams.backoff import backoff_s
from ssmd.workflows.activities import Activities
from ssmd.workflows.connection import connect, task_queue
from ssmd.workflows.days import DayEnd, DayRoll, DayStart, DayTurn
from ssmd.workflows.duties import KeyExpiryCheck, SecmasterSync
from ssmd.workflows.repairs import GapRepair
from ssmd.workflows.work import Work

WORKFLOWS: Final[Sequence[type[Any]]] = (DayStart, DayEnd, DayRoll, DayTurn, SecmasterSync, KeyExpiryCheck, GapRepair)
ACTIVITIES_MAX: Final = 8
WORKFLOWS_CACHED: Final = 100
GRACE_S: Final = 5.0
"""How long activities may go on when the worker is told to stop; then another tries them again."""
STOP_S: Final = GRACE_S + 2.0
STICKY_S: Final = 5.0
"""How long Temporal keeps a workflow for the worker that had it last; another goes on with it then."""
RECONNECT_MAX_S: Final = 5.0


def worker_of(client: Client, env: str, work: Work, *, grace_s: float = GRACE_S, sticky_s: float = STICKY_S) -> Worker:
    """A worker of `env`, not running."""
    return Worker(
        client,
        task_queue=task_queue(env),
        workflows=list(WORKFLOWS),
        activities=Activities(work).all,
        max_concurrent_activities=ACTIVITIES_MAX,
        max_cached_workflows=WORKFLOWS_CACHED,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=sticky_s),
        graceful_shutdown_timeout=timedelta(seconds=grace_s),
        # Heartbeats are sent as often as they are told: a dead worker is noticed within its timeout.
        max_heartbeat_throttle_interval=timedelta(seconds=1),
    )


class WorkerService:
    """See the module; a `services.component.Component`."""

    name = "worker"

    def __init__(self, address: str, namespace: str, env: str, work: Work, *, instance: str, random: RandomBytes) -> None:
        self.instance = instance
        self._address = address
        self._namespace = namespace
        self._env = env
        self._work = work
        self._random = random
        self._stopping = asyncio.Event()
        self._trouble = "not connected yet"

    async def run(self) -> None:
        attempt = 0
        stopped = asyncio.create_task(self._stopping.wait(), name="worker told to stop")
        try:
            while not self._stopping.is_set():
                try:
                    client = await connect(self._address, self._namespace)
                except Unavailable as error:
                    attempt += 1
                    self._trouble = error.message
                    await asyncio.wait({stopped}, timeout=backoff_s(attempt, self._random, max_s=RECONNECT_MAX_S))
                    continue
                # From here on the driver reconnects by itself.
                self._trouble = ""
                await self._work_until(stopped, worker_of(client, self._env, self._work))
        finally:
            stopped.cancel()

    async def _work_until(self, stopped: asyncio.Task[bool], worker: Worker) -> None:
        working = asyncio.create_task(worker.run(), name="worker")
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            working.cancel()
            # It tells Temporal goodbye. One that is gone would be waited for long past anybody's patience.
            await asyncio.wait({working}, timeout=STOP_S)
        finally:
            working.cancel()

    async def stop(self) -> None:
        self._stopping.set()

    async def flush(self) -> None:
        """It holds nothing."""

    def health(self) -> Health:
        return Health(not self._trouble, self._trouble, {"temporal": self._address})
