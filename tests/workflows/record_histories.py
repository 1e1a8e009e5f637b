"""Record histories of today's workflows, for later versions to replay. Old files stay: their workflows may still run.

python -m tests.workflows.record_histories
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from tests.workflows.week import Week, outage

from ssmd.workflows.connection import task_queue
from ssmd.workflows.days import DayEnd, DayRoll, DayStart
from ssmd.workflows.orders import DayOrder, Patience
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


async def keep(handle: WorkflowHandle[object, object]) -> None:
    history = (await handle.fetch_history()).to_json_dict()
    _anonymous(history)
    path = HISTORIES / f"{handle.id}.json"
    if not path.exists():
        path.write_text(json.dumps(history, separators=(",", ":")) + "\n", encoding="utf-8")


async def main() -> None:
    HISTORIES.mkdir(exist_ok=True)
    program = Path(sys.executable).with_name("temporal-test-server")
    async with await WorkflowEnvironment.start_time_skipping(test_server_existing_path=str(program)) as environment:
        week, queue = Week(ENV, PATIENT), task_queue(ENV)

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


if __name__ == "__main__":
    asyncio.run(main())
