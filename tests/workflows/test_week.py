"""Seven business dates through the schedule of a real server, in all kinds of trouble: the journal is that of a calm week
but for the events that tell the trouble, and no step is done twice."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.workflows.week import Week, Worker, calm_week, outage

from ssmd.services.embedded_servers import RunningServer
from ssmd.workflows.connection import NAMESPACE, connect

DATES = [f"2026-05-{day}" for day in range(11, 18)]
TELLING = {"errored.v1", "recovered.v1", "late.v1"}
"""Types of events that tell of trouble."""
KILLED_AFTER = ("begin start 2026-05-14", "sync start 2026-05-14", "flush raw-archiver main end 2026-05-14")


async def test_a_week_of_trouble_is_a_calm_week_but_for_what_tells_the_trouble(
    temporal_server: RunningServer, fresh_env: str
) -> None:
    calm = await calm_week(fresh_env)
    week = Week(fresh_env)
    client = await connect(temporal_server.url, NAMESPACE)
    worker = Worker(client, week)
    killed: list[str] = []
    restarts: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()

    async def restarted() -> None:
        await worker.kill()
        worker.start()

    async def trouble(what: str) -> None:
        """At once after `what` was journaled, while Temporal does not know it."""
        if what == "finish end 2026-05-11":
            week.sync_trouble = outage(4, "the venue is away")
        if what == "finish start 2026-05-13":
            week.verify_trouble = outage(4, "S3 is away")
        if what in KILLED_AFTER and what not in killed:
            killed.append(what)
            restarts.append(loop.create_task(restarted()))
            await asyncio.Event().wait()

    week.after = trouble
    try:
        await week.scheduled(client)
        worker.start()
        await week.pass_days(client, 7)
        await week.until(DATES[-1], within_s=100)
        await asyncio.gather(*restarts)
    finally:
        await worker.kill()

    told = await week.told()
    assert [one for one in told if one[1] not in TELLING] == await calm.told()
    assert [one[:2] for one in told if one[1] in TELLING] == [
        ("2026-05-12", "errored.v1"),
        ("2026-05-12", "recovered.v1"),
        ("2026-05-13", "errored.v1"),
        ("2026-05-13", "recovered.v1"),
    ]
    assert killed == list(KILLED_AFTER)
    assert max(Counter(told).values()) == 1
    assert week.synced == 7
    flushes = Counter(words for words in week.components.asked if words.startswith(("flush", "drain")))
    assert set(flushes.values()) == {7}
