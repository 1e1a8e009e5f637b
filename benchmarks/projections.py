"""Rebuilding every view from JetStream into a Redis-compatible cache, events per second.

    python benchmarks/projections.py [--events N]

Starts both servers on loopback, in a directory of its own. The journal is a mix as a busy day makes it: gap closings,
drifts, seals, day steps. Baselines of the same run: the journal read and its envelopes decoded, nothing else; the bare
thing that a naive program would do, one HSET for each event in pipelines of 1000; and the same folds into memory.
Each row is wall clock and, because a machine is seldom idle, CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from ssmd.domain import archive, capture
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.identifiers import system_random
from ssmd.projections.captures import CAPTURES
from ssmd.projections.days import DAYS
from ssmd.projections.gaps import GAPS
from ssmd.projections.inventory import INVENTORY
from ssmd.projections.projection import Projection
from ssmd.projections.rebuild import fold_in_memory, rebuild
from ssmd.projections.store_redis import RedisRowStore
from ssmd.projections.views import PROJECTIONS
from ssmd.services.embedded_servers import start_cache, start_nats
from ssmd.streams.journal import AppendGroup
from ssmd.streams.journal_nats import NatsJournal

SECOND = 1_000_000_000
START = 1_778_760_000 * SECOND
PER_APPEND = 500


def event_at(number: int) -> tuple[AggregateId, msgspec.Struct]:
    """The `number`-th event of the mix."""
    at_ns = START + number * SECOND // 20
    tickers = (f"KXBTC15M-{number % 200}",)
    if number % 50 == 0:
        key = f"raw/bench/kalshi/2026/05/14/main-a1-{number:020}-{number:020}.jsonl.zst"
        file = archive.SegmentFile(key, "raw", 1000, "ab" * 32, 5000, "cd" * 32, 100, at_ns, at_ns + 1)
        sealed = archive.SegmentSealed("a1", number, number, "id", (file,), (archive.SessionReached(7, number),))
        return AggregateId("archive", ("kalshi", "2026-05-14", "raw", "main")), sealed
    event: capture.CaptureEvent
    if number % 2:
        event = capture.GapOpened(7, number, 0, at_ns, f"g{number}", "stale", at_ns, "trade", 1, 2, 3, tickers, "silence")
    else:
        event = capture.GapClosed(7, number, 0, at_ns, f"g{number - 1}", at_ns - SECOND // 20, at_ns, tickers)
    return AggregateId("capture", ("kalshi", "main")), event


async def fill(journal: NatsJournal, count: int) -> None:
    versions: dict[AggregateId, int] = {}
    for start in range(1, count + 1, PER_APPEND):
        before = dict(versions)
        groups: dict[AggregateId, list[Envelope]] = {}
        for number in range(start, min(start + PER_APPEND, count + 1)):
            aggregate, event = event_at(number)
            versions[aggregate] = versions.get(aggregate, 0) + 1
            data = msgspec.to_builtins(event)
            data.pop("type")
            envelope = Envelope(
                f"0190-{number:032}",
                tag_of(event),
                aggregate.aggregate,
                aggregate.key,
                versions[aggregate],
                START + number,
                "connector:kalshi-0",
                "0190-request",
                "0190-cause",
                "c0ffee",
                msgspec.Raw(msgspec.json.encode(data)),
            )
            groups.setdefault(aggregate, []).append(envelope)
        appends = [AppendGroup(aggregate, before.get(aggregate, 0), events) for aggregate, events in groups.items()]
        await journal.append(appends, command_id=f"fill-{start}")


async def read(journal: NatsJournal) -> None:
    async for _ in journal.replay():
        pass


async def bare(journal: NatsJournal, url: str) -> None:
    """Every event into a hash as it comes, and the position with each pipeline: no fold, no digest, no atomicity."""
    client = Redis.from_url(url)
    try:
        async for batch in journal.replay():
            for start in range(0, len(batch), 1000):
                piece = batch[start : start + 1000]
                pipeline = client.pipeline(transaction=False)
                for message in piece:
                    pipeline.hset("bare", str(message.position), message.payload)
                pipeline.set("bare:position", piece[-1].position)
                await pipeline.execute()
    finally:
        await client.aclose()


async def measured(name: str, count: int, work: Callable[[], Awaitable[object]], results: dict[str, dict[str, int]]) -> None:
    begun, cpu = time.perf_counter(), time.process_time()
    await work()
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    results[name] = {"events_per_s": round(count / wall), "events_per_cpu_s": round(count / cpu)}
    print(f"{name:<40} {count / wall:>10,.0f} events/s {count / cpu:>10,.0f} per CPU second", file=sys.stderr)


async def run(count: int, directory: Path) -> dict[str, dict[str, int]]:
    nats = await start_nats(directory / "nats", sync_always=True)
    cache = await start_cache(directory / "cache")
    journal = await NatsJournal.open(nats.url, "bench", ensure=True)
    store = RedisRowStore(cache.url, "bench", random=system_random)
    results: dict[str, dict[str, int]] = {}
    try:
        await fill(journal, count)
        await measured("replay, decoded, not folded", count, lambda: read(journal), results)
        counting = Projection("counting", 1, frozenset({"capture", "archive"}), lambda _rows, _recorded, _event: None)
        await measured("rebuild to redis: no rows", count, lambda: rebuild(journal, store, counting), results)
        await measured("bare: one HSET an event", count, lambda: bare(journal, cache.url), results)
        for projection, delivered in (
            (CAPTURES, count - count // 50),
            (GAPS, count - count // 50),
            (INVENTORY, count // 50),
            (DAYS, count),
        ):
            # What is counted is what the journal delivered to it: others are filtered out by the server.
            name = f"rebuild to redis: {projection.name}"
            await measured(name, delivered, lambda view=projection: rebuild(journal, store, view), results)  # type: ignore[misc]
        await measured("all views in memory", count, lambda: fold_in_memory(journal, PROJECTIONS), results)
    finally:
        await store.close()
        await journal.close()
        await cache.stop()
        await nats.stop()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(asyncio.run(run(arguments.events, Path(directory))), indent=2))


if __name__ == "__main__":
    main()
