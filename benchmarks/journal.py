"""The journal beside the bare client, in turns on one fsync-always server, best of three rounds each: ratios first.

    python benchmarks/journal.py [EVENTS] [SINGLES] [LARGE]

append, single   p50 of one event acknowledged; bare = `Client.request` with the same headers
append, batch    events/s in atomic batches of 1000; bare = the same batches written by hand
replay           events/s decoded into envelopes; bare = raw pull with a callback that decodes the payload with msgspec
together         appends/s of one event each by 256 writers at once (group commit); bare = the same requests side by side
snapshot         ms to load an aggregate from its snapshot in a journal of SMALL and of LARGE events (the server's default sync
                 while filling); one in 500 events is its own
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import _table
import msgspec
import nats

from ssmd.domain.envelope import AggregateId, Envelope, decode_envelope, encode_envelope
from ssmd.services.embedded_servers import start_nats
from ssmd.streams.journal import AppendGroup
from ssmd.streams.journal_nats import NatsJournal
from ssmd.streams.journal_snapshots import NatsSnapshots, Snapshot
from ssmd.streams.topology import journal_stream

BATCH = 1000
ROUNDS = 3
WRITERS = 256
TURNS = 8
SMALL = 10_000
AGGREGATES = 500
LOADED = 100


def group(aggregate: AggregateId, after: int, count: int) -> AppendGroup:
    data = msgspec.Raw(msgspec.json.encode({"type": "bench.happened.v1", "note": "x" * 40}))
    events = [
        Envelope(
            f"0198a3c4-0000-7000-8000-{version:012d}",
            "bench.happened.v1",
            *_names(aggregate),
            version,
            version * 10**9,
            "bench",
            "0198a3c4-0000-7000-8000-000000000000",
            "",
            "",
            data,
        )
        for version in range(after + 1, after + 1 + count)
    ]
    return AppendGroup(aggregate, after, events)


def _names(aggregate: AggregateId) -> tuple[str, str]:
    return aggregate.aggregate, aggregate.key


async def ours(url: str, env: str, events: int, singles: int) -> dict[str, float]:
    journal = await NatsJournal.open(url, env, ensure=True)
    one, many = AggregateId("bench", ("one",)), AggregateId("bench", ("many",))
    times = []
    for version in range(singles):
        wanted = group(one, version, 1)
        begun = time.perf_counter()
        await journal.append([wanted], command_id=f"c{version}")
        times.append(time.perf_counter() - begun)
    groups = [group(many, version, BATCH) for version in range(0, events, BATCH)]
    begun = time.perf_counter()
    for wanted in groups:
        await journal.append([wanted], command_id=wanted.events[0].id)
    append_s = time.perf_counter() - begun
    together_s = await _together(lambda name: journal.append([group(AggregateId("bench", (name,)), 0, 1)], command_id=name))
    begun = time.perf_counter()
    count = 0
    async for batch in journal.replay(until=events + singles):
        count += len(batch)
    replay_s = time.perf_counter() - begun
    assert count == events + singles, count
    await journal.close()
    return {
        "single_p50_ms": statistics.median(times) * 1e3,
        "batch_per_s": events / append_s,
        "replay_per_s": count / replay_s,
        "together_per_s": WRITERS * TURNS / together_s,
    }


async def _together(append: Callable[[str], Awaitable[object]]) -> float:
    """Seconds that WRITERS writers take for TURNS appends each, to aggregates of their own."""

    async def write(writer: int) -> None:
        for turn in range(TURNS):
            await append(f"w{writer}-{turn}")

    begun = time.perf_counter()
    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    return time.perf_counter() - begun


async def snapshot_load_ms(directory: Path, sizes: Sequence[int]) -> list[float]:
    """Median ms to load an aggregate through its snapshot, at each size of the journal."""
    server = await start_nats(directory, sync_always=False)
    medians = []
    try:
        journal = await NatsJournal.open(server.url, "snapshots", ensure=True, timeout_s=30)
        snapshots = NatsSnapshots(server.url, "snapshots")
        head = 0
        for size in sizes:
            while head < size:
                numbers = range(head, head + BATCH)
                head = await journal.restore(head, [_spread(number) for number in numbers])
            await _take_snapshots(journal, snapshots)
            times = []
            for number in range(LOADED):
                begun = time.perf_counter()
                await _load(journal, snapshots, AggregateId("bench", (f"s{number}",)))
                times.append(time.perf_counter() - begun)
            medians.append(statistics.median(times) * 1e3)
        await snapshots.close()
        await journal.close()
    finally:
        await server.stop()
    return medians


def _spread(number: int) -> tuple[str, bytes]:
    aggregate = AggregateId("bench", (f"s{number % AGGREGATES}",))
    return f"bench.s{number % AGGREGATES}", encode_envelope(group(aggregate, number // AGGREGATES, 1).events[0])


async def _take_snapshots(journal: NatsJournal, snapshots: NatsSnapshots) -> None:
    """Of the first aggregates, ten events before their ends (so that ten are left to be read)."""
    for number in range(LOADED):
        aggregate = AggregateId("bench", (f"s{number}",))
        at = (await journal.load(aggregate))[-11]
        await snapshots.put(aggregate, Snapshot(at.position, at.envelope.version, at.envelope.id, "bench", b"{}"))


async def _load(journal: NatsJournal, snapshots: NatsSnapshots, aggregate: AggregateId) -> None:
    snapshot = await snapshots.get(aggregate)
    assert snapshot is not None
    # As a new process: nothing is remembered of the aggregate.
    journal._access.forget(journal._access.subject(aggregate))  # noqa: SLF001 - see above
    recorded = await journal.load(aggregate, after_version=snapshot.version - 1, after_position=snapshot.position - 1)
    assert len(recorded) == 11, len(recorded)
    assert recorded[0].envelope.id == snapshot.event_id


async def bare(url: str, env: str, events: int, singles: int) -> dict[str, float]:
    client = await nats.connect(url)
    await client.request(f"$JS.API.STREAM.CREATE.{env}-journal", json.dumps(journal_stream(env).config()).encode(), timeout=5)
    one, many = AggregateId("bench", ("one",)), AggregateId("bench", ("many",))
    times = []
    last = 0
    for version in range(singles):
        payload = encode_envelope(group(one, version, 1).events[0])
        begun = time.perf_counter()
        headers = {"Nats-Expected-Last-Subject-Sequence": str(last), "Nats-Msg-Id": f"c{version}"}
        answer = await client.request(f"{env}.journal.bench.one", payload, timeout=5, headers=headers)
        last = msgspec.json.decode(answer.data)["seq"]
        times.append(time.perf_counter() - begun)
    groups = [group(many, version, BATCH) for version in range(0, events, BATCH)]
    last = 0
    begun = time.perf_counter()
    for wanted in groups:
        last = await _batch(client, env, wanted.events, last)
    append_s = time.perf_counter() - begun
    begun = time.perf_counter()
    await _pull(client, env, events + singles)
    replay_s = time.perf_counter() - begun

    async def alone(name: str) -> None:
        payload = encode_envelope(group(AggregateId("bench", (name,)), 0, 1).events[0])
        headers = {"Nats-Expected-Last-Subject-Sequence": "0", "Nats-Msg-Id": name}
        await client.request(f"{env}.journal.bench.{name}", payload, timeout=30, headers=headers)

    together_s = await _together(alone)
    await client.close()
    return {
        "single_p50_ms": statistics.median(times) * 1e3,
        "batch_per_s": events / append_s,
        "replay_per_s": (events + singles) / replay_s,
        "together_per_s": WRITERS * TURNS / together_s,
    }


async def _batch(client: Any, env: str, events: Sequence[Envelope], last: int) -> int:
    name = events[0].id
    for number, event in enumerate(events, 1):
        headers = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(number)}
        if number == 1:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(last)
            headers["Nats-Msg-Id"] = name
        if number < len(events):
            await client.publish(f"{env}.journal.bench.many", encode_envelope(event), headers=headers)
        else:
            headers["Nats-Batch-Commit"] = "1"
            answer = await client.request(f"{env}.journal.bench.many", encode_envelope(event), timeout=10, headers=headers)
    return int(msgspec.json.decode(answer.data)["seq"])


async def _pull(client: Any, env: str, count: int) -> None:
    config = {"ack_policy": "none", "mem_storage": True, "num_replicas": 1, "inactive_threshold": 60 * 10**9}
    body = json.dumps({"stream_name": f"{env}-journal", "config": config}).encode()
    answer = await client.request(f"$JS.API.CONSUMER.CREATE.{env}-journal", body, timeout=5)
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{env}-journal.{json.loads(answer.data)['name']}"
    request = json.dumps({"batch": 2000, "expires": 30 * 10**9}).encode()
    seen = 0
    done = asyncio.Event()
    inbox = client.new_inbox()

    async def take(msg: Any) -> None:
        nonlocal seen
        decode_envelope(msg.data)
        seen += 1
        if not seen % 2000:
            await client.publish(subject, request, reply=inbox)
        if seen == count:
            done.set()

    await client.subscribe(inbox, cb=take, pending_msgs_limit=0, pending_bytes_limit=0)
    for _ in range(2):
        await client.publish(subject, request, reply=inbox)
    await done.wait()


def _best(figures: list[dict[str, float]]) -> dict[str, float]:
    """Each figure's best round: what others do on the machine only ever makes it worse."""
    return {name: (min if name.endswith("_ms") else max)(one[name] for one in figures) for name in figures[0]}


async def main(events: int, singles: int, large: int) -> None:
    _table.heading()
    with tempfile.TemporaryDirectory() as directory:
        server = await start_nats(Path(directory) / "nats", sync_always=True)
        try:
            rounds = []
            for number in range(ROUNDS):
                theirs = await bare(server.url, f"bare-{number}", events, singles)
                rounds.append((theirs, await ours(server.url, f"ours-{number}", events, singles)))
        finally:
            await server.stop()
        small_ms, large_ms = await snapshot_load_ms(Path(directory) / "snapshots", [SMALL, large])
    theirs, mine = (_best([one[side] for one in rounds]) for side in (0, 1))
    for name, what, unit, wanted in (
        ("single_p50_ms", "journal, one event appended, p50", "ms", "<= 1.5"),
        ("batch_per_s", "journal, appended in batches", "events/s", ">= 0.7"),
        ("replay_per_s", "journal, replayed", "events/s", ">= 0.7"),
        ("together_per_s", "journal, appended by many at once", "events/s", "> 1"),
    ):
        own, base = mine[name], theirs[name]
        digits = 2 if unit == "ms" else 0
        _table.row(own / base, what, f"{own:,.{digits}f} {unit}", f"{base:,.{digits}f} {unit}, bare client", wanted)
    _table.row(
        large_ms / small_ms,
        f"aggregate loaded from its snapshot, of {large:,}",
        f"{large_ms:.2f} ms",
        f"{small_ms:.2f} ms, of {SMALL:,} events",
        "<= 2",
    )


if __name__ == "__main__":
    sizes = [int(text) for text in sys.argv[1:]]
    defaults = [50_000, 500, 1_000_000]
    asyncio.run(main(*[*sizes, *defaults[len(sizes) :]]))
