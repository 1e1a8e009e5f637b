"""Archivers killed by -9 at every crash point and at random instants, on S3 and on a local directory.

    python benchmarks/soak_archive.py [--rounds 100] [--batch 25] [--seed 1] [--only s3|local] [--output FILE]

For each storage (--only: of one), both beside each other: every named crash point of both archivers once, then `rounds`
waves in which both die at random instants of the same second; in batches, each a run of its own. What must hold:
decompressed bytes per kind and day equal those of an undisturbed run of the same tape, and every stored object is in exactly
one seal. S3 is a SeaweedFS of its own.

Writes docs/measurements/archive.json, or FILE; exit status 1 when something did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _measurement import MEASUREMENTS, ROOT, write_measurement

from ssmd.archive.storage_s3 import S3Access, S3Storage
from ssmd.clock import SystemClock
from ssmd.identifiers import system_random
from ssmd.services.chaos.plan import every_crash_point, random_kills
from ssmd.services.processes import stop_child
from ssmd.settings import variables
from ssmd.telemetry.logging import configure_logging
from ssmd.wiring.chaos import Chaos

sys.path.insert(0, str(ROOT))
from tests.s3_server import S3Server, start_s3  # the tests' server, which is not installed

OUTPUT = MEASUREMENTS / "archive.json"
ARCHIVERS = ("raw-archiver", "normalized-archiver")
CLOCK = SystemClock()


async def kills(where: str, server: S3Server | None, seed: int, rounds: int, batch: int) -> dict[str, Any]:
    plans = [every_crash_point(ARCHIVERS, seed)]
    plans += [random_kills(min(batch, rounds - first), ARCHIVERS, seed + first + 1) for first in range(0, rounds, batch)]
    broken: list[str] = []
    killed: dict[str, int] = {}
    entries = 0
    for number, waves in enumerate(plans):
        given, bucket = dict(variables()), None
        if server is not None:
            bucket = S3Access(f"soak-{seed}-{number}", server.access_key, server.secret_key, server.url)
            storage = S3Storage(bucket)
            await storage.put("made", b"")
            await storage.close()
            given |= {"SSMD_BUCKET_ACCESS_KEY": server.access_key, "SSMD_BUCKET_SECRET_KEY": server.secret_key}
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="ssmd-soak-") as directory:
            chaos = Chaos(given, CLOCK, system_random, lambda _: None, seed=seed + number, bucket=bucket)
            report = await chaos.run(Path(directory) / "workspace", waves)
        failed = [f"{where}, seed {seed + number}: {check.name}: {check.detail}" for check in report.checks if not check.is_ok]
        broken += failed
        entries += report.entries
        for strike in report.strikes:
            name = f"{strike.target}: {strike.point or 'random'}"
            killed[name] = killed.get(name, 0) + 1
        took = f"{len(waves)} waves in {time.monotonic() - began:.0f} s"
        told = f"{report.entries:,} entries, {failed or 'all holds'}"
        print(f"  {where}, plan {number + 1} of {len(plans)}: {took}, {told}", file=sys.stderr, flush=True)
    return {"rounds_of_random_kills": rounds, "kills": dict(sorted(killed.items())), "tape_entries": entries, "broken": broken}


async def main(given: argparse.Namespace) -> None:
    began = time.monotonic()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ssmd-soak-s3-") as directory:
        server = None if given.only == "local" else await start_s3(Path(sys.executable).with_name("weed"), Path(directory))
        try:
            async with asyncio.TaskGroup() as both:
                running = {
                    where: both.create_task(
                        kills(where, server if where == "s3" else None, given.seed, given.rounds, given.batch)
                    )
                    for where in ("s3", "local")
                    if given.only in {"", where}
                }
        finally:
            if server is not None:
                await stop_child(server.child)
    figures |= {where: task.result() for where, task in running.items()}
    broken = [one for part in figures.values() for one in part["broken"]]
    took_s = round(time.monotonic() - began)
    write_measurement(given.output, seed=given.seed, rounds=given.rounds, figures=figures, is_good=not broken, took_s=took_s)
    if broken:
        raise SystemExit("\n".join(broken))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("", "s3", "local"), default="")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    configure_logging("soak", CLOCK, sys.stderr, level="error")
    asyncio.run(main(parser.parse_args()))
