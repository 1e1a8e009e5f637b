"""A journal of many aggregates: what its server takes, and how long it takes to come back after a kill.

    python benchmarks/soak_journal_growth.py [--aggregates 1000000]

One listing event per aggregate, written as an import is, then kill -9 and a restart. Wanted: the server's resident memory
at most 500 MB at any time, ready again within 5 s, the last event there. Writes docs/measurements/journal-growth.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import msgspec
from _measurement import MEASUREMENTS, write_measurement

from ssmd.domain.envelope import AggregateId, Envelope, encode_envelope
from ssmd.services.embedded_servers import start_nats
from ssmd.streams.journal_nats import NatsJournal

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = MEASUREMENTS / "journal-growth.json"
RSS_MB_MAX = 500
RESTART_S_MAX = 5.0
BATCH = 1000


def listing(number: int) -> tuple[str, bytes]:
    aggregate = AggregateId("listing", ("kalshi", f"KXSOAK-26NOV{number:09}"))
    fields = {"type": "listing.market-listed.v1", "ticker": f"KXSOAK-26NOV{number:09}-T", "title": "x" * 40}
    data = msgspec.Raw(msgspec.json.encode(fields))
    name = f"0198a3c4-0000-7000-8000-{number:012d}"
    event = Envelope(name, "listing.market-listed.v1", "listing", aggregate.key, 1, number, "soak", name, "", "", data)
    return f"listing.{aggregate.key}", encode_envelope(event)


def rss_mb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    raise SystemExit("no VmRSS: this needs Linux")


async def main(aggregates: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = await start_nats(Path(directory) / "nats", sync_always=True)
        try:
            journal = await NatsJournal.open(server.url, "soak", ensure=True, timeout_s=30)
            began = time.perf_counter()
            highest = 0
            for first in range(0, aggregates, BATCH):
                await journal.restore(first, [listing(number) for number in range(first, first + BATCH)])
                if not first % 50_000:
                    highest = max(highest, rss_mb(server.pid))
                    print(f"  {first:,} aggregates, {rss_mb(server.pid)} MB", flush=True)
            written_s = time.perf_counter() - began
            highest = max(highest, rss_mb(server.pid))
            server.kill()
            began = time.perf_counter()
            await server.restart(deadline_s=120)
            restart_s = time.perf_counter() - began
            last = await journal.load(AggregateId("listing", ("kalshi", f"KXSOAK-26NOV{aggregates - 1:09}")))
            assert [one.position for one in last] == [aggregates]
            restarted = rss_mb(server.pid)
            await journal.close()
        finally:
            await server.stop()
    is_good = max(highest, restarted) <= RSS_MB_MAX and restart_s <= RESTART_S_MAX
    figures = {
        "aggregates": aggregates,
        "events_per_s_written": round(aggregates / written_s),
        "rss_mb_max": highest,
        "restart_after_kill_s": round(restart_s, 2),
        "rss_mb_after_restart": restarted,
    }
    wanted = {"rss_mb_max": RSS_MB_MAX, "restart_after_kill_s": RESTART_S_MAX}
    report = write_measurement(OUTPUT, seed=None, rounds=1, wanted=wanted, figures=figures, is_good=is_good)
    print(json.dumps(report["figures"], indent=2), report["verdict"])
    if not is_good:
        raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--aggregates", type=int, default=1_000_000)
    asyncio.run(main(parser.parse_args().aggregates))
