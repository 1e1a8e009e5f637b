"""Record histories of today's workflows, for later versions to replay. Old files stay: their workflows may still run.

python -m tests.workflows.record_histories
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from tests.workflows.duties import DAY, T0, Duties
from tests.workflows.week import FIRST, Week, outage

from ssmd.errors import Rejected, Unavailable
from ssmd.services.embedded_temporal import start_temporal
from ssmd.workflows.connection import NAMESPACE, connect, task_queue
from ssmd.workflows.days import DayEnd, DayRoll, DayStart
from ssmd.workflows.duties import KeyExpiryCheck, SecmasterSync
from ssmd.workflows.orders import DayOrder, Patience, RepairOrder, SyncOrder
from ssmd.workflows.repairs import GapRepair
from ssmd.workflows.service import worker_of

HISTORIES = Path(__file__).parent / "histories"
ENV = "kalshi-test"
PATIENT = Patience(tries=2, try_s=1.0, pause_s=30.0, rounds=5)


def _anonymous(part: object) -> None:
    """Take out of a history what tells of the machine that recorded it."""
    if isinstance(part, list):
        for one in part:
            _anonymous(one)
    elif isinstance(part, dict):
        part.update({name: "" for name in ("identity", "stackTrace") if name in part})
        for one in part.values():
            _anonymous(one)


async def keep(handle: WorkflowHandle[object, object], name: str = "") -> None:
    history = (await handle.fetch_history()).to_json_dict()
    _anonymous(history)
    path = HISTORIES / f"{name or handle.id}.json"
    if not path.exists():
        path.write_text(json.dumps(history, separators=(",", ":")) + "\n", encoding="utf-8")


async def _duties(environment: WorkflowEnvironment) -> None:
    """Gaps that come to all there is, a key that expires soon, a sync."""
    duties, queue, client = Duties(), task_queue(ENV), environment.client
    for number, age_s in ((3, 4_000), (4, 3_000), (5, 2_000)):
        await duties.gap(number, age_s=age_s)
    duties.troubles = {"1-5": [Rejected("gap-too-long", "7 h")], "1-4": [Unavailable("503")] * 9}
    duties.wants_key()
    await duties.keep("kalshi", "0123abcd", T0 + 10 * DAY)
    async with worker_of(client, ENV, duties):
        await client.execute_workflow(GapRepair.run, RepairOrder(ENV, actor="recorded"), id="gaps", task_queue=queue)
        await client.execute_workflow(KeyExpiryCheck.run, ENV, id="keys", task_queue=queue)
        await client.execute_workflow(SecmasterSync.run, SyncOrder(ENV, is_full=False), id="sync", task_queue=queue)
        for name in ("gaps", "keys", "sync"):
            await keep(client.get_workflow_handle(name))


async def _turn() -> None:
    """What a schedule starts needs a server with schedules."""
    with tempfile.TemporaryDirectory() as directory:
        server = await start_temporal(Path(directory), NAMESPACE)
        try:
            client, week = await connect(server.url, NAMESPACE), Week(ENV)
            async with worker_of(client, ENV, week):
                await week.scheduled(client)
                await week.pass_days(client, 1)
                await week.until(f"{FIRST:%Y-%m-%d}")
                handle = client.get_workflow_handle(f"{ENV}/days-{FIRST:%Y-%m-%d}T17:00:00Z")
                await handle.result()
                await keep(handle, "turn")
        finally:
            await server.stop()


async def main() -> None:
    HISTORIES.mkdir(exist_ok=True)
    program = Path(sys.executable).with_name("temporal-test-server")
    async with await WorkflowEnvironment.start_time_skipping(test_server_existing_path=str(program)) as environment:
        week, queue = Week(ENV), task_queue(ENV)

        def order(phase: str, date: str) -> DayOrder:
            return DayOrder(ENV, "start" if phase == "start" else "end", date, "cli:anna", "recorded", patience=PATIENT)

        client = environment.client
        async with worker_of(client, ENV, week):
            for name, run, argument in (
                ("start-calm", DayStart.run, order("start", "2026-05-13")),
                ("end-calm", DayEnd.run, order("end", "2026-05-13")),
                ("start-recovered", DayStart.run, order("start", "2026-05-14")),
                ("end-refused", DayEnd.run, order("end", "2026-05-20")),
            ):
                if name == "start-recovered":
                    week.sync_trouble = outage(3, "the venue is away")
                await client.execute_workflow(run, argument, id=name, task_queue=queue)
                await keep(client.get_workflow_handle(name))
            orders = [order("end", "2026-05-14"), order("start", "2026-05-15")]
            await client.execute_workflow(DayRoll.run, orders, id="roll", task_queue=queue)
            await keep(client.get_workflow_handle("roll"))
        await _duties(environment)
    await _turn()


if __name__ == "__main__":
    asyncio.run(main())
