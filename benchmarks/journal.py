"""The journal beside the bare client, in turns on one fsync-always server, best of three rounds each: ratios first.

    python benchmarks/journal.py [EVENTS] [SINGLES]

append, single   p50 of one event acknowledged; bare = `Client.request` with the same headers
append, batch    events/s in atomic batches of 1000; bare = the same batches written by hand
replay           events/s decoded into envelopes; bare = raw pull with a callback that decodes the payload with msgspec
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import nats

from ssmd.domain.envelope import AggregateId, Envelope, decode_envelope, encode_envelope
from ssmd.services.embedded_servers import start_nats
from ssmd.streams.journal import AppendGroup
from ssmd.streams.journal_nats import NatsJournal
from ssmd.streams.topology import journal_stream

BATCH = 1000
ROUNDS = 3


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
    begun = time.perf_counter()
    count = 0
    async for batch in journal.replay():
        count += len(batch)
    replay_s = time.perf_counter() - begun
    assert count == events + singles, count
    await journal.close()
    return {"single_p50_ms": statistics.median(times) * 1e3, "batch_per_s": events / append_s, "replay_per_s": count / replay_s}


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
    await client.close()
    return {
        "single_p50_ms": statistics.median(times) * 1e3,
        "batch_per_s": events / append_s,
        "replay_per_s": (events + singles) / replay_s,
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


async def main(events: int, singles: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = await start_nats(Path(directory) / "nats", sync_always=True)
        try:
            rounds = []
            for number in range(ROUNDS):
                theirs = await bare(server.url, f"bare-{number}", events, singles)
                rounds.append((theirs, await ours(server.url, f"ours-{number}", events, singles)))
        finally:
            await server.stop()
    theirs, mine = (_best([one[side] for one in rounds]) for side in (0, 1))
    ratios = {
        "single_p50": mine["single_p50_ms"] / theirs["single_p50_ms"],
        "batch": mine["batch_per_s"] / theirs["batch_per_s"],
        "replay": mine["replay_per_s"] / theirs["replay_per_s"],
    }
    targets = {"single_p50": "<= 1.5", "batch": ">= 0.7", "replay": ">= 0.7"}
    for name, ratio in ratios.items():
        print(f"{name:12} {ratio:5.2f} of the bare client (wanted {targets[name]})")
    for label, figures in (("journal", mine), ("bare", theirs)):
        print(f"{label:12}", "  ".join(f"{name} {value:,.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    sizes = [int(text) for text in sys.argv[1:]]
    asyncio.run(main(sizes[0] if sizes else 50_000, sizes[1] if len(sizes) > 1 else 500))
