"""Kills and outages for real durations, against real processes and servers; each verdict from the tape.

    python benchmarks/soak_chaos.py [--rounds 100] [--batch 10] [--seed 1] [--away 60] [--rate 5000] [--output FILE]

1. Every named crash point once, then `rounds` waves in which connector, archivers, projector, gateway and both NATS
   servers die at random instants: in batches of so many waves, each a run of its own with a seed of its own.
2. The transport server is away for `away` seconds at `rate` frames a second: nothing lost, order kept, and the
   connector's resident memory flat (the highest while it is away, beside the highest before).

Writes docs/measurements/chaos.json, or FILE. `--rounds 0` leaves part 1 out, `--away 0` part 2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _measurement import MEASUREMENTS, write_measurement

from ssmd.clock import SystemClock, date_of
from ssmd.identifiers import system_random
from ssmd.registry.bootstrap import write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services.chaos.checks import check_archive, check_tape
from ssmd.services.chaos.plan import every_crash_point, random_kills
from ssmd.services.chaos.reference import contents, reference
from ssmd.services.connector.tape_follower import Names
from ssmd.services.supervisor import RestartPolicy
from ssmd.settings import Workspace, variables
from ssmd.streams.control import ControlClient
from ssmd.streams.tape_summary import summarize
from ssmd.telemetry.logging import configure_logging
from ssmd.wiring.backends import open_storage
from ssmd.wiring.chaos import ENV, ENVIRONMENT, Chaos
from ssmd.wiring.environment import resolve_environment
from ssmd.wiring.system import LocalSystem
from ssmd.wiring.tape import mapper_of, tape_directory

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = MEASUREMENTS / "chaos.json"
CLOCK = SystemClock()
RSS_GROWTH_MB_MAX = 32
CAPTURED_BEFORE_S = 10


async def kills(seed: int, rounds: int, batch: int) -> dict[str, Any]:
    """Part 1."""
    plans = [every_crash_point(seed=seed)]
    plans += [random_kills(min(batch, rounds - first), seed=seed + first + 1) for first in range(0, rounds, batch)]
    broken: list[str] = []
    killed: dict[str, int] = {}
    back: list[float] = []
    entries = 0
    for number, waves in enumerate(plans):
        with tempfile.TemporaryDirectory(prefix="ssmd-soak-") as directory:
            chaos = Chaos(dict(variables()), CLOCK, system_random, lambda _: None, seed=seed + number)
            report = await chaos.run(Path(directory) / "workspace", waves)
        failed = [f"seed {seed + number}: {check.name}: {check.detail}" for check in report.checks if not check.is_ok]
        broken += failed
        entries += report.entries
        for strike in report.strikes:
            name = strike.point or strike.target
            killed[name] = killed.get(name, 0) + 1
            back.append(strike.back_s)
        print(
            f"  plan {number + 1} of {len(plans)}: {len(waves)} waves, {report.entries:,} entries, {failed or 'all holds'}",
            flush=True,
        )
    back.sort()
    return {
        "rounds_of_random_kills": rounds,
        "kills": dict(sorted(killed.items())),
        "kills_total": sum(killed.values()),
        "tape_entries": entries,
        "back_after_s": {"median": back[len(back) // 2], "longest": back[-1]},
        "broken": broken,
    }


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no VmRSS: this needs Linux")


async def away(seed: int, seconds: float, rate: int) -> dict[str, Any]:
    """Part 2."""
    with tempfile.TemporaryDirectory(prefix="ssmd-soak-") as directory:
        text = ENVIRONMENT.format(seed=seed, markets=20, rate=rate).replace("segment_bytes: 65536", "segment_bytes: 16777216")
        text += "tape:\n  file_bytes: 4294967296\n"  # one file: all of it is compared afterwards, so nothing is pruned
        write_registry(Path(directory), {ENV: text}, definition_sha256())
        environment = resolve_environment(Workspace(Path(directory)), ENV, date_of(CLOCK.now_ns()))
        # The pause before a restart is shortened by up to a half at random.
        policy = RestartPolicy(limit=1000, first_s=seconds * 2, max_s=seconds * 2)
        async with LocalSystem(environment, dict(variables()), CLOCK, lambda _: None, policy=policy) as system:
            await system.until_capturing()
            pid = system.supervisor.processes()["connector"].pid
            before_mb = 0.0
            for _ in range(CAPTURED_BEFORE_S):
                await asyncio.sleep(1)
                before_mb = max(before_mb, rss_mb(pid))
            frames = int((await system.health("connector"))["stats"]["frames"])
            began = time.monotonic()
            system.supervisor.kill("nats-transport")
            waiting = asyncio.create_task(system.supervisor.wait_ready("nats-transport", deadline_s=seconds * 4 + 60))
            away_mb = 0.0
            while not waiting.done():
                away_mb = max(away_mb, rss_mb(pid))
                await asyncio.sleep(0.5)
            waiting.result()
            away_s = time.monotonic() - began
            await system.until_capturing()
            back = time.monotonic()
            during = int((await system.health("connector"))["stats"]["frames"]) - frames
            async with asyncio.timeout(600):
                while not await caught_up(system):  # noqa: ASYNC110 - another process is asked
                    await asyncio.sleep(0.2)
            caught_up_s = time.monotonic() - back
            after_mb = rss_mb(pid)
            await system.supervisor.stop("connector")
            client = await ControlClient.open(environment_url(system), ENV)
            for archiver in ("raw-archiver", "normalized-archiver"):
                answer = await client.request(archiver, "main", "flush", 120.0)
                if not answer["ok"]:
                    raise SystemExit(f"{archiver}: {answer['reason']}")
            await client.close()
            environment = system.environment
        tape = tape_directory(environment)
        summary = summarize(tape)
        names = Names(ENV, "kalshi", "main")
        expected = await reference(
            tape,
            names,
            mapper_of("kalshi"),
            clock=CLOCK,
            random=system_random,
            spool=Path(directory) / "reference",
            settings=environment.document.archive,
        )
        checks = [check_tape(summary), *check_archive(expected, await contents(open_storage(environment, dict(variables()))))]
    return {
        "away_s": round(away_s, 1),
        "frames_while_away": during,
        "frames_per_s_while_away": round(during / away_s),
        "sessions": len(summary.sessions),
        "rss_mb": {"before": round(before_mb, 1), "while_away": round(away_mb, 1), "caught_up": round(after_mb, 1)},
        "caught_up_after_s": round(caught_up_s, 1),
        "broken": [f"{check.name}: {check.detail}" for check in checks if not check.is_ok]
        + ([] if away_mb - before_mb <= RSS_GROWTH_MB_MAX else [f"memory grew by {away_mb - before_mb:.0f} MB"])
        + ([] if len(summary.sessions) == 1 else ["the capture was interrupted"]),
    }


def environment_url(system: LocalSystem) -> str:
    return system.environment.server_url("transport", system.variables)


async def caught_up(system: LocalSystem) -> bool:
    """The streams hold all but the last moments of the tape."""
    stats = (await system.health("connector"))["stats"]
    return int(stats["entries"]) - int(stats["acked_n"]) < 2000 and stats["session"] == stats["acked_session"]


async def main(given: argparse.Namespace) -> None:
    began = time.monotonic()
    figures: dict[str, Any] = {}
    if given.rounds:
        figures["kills"] = await kills(given.seed, given.rounds, given.batch)
    if given.away:
        figures["transport_away"] = await away(given.seed, given.away, given.rate)
    broken = [one for part in figures.values() for one in part["broken"]]
    took_s = round(time.monotonic() - began)
    result = write_measurement(
        given.output, seed=given.seed, rounds=given.rounds, took_s=took_s, figures=figures, is_good=not broken
    )
    print(json.dumps(result, indent=2))
    if broken:
        raise SystemExit("\n".join(broken))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--away", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    configure_logging("soak", CLOCK, sys.stderr, level="error")
    asyncio.run(main(parser.parse_args()))
