"""Rebuilding every view from JetStream into a Redis-compatible cache, events per second.

    python benchmarks/projections.py [--events N]

Starts both servers on loopback, in a directory of its own. The journal is a mix as a busy day makes it: gap openings and
closings, seals. For each view, in turn, ROUNDS times: the bare thing (nats-py pulls the same messages undecoded, redis-py
writes the rows the view ends with in pipelines of 1000, nothing is folded) and our rebuild, which decodes, folds, keeps
position and digest, and swaps. The best round of each counts, as others on the machine only ever make it worse; so does
CPU time of this process. Beside them: the journal read and decoded only, and a naive program's one HSET for each event.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import _table
import msgspec
import nats
from redis.asyncio import Redis

from ssmd.domain import archive, capture
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.identifiers import system_random
from ssmd.projections.captures import CAPTURES
from ssmd.projections.days import DAYS
from ssmd.projections.gaps import GAPS
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
ROUNDS = 3
HINT = 60_000


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


async def pull(url: str, count: int, subjects: list[str]) -> None:
    """`count` messages by nats-py, as fast as it hands them out; nothing is decoded."""
    client = await nats.connect(url)
    try:
        config = {"ack_policy": "none", "mem_storage": True, "num_replicas": 1, "filter_subjects": subjects}
        body = json.dumps({"stream_name": "bench-journal", "config": config}).encode()
        answer = await client.request("$JS.API.CONSUMER.CREATE.bench-journal", body, timeout=5)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.bench-journal.{json.loads(answer.data)['name']}"
        request = json.dumps({"batch": 2000, "expires": 30 * 10**9}).encode()
        inbox, done, seen = client.new_inbox(), asyncio.Event(), 0

        async def take(_: Any) -> None:
            nonlocal seen
            seen += 1
            if not seen % 2000:
                await client.publish(subject, request, reply=inbox)
            if seen == count:
                done.set()

        await client.subscribe(inbox, cb=take, pending_msgs_limit=0, pending_bytes_limit=0)
        for _ in range(2):
            await client.publish(subject, request, reply=inbox)
        await done.wait()
    finally:
        await client.close()


async def bare_rebuild(nats_url: str, cache_url: str, count: int, subjects: list[str], rows: dict[str, bytes]) -> None:
    """As much as any rebuild has to move: the messages in, the final rows out."""
    await pull(nats_url, count, subjects)
    client = Redis.from_url(cache_url)
    try:
        keys = list(rows)
        for start in range(0, len(keys), 1000):
            pipeline = client.pipeline(transaction=False)
            for key in keys[start : start + 1000]:
                pipeline.hset("bare", key, rows[key])
            await pipeline.execute()
    finally:
        await client.aclose()


async def measured(name: str, count: int, work: Callable[[], Awaitable[object]], results: dict[str, dict[str, int]]) -> None:
    begun, cpu = time.perf_counter(), time.process_time()
    await work()
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    best = results.setdefault(name, {"events_per_s": 0, "events_per_cpu_s": 0})
    best["events_per_s"] = max(best["events_per_s"], round(count / wall))
    best["events_per_cpu_s"] = max(best["events_per_cpu_s"], round(count / cpu))


async def rows_of(journal: NatsJournal, view: Projection) -> dict[str, bytes]:
    memory = await fold_in_memory(journal, [view])
    stamp = await memory.current(view.name)
    return {} if stamp is None else dict(await memory.scan(stamp, limit=max(1, stamp.rows)))


async def run(count: int, directory: Path) -> dict[str, dict[str, int]]:
    server = await start_nats(directory / "nats", sync_always=True)
    cache = await start_cache(directory / "cache")
    journal = await NatsJournal.open(server.url, "bench", ensure=True)
    store = RedisRowStore(cache.url, "bench", random=system_random)
    results: dict[str, dict[str, int]] = {}
    try:
        await fill(journal, count)
        counting = Projection("counting", 1, frozenset({"capture", "archive"}), lambda _rows, _recorded, _event: None)
        # What is counted is what the journal delivers to a view: other kinds are filtered out by the server.
        views = ((counting, count), (CAPTURES, count - count // 50), (GAPS, count - count // 50), (DAYS, count))
        await measured("bare: one HSET an event", count, lambda: bare(journal, cache.url), results)
        for _ in range(ROUNDS):
            await measured("replay, decoded, not folded", count, lambda: read(journal), results)
            for view, delivered in views:
                subjects = [f"bench.journal.{one}.>" for one in sorted(view.aggregates & {"capture", "archive"})]
                rows = await rows_of(journal, view)
                theirs = partial(bare_rebuild, server.url, cache.url, delivered, subjects, rows)
                await measured(f"bare: {view.name}, {len(rows):,} rows", delivered, theirs, results)
                await measured(f"rebuild: {view.name}", delivered, partial(rebuild, journal, store, view), results)
        await measured("all views in memory", count, lambda: fold_in_memory(journal, PROJECTIONS), results)
        for view, _ in views:
            ours = results[f"rebuild: {view.name}"]["events_per_s"]
            bare_rate = next(one["events_per_s"] for name, one in results.items() if name.startswith(f"bare: {view.name},"))
            _table.row(
                ours / bare_rate,
                f"view {view.name} rebuilt into Redis",
                f"{ours:,} events/s",
                f"{bare_rate:,} events/s, bare clients",
                f"hint {HINT:,} events/s",
            )
    finally:
        await store.close()
        await journal.close()
        await cache.stop()
        await server.stop()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    arguments = parser.parse_args()
    _table.heading()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(asyncio.run(run(arguments.events, Path(directory))), indent=2))


if __name__ == "__main__":
    main()
