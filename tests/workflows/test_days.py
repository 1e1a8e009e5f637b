"""Workflows of days, on a server whose clock skips: patience, abandonment, refusals; and recorded histories replayed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHistory
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer
from tests.workflows.week import Week, outage

from ssmd.domain import trading_day
from ssmd.errors import Rejected, Unavailable
from ssmd.workflows import client
from ssmd.workflows.connection import task_queue
from ssmd.workflows.days import DayEnd, DayRoll, DayStart
from ssmd.workflows.failures import cause_of
from ssmd.workflows.orders import REFUSED, DayOrder, Outcome, Patience, Progress, workflow_id
from ssmd.workflows.service import WORKFLOWS, worker_of

HISTORIES = Path(__file__).parent / "histories"
DATE = "2026-05-14"
PATIENT = Patience(tries=2, try_s=1.0, pause_s=30.0, pause_max_s=600.0, rounds=5)
ENV = "kalshi-test"


@pytest.fixture
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    program = Path(sys.executable).with_name("temporal-test-server")
    async with await WorkflowEnvironment.start_time_skipping(test_server_existing_path=str(program)) as environment:
        yield environment


def order(phase: trading_day.Phase, date: str = DATE) -> DayOrder:
    return DayOrder(ENV, phase, date, "cli:anna", "a test", patience=PATIENT)


async def started(environment: WorkflowEnvironment, one: DayOrder) -> Outcome:
    run = DayStart.run if one.phase == "start" else DayEnd.run
    return await environment.client.execute_workflow(
        run, one, id=workflow_id(ENV, one.phase, one.date), task_queue=task_queue(ENV)
    )


async def types(week: Week) -> list[str]:
    return [one[1] for one in await week.told() if one[1] != "step-completed.v1"]


async def test_a_day_waits_longer_each_time_and_recovers(skipping: WorkflowEnvironment) -> None:
    week = Week(ENV)
    week.sync_trouble = outage(2 * 3, "the venue is away")
    async with worker_of(skipping.client, ENV, week):
        outcome = await started(skipping, order("start"))
        found = await skipping.client.get_workflow_handle(workflow_id(ENV, "start", DATE)).describe()
    assert found.close_time is not None
    passed = found.close_time - found.start_time
    assert outcome == Outcome(DATE, "start", "active", rounds=4)
    assert 30 + 60 + 120 <= passed.total_seconds() < 30 + 60 + 120 + 30
    assert await types(week) == ["start-requested.v1", *["errored.v1", "recovered.v1"] * 3, "activated.v1"]


async def test_a_start_that_fails_for_good_hands_on_what_came_in_and_says_so(skipping: WorkflowEnvironment) -> None:
    week = Week(ENV)

    async def trouble(_what: str) -> None:
        raise Rejected("kalshi-bad-key", "the venue refuses the key")

    week.sync_trouble = trouble
    async with worker_of(skipping.client, ENV, week):
        with pytest.raises(WorkflowFailureError) as caught:
            await started(skipping, order("start"))
        assert cause_of(caught.value.cause).message == (
            f"the start of trading day {DATE} failed after 1 rounds: the venue refuses the key"
        )
    assert await types(week) == ["start-requested.v1", "errored.v1", "failed.v1"]
    asked = [words for words in week.components.asked if not words.startswith("health")]
    assert asked == ["drain gateway", "flush connector", "flush raw-archiver", "flush projector"]


async def test_what_a_rule_refuses_is_an_answer_not_a_failure(skipping: WorkflowEnvironment) -> None:
    week = Week(ENV)
    async with worker_of(skipping.client, ENV, week):
        outcome = await started(skipping, order("end"))
        assert (outcome.status, outcome.rule) == (REFUSED, "day-not-started")
        assert (await started(skipping, order("start"))).status == "active"
        assert (await started(skipping, order("end"))).status == "complete"
        again = await started(skipping, order("start"))
    assert (again.status, again.rule, again.mend) == (REFUSED, "day-already-complete", f"ssmd day history --date {DATE}")


async def test_a_roll_ends_one_day_and_starts_the_next(skipping: WorkflowEnvironment) -> None:
    week = Week(ENV)
    async with worker_of(skipping.client, ENV, week):
        await started(skipping, order("start", "2026-05-13"))
        outcomes = await skipping.client.execute_workflow(
            DayRoll.run, [order("end", "2026-05-13"), order("start")], id="roll", task_queue=task_queue(ENV)
        )
    assert [(one.date, one.status) for one in outcomes] == [("2026-05-13", "complete"), (DATE, "active")]


async def test_who_waits_can_be_asked_and_hurried(skipping: WorkflowEnvironment) -> None:
    week = Week(ENV)
    week.sync_trouble = outage(2, "the venue is away")
    async with worker_of(skipping.client, ENV, week):
        with skipping.auto_time_skipping_disabled():
            handle = await skipping.client.start_workflow(
                DayStart.run, order("start"), id=workflow_id(ENV, "start", DATE), task_queue=task_queue(ENV)
            )
            async with asyncio.timeout(30):
                while not (progress := await handle.query("progress", result_type=Progress)).waits_s:
                    await asyncio.sleep(0.05)
            assert progress == Progress(DATE, "start", "sync", 0, 5, 1, "the venue is away", 30.0)
            await handle.execute_update("retry-now", result_type=Progress)
            async with asyncio.timeout(60):
                assert (await handle.result()).rounds == 2


async def test_who_waits_cannot_be_hurried_where_nobody_works(
    skipping: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RPC_TIMEOUT", timedelta(seconds=0.5))
    with skipping.auto_time_skipping_disabled():
        days = client.DayClient(skipping.client)
        name = await days.start(order("start", "2026-05-20"))
        with pytest.raises(Unavailable) as raised:
            await days.hurry(name)
        await skipping.client.get_workflow_handle(name).terminate()
    assert (raised.value.message, raised.value.mend) == (f"no worker takes {name} up", "ssmd worker run")


@pytest.mark.parametrize("path", sorted(HISTORIES.glob("*.json")), ids=lambda path: path.stem)
async def test_recorded_histories_replay(path: Path) -> None:
    history = WorkflowHistory.from_json(path.stem, path.read_text(encoding="utf-8"))
    await Replayer(workflows=list(WORKFLOWS)).replay_workflow(history)


def test_there_are_histories_of_every_kind_of_workflow() -> None:
    days = {"start-calm", "start-recovered", "end-calm", "roll", "turn"}
    assert {path.stem for path in HISTORIES.glob("*.json")} >= {*days, "gaps", "keys", "sync"}
