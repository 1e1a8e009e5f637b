"""A week of trading days through the schedule of a real Temporal server, with all its trouble, against a calm one.

    python benchmarks/soak_week.py [--seed 9]

On the second day the venue is away at the start; on the third S3 is away at the end; on the fourth the worker is killed
after every single step, once what it did is journaled and before Temporal knows; after the fifth Temporal itself is killed
with the boundaries of the rest of the week due, and comes back some seconds later. Writes docs/measurements/week.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.workflows.week import Week, Worker, calm_week, outage  # noqa: E402 - found once the path is set

from ssmd.clock import SystemClock, date_of  # noqa: E402 - as above
from ssmd.services.embedded_temporal import start_temporal  # noqa: E402 - as above
from ssmd.workflows.connection import NAMESPACE, connect  # noqa: E402 - as above

OUTPUT = ROOT / "docs" / "measurements" / "week.json"
ENV = "soak-week"
DATES = [f"2026-05-{day}" for day in range(11, 18)]
TELLING = {"errored.v1", "recovered.v1", "late.v1"}
DOWN_S = 5.0
WITHIN_S = 480.0


async def measure(seed: int) -> dict[str, object]:
    dice = random.Random(seed)
    calm = await calm_week(ENV)
    week = Week(ENV)
    tries = dice.randint(3, 8)
    killed: list[str] = []
    tasks: list[asyncio.Task[None]] = []
    with tempfile.TemporaryDirectory() as directory:
        server = await start_temporal(Path(directory) / "temporal", NAMESPACE)
        client = await connect(server.url, NAMESPACE)
        worker = Worker(client, week)

        async def restarted() -> None:
            await worker.kill()
            worker.start()

        async def temporal_lost() -> None:
            server.kill()
            await asyncio.sleep(DOWN_S)
            await server.restart()

        async def trouble(what: str) -> None:
            if what == f"finish end {DATES[0]}":
                week.sync_trouble = outage(tries, "the venue is away")
            if what == f"finish start {DATES[2]}":
                week.verify_trouble = outage(tries, "S3 is away")
            if DATES[3] in what and what not in killed:
                killed.append(what)
                tasks.append(asyncio.create_task(restarted()))
                await asyncio.Event().wait()
            if what == f"finish end {DATES[4]}" and what not in killed:
                killed.append(what)
                tasks.append(asyncio.create_task(temporal_lost()))

        week.after = trouble
        began = time.monotonic()
        try:
            await week.scheduled(client)
            worker.start()
            await week.pass_days(client, 7)
            await week.until(DATES[-1], within_s=WITHIN_S)
            await asyncio.gather(*tasks)
        finally:
            await worker.kill()
            await server.stop(grace_s=1.0)
        took_s = time.monotonic() - began
    told, wanted = await week.told(), await calm.told()
    flushes = Counter(words for words in week.components.asked if words.startswith(("flush", "drain")))
    return {
        "dates": len(DATES),
        "events": len(told),
        "events_that_tell_trouble": [f"{one[0]} {one[1]}" for one in told if one[1] in TELLING],
        "workers_killed": len(killed) - 1,
        "temporal_down_s": DOWN_S,
        "outage_tries": tries,
        "equals_a_calm_week": [one for one in told if one[1] not in TELLING] == wanted,
        "steps_done_twice": sum(count - 1 for count in Counter(one for one in told if one[1] == "step-completed.v1").values()),
        "syncs": week.synced,
        "flushes": dict(flushes),
        "took_s": round(took_s, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=9)
    seed = parser.parse_args().seed
    figures = asyncio.run(measure(seed))
    is_good = bool(
        figures["equals_a_calm_week"]
        and not figures["steps_done_twice"]
        and figures["syncs"] == len(DATES)
        and figures["events_that_tell_trouble"]
    )
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    OUTPUT.write_text(
        json.dumps(
            {
                "commit": commit,
                "date": date_of(SystemClock().now_ns()),
                "seed": seed,
                "rounds": 1,
                "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "platform": platform.system()},
                "figures": figures,
                "verdict": "pass" if is_good else "FAIL",
            },
            indent=2,
        )
        + "\n",
        encoding="utf-8",
    )
    print(json.dumps(figures, indent=2))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
