"""Workflows beside the days, on a server whose clock skips: GapRepair and KeyExpiryCheck."""

from __future__ import annotations

import asyncio
from collections import Counter

from temporalio.testing import WorkflowEnvironment
from tests.workflows.duties import DATE, DAY, ENV, PATIENT, T0, Duties
from tests.workflows.test_days import skipping

from ssmd.domain import key
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Rejected, Unavailable
from ssmd.streams.journal import RecordedEvent
from ssmd.workflows.connection import task_queue
from ssmd.workflows.duties import KeyExpiryCheck
from ssmd.workflows.orders import GapName, Repaired, RepairOrder, RepairProgress
from ssmd.workflows.repairs import GapRepair
from ssmd.workflows.service import worker_of

__all__ = ["skipping"]


async def test_gaps_are_asked_for_the_latest_first_and_none_keeps_the_next_from_it(skipping: WorkflowEnvironment) -> None:
    duties = Duties()
    await duties.gap(1, age_s=8 * 86_400)  # beyond the window
    await duties.gap(2, age_s=90_000)
    await duties.gap(3, age_s=4_000)
    await duties.gap(4, age_s=3_000)
    await duties.gap(5, age_s=2_000)
    await duties.gap(6, age_s=60)  # the connector is at it itself
    await duties.gap(7, age_s=0, is_over=False)
    duties.troubles = {
        "1-5": [Rejected("gap-too-long", "7 h")],
        "1-4": [Unavailable("503")] * 9,
        "1-3": [Unavailable("503")],
    }
    async with worker_of(skipping.client, ENV, duties):
        order = RepairOrder(ENV, actor=f"schedule:{ENV}/gaps", patience=PATIENT)
        handle = await skipping.client.start_workflow(GapRepair.run, order, id=f"{ENV}/gaps", task_queue=task_queue(ENV))
        async with asyncio.timeout(30):
            outcomes = await handle.result()
        progress = await handle.query("progress", result_type=RepairProgress)
    assert outcomes == [
        Repaired(GapName("main", "1-5", DATE), "refused", "7 h"),
        Repaired(GapName("main", "1-4", DATE), "failed", "503"),
        Repaired(GapName("main", "1-3", DATE), "repaired"),
        Repaired(GapName("main", "1-2", "2026-05-13"), "repaired"),
    ]
    assert Counter(duties.asked) == {"1-5": 1, "1-4": PATIENT.tries, "1-3": 2, "1-2": 1}
    assert progress == RepairProgress(4, 4, "", {"refused": 1, "failed": 1, "repaired": 2})


async def test_where_several_of_a_connection_fail_in_a_row_its_rest_is_the_next_runs(skipping: WorkflowEnvironment) -> None:
    duties = Duties()
    for number in range(1, 6):
        await duties.gap(number, age_s=10_000 - number)
    # Another process has this connection: that one answers.
    await duties.gap(9, age_s=20_000, connection="second")
    duties.troubles = {f"1-{number}": [Unavailable("nobody listens")] * 9 for number in (3, 4, 5)}
    async with worker_of(skipping.client, ENV, duties):
        order = RepairOrder(ENV, patience=PATIENT)
        outcomes = await skipping.client.execute_workflow(GapRepair.run, order, id=f"{ENV}/gaps", task_queue=task_queue(ENV))
    assert [(one.gap.connection, one.gap.gap_id, one.result) for one in outcomes] == [
        ("main", "1-5", "failed"),
        ("main", "1-4", "failed"),
        ("main", "1-3", "failed"),
        ("second", "1-9", "repaired"),
    ]


async def test_what_is_found_of_a_key_is_journaled_once(skipping: WorkflowEnvironment) -> None:
    duties = Duties()
    duties.wants_key()

    async def checked() -> list[str]:
        found: list[str] = await skipping.client.execute_workflow(
            KeyExpiryCheck.run, ENV, id=f"{ENV}/keys", task_queue=task_queue(ENV)
        )
        return found

    await duties.keep("kalshi", "0123abcd", T0 + 10 * DAY)
    await duties.keep("nats", "89abcdef", 0)
    soon, gone = "key kalshi expires soon: ssmd key rotate kalshi", "key kalshi has expired: ssmd key rotate kalshi"
    due = "key kalshi is older than its rotation_days: ssmd key rotate kalshi"
    async with worker_of(skipping.client, ENV, duties):
        assert [await checked(), await checked()] == [[soon], [soon]]
        duties.clock.step(T0 + 11 * DAY)
        assert await checked() == [gone]
        duties.clock.step(T0 + 91 * DAY)
        assert await checked() == [gone, due]
        await duties.keep("kalshi", "0000abcd", T0 + 100 * DAY)
        assert await checked() == [soon]
    noticed = [
        (one.envelope.actor, one.envelope.correlation_id, CATALOGUE.decode(one.envelope.type, one.envelope.data))
        async for batch in duties.journal.replay(filters=["key"])
        for one in batch
        if isinstance(one, RecordedEvent) and one.envelope.type == "key.expiry-noticed.v1"
    ]
    assert {(actor, request) for actor, request, _ in noticed} == {(f"schedule:{ENV}/keys", f"{ENV}/keys")}
    assert [event for _, _, event in noticed] == [
        key.ExpiryNoticed("expires-soon", "0123abcd", T0 + 10 * DAY),
        key.ExpiryNoticed("expired", "0123abcd", T0 + 10 * DAY),
        key.ExpiryNoticed("rotation-due", "0123abcd", T0 + 90 * DAY),
        key.ExpiryNoticed("expires-soon", "0000abcd", T0 + 100 * DAY),
    ]
