"""A week of trading days with real parts, in trouble, against a calm one.

    python benchmarks/soak_week.py [--seed 9] [--output FILE]

Takes about five minutes. Both weeks go through the schedule of a real Temporal server: the simulated venue, connector,
archivers, projector and gateway on a clock that is moved from midnight to night to evening; journal, streams, cache and S3 on
servers of their own; the worker in processes (tests/workflows/real_week.py). In the troubled one the venue is away when the
second day is started; S3 is away when the third is ended; while the fourth is ended and the fifth started a worker is killed
-9 in every step that asks somebody, once it has the answer and before that is journaled; a day later after every step, once
it is journaled and before Temporal knows; then Temporal is killed, stays away while a midnight and a day pass, and makes up
for that midnight and the next one when it is back.

Meanwhile, on Temporal's own clock, a schedule of the same making that is due every five seconds: each time is made up for
once, in order. The seed is the market's. Writes docs/measurements/week.json, or FILE.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from _measurement import MEASUREMENTS, ROOT, write_measurement

sys.path.insert(0, str(ROOT))

from tests.s3_server import start_s3
from tests.workflows.catching_up import Ticks
from tests.workflows.real_week import HURRIED, RealWeek, Servers, dates
from tests.workflows.week_life import Turn, live, turns_of
from tests.workflows.week_record import CLOSED, Comparison, WeekRecord, compare

from ssmd.clock import SystemClock
from ssmd.services import stream_archiver
from ssmd.services.embedded_servers import RunningServer, start_cache, start_nats
from ssmd.services.embedded_temporal import start_temporal
from ssmd.services.processes import stop_child
from ssmd.telemetry.logging import configure_logging
from ssmd.workflows.connection import NAMESPACE, connect

DATES = dates(8)
OUTAGE = DATES[1]
WORKERS = 2
PATIENCE = replace(HURRIED, heartbeat_s=1.2)
KILLED_WITHIN_S = 240.0
RESTARTED_WITHIN_S = 150.0
FLUSH_S = 1.0
"""Instead of a minute: how long an archiver's flush waits for S3."""


class Trouble:
    """What happens at the midnights of the troubled week; `turns` by date.

    Attributes:
        killed, wanted: places at which a worker died, and was to.
    """

    def __init__(self, temporal: RunningServer, ticks: Ticks) -> None:
        self.temporal = temporal
        self._ticks = ticks
        self.killed: list[str] = []
        self.wanted: list[str] = []
        self.temporal_down_s = 0.0
        self.turns: dict[str, Turn] = {
            OUTAGE: self._venue_away,
            DATES[3]: self._s3_away,
            DATES[4]: self._worker_killed,
            DATES[5]: self._worker_killed,
            DATES[6]: self._temporal_away,
            DATES[7]: self._temporal_back,
        }

    async def _venue_away(self, week: RealWeek, day: str) -> None:
        await week.midnight(day)
        await week.outage(day)

    async def _s3_away(self, week: RealWeek, day: str) -> None:
        week.s3.fault = "away"
        await week.midnight(day)
        await week.without_s3(DATES[DATES.index(day) - 1], day)

    async def _worker_killed(self, week: RealWeek, day: str) -> None:
        places = turns_of(DATES[DATES.index(day) - 1], day, "asked" if day == DATES[4] else "done")
        self.wanted += places
        week.worker.arm(self.wanted)
        await week.midnight(day)
        await week.due(day, day)
        await week.until_status(day, "active", KILLED_WITHIN_S)
        self.killed = week.worker.hits

    async def _temporal_away(self, week: RealWeek, day: str) -> None:
        self._began_s = time.monotonic()
        self.temporal.kill()
        await week.midnight(day)

    async def _temporal_back(self, week: RealWeek, day: str) -> None:
        await week.midnight(day)
        await self.temporal.restart()
        self.temporal_down_s = round(time.monotonic() - self._began_s, 1)
        await week.due(DATES[6], day)
        await week.until_status(day, "active", RESTARTED_WITHIN_S)
        await self._ticks.until_caught_up()


async def measure(directory: Path) -> tuple[dict[str, Any], bool]:
    stream_archiver.FLUSH_TIMEOUT_S = FLUSH_S  # type: ignore[misc] # as long as it takes, but hurried
    async with AsyncExitStack() as stack:
        began_s = time.monotonic()
        temporal = await start_temporal(directory / "temporal", NAMESPACE)
        stack.push_async_callback(temporal.stop, grace_s=0.5)
        ticks = await stack.enter_async_context(Ticks(await connect(temporal.url, NAMESPACE)))
        trouble = Trouble(temporal, ticks)
        calm, troubled = await asyncio.gather(_week(directory / "calm", None), _week(directory / "troubled", trouble))
        took_s = time.monotonic() - began_s
    # A sync that was asked for again, once its answer was lost; those that came late, and the one behind them.
    again = {one.rpartition(" ")[2] for one in trouble.wanted if one.startswith("asked sync")}
    found = compare(calm, troubled, OUTAGE, synced_twice={*again, *DATES[6:]}, is_unsynced=True)
    figures = _figures(calm, troubled, found, trouble, ticks.heard) | {"took_s": round(took_s, 1)}
    return figures, _is_good(calm, found, trouble, ticks.heard) and 0 <= _closings(calm) - _closings(troubled) <= 1


async def _week(directory: Path, trouble: Trouble | None) -> WeekRecord:
    """One week on servers of its own, which are stopped behind it."""
    async with AsyncExitStack() as servers:
        nats = [await start_nats(directory / name, sync_always=name == "journal") for name in ("journal", "transport")]
        cache = await start_cache(directory / "cache")
        for server in (*nats, cache):
            servers.push_async_callback(server.stop, grace_s=0.5)
        s3 = await start_s3(Path(sys.executable).with_name("weed"), directory / "s3")
        servers.push_async_callback(stop_child, s3.child)
        if trouble is None:
            temporal = await start_temporal(directory / "temporal", NAMESPACE)
            servers.push_async_callback(temporal.stop, grace_s=0.5)
        else:
            temporal = trouble.temporal
        reached = Servers(nats[0].url, nats[1].url, cache.url, temporal.url, s3)
        passing = RealWeek("week", directory / "week", reached, workers=1 if trouble is None else WORKERS)
        passing.patience = PATIENCE
        async with passing as week:
            return await live(week, DATES, {OUTAGE}, None if trouble is None else trouble.turns)


def _figures(
    calm: WeekRecord, troubled: WeekRecord, found: Comparison, trouble: Trouble, heard: Sequence[int]
) -> dict[str, Any]:
    archived = [shelf for (kind, _), shelf in troubled.archived.items() if kind != "facts"]
    telling = Counter(f"{ident} {what.partition('.')[2]}" for ident, what in found.telling)
    return {
        "dates": len(DATES) - 1,
        "events": {name: sum(map(len, week.told.values())) for name, week in (("calm", calm), ("troubled", troubled))},
        "events_of_days": len(troubled.days()),
        "events_that_tell_trouble": dict(sorted(telling.items())),
        "events_of_the_outage": found.outage,
        "gaps_more": found.gaps,
        "closings_not_told_before_the_result": _closings(calm) - _closings(troubled),
        "differing": found.differing,
        "steps_done_twice": len(found.twice),
        "days_completed_with_their_archive_verified": len(_completed(troubled)),
        "workers_killed": len(trouble.killed),
        "temporal_down_s": trouble.temporal_down_s,
        "times_due_every_5_s_made_up_for": len(heard),
        "archived_records": sum(told[0] for shelf in archived for told in shelf.sessions.values()),
        "archived_bytes": sum(told[1] for shelf in archived for told in shelf.sessions.values()),
    }


def _closings(record: WeekRecord) -> int:
    return sum(one.type == CLOSED for one in record.told["listing"])


def _completed(record: WeekRecord) -> set[str]:
    verified = {day for day, _, says in record.days() if "the archive holds what was sealed" in says}
    return verified & {day for day, what, _ in record.days() if what == "trading-day.completed.v1"}


def _is_good(calm: WeekRecord, found: Comparison, trouble: Trouble, heard: Sequence[int]) -> bool:
    return (
        not found.differing
        and not found.twice
        and _completed(calm) == set(DATES[:-1])
        and sorted(trouble.killed) == sorted(trouble.wanted)
        and Ticks.are_each_once_in_order(heard)
        and {ident for ident, what in found.telling if what == "trading-day.errored.v1"} == {OUTAGE, DATES[2]}
        and {ident for ident, what in found.telling if what == "trading-day.late.v1"} == {DATES[5], DATES[6]}
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--output", type=Path, default=MEASUREMENTS / "week.json")
    arguments = parser.parse_args()
    configure_logging("week", SystemClock(), sys.stderr, level="error")
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)
    RealWeek.seed = arguments.seed
    with tempfile.TemporaryDirectory() as directory:
        figures, is_good = asyncio.run(measure(Path(directory)))
    write_measurement(arguments.output, seed=arguments.seed, rounds=1, figures=figures, is_good=is_good)
    print(json.dumps(figures, indent=2))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
