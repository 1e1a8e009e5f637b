"""Rebuild under fire: writers, a live projector and a reader that never stops, while a view is rebuilt and its cache dies.

    python benchmarks/soak_projections.py [--rounds 20] [--rate 1000] [--seed 1] [--output docs/measurements/projections.json]

Each round rebuilds the view once. One step of it (each call to the cache in turn) meets a trouble: nothing, the cache's data
flushed, or the cache killed with SIGKILL and started again. The reader polls all the while; every page it saw is compared
afterwards with a count made from the journal alone: a page is a mixture when its rows disagree or are not those of its
position. At the end the view is verified, and a deliberately wrong fold has to diverge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from _measurement import MEASUREMENTS, write_measurement

from ssmd.application.handler import Application
from ssmd.clock import SystemClock
from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.errors import Conflict, SsmdError, Unavailable
from ssmd.identifiers import system_random, uuid7
from ssmd.projections.projection import Projection, Rows, row_key
from ssmd.projections.rebuild import Rebuilt, verify
from ssmd.projections.store_redis import RedisRowStore
from ssmd.projections.working_set import decode_row
from ssmd.services.embedded_servers import RunningServer, start_cache, start_nats
from ssmd.services.projection_record import ProjectionRecord
from ssmd.services.projector import ProjectorService, ProjectorSettings
from ssmd.streams.journal import AppendGroup
from ssmd.streams.journal_nats import NatsJournal

ROOT = Path(__file__).resolve().parents[1]
ENV = "fire"
PER_APPEND = 50
WRITERS = 4
CALM_S = 0.3
"""Between rounds, so that the live projector and the reader see more than troubles."""
STEPS = 8
"""Calls to the cache in a rebuild of a short journal: look, begin, commits, look, swap; the last steps may not be reached."""
TROUBLES = ("flush", "kill")


class Count(msgspec.Struct, frozen=True):
    events: int
    position: int


def fold(rows: Rows, recorded: Any, event: msgspec.Struct) -> None:
    """Two rows that must always agree."""
    del event
    for name in ("left", "right"):
        before = rows.get(row_key(name), Count) or Count(0, 0)
        rows.put(row_key(name), Count(before.events + 1, recorded.position))


def wrong_fold(rows: Rows, recorded: Any, event: msgspec.Struct) -> None:
    if recorded.position != 3:
        fold(rows, recorded, event)


COUNTS = Projection("counts", 1, frozenset({"trading-day"}), fold)


@dataclass
class Seen:
    """What the reader saw: pages as (position, events left, events right), and errors by type."""

    pages: list[tuple[int, int, int]] = field(default_factory=list)
    reads: int = 0
    unavailable: int = 0
    other_errors: Counter[str] = field(default_factory=Counter)
    backwards: int = 0


class TroubledStore:
    """The rebuild's way to the cache: the trouble strikes after its `step`-th call."""

    def __init__(self, store: RedisRowStore, step: int, strike: Any) -> None:
        self._store, self._step, self._strike = store, step, strike
        self.struck_at = ""

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            result = await getattr(self._store, name)(*arguments, **options)
            if self._step == 0:
                self.struck_at = name
                await self._strike()
            self._step -= 1
            return result

        return call


async def write(journal: NatsJournal, name: str, rate: int, stop: asyncio.Event) -> int:
    """Append `rate` events a second, one aggregate after another; how many it was."""
    loop, written, began = asyncio.get_running_loop(), 0, asyncio.get_running_loop().time()
    while not stop.is_set():
        aggregate = AggregateId("trading-day", (f"{name}{written // 2000}",))
        version = written % 2000
        events = [
            Envelope(
                uuid7(SystemClock().now_ns(), system_random),
                tag_of(trading_day.Activated),
                aggregate.aggregate,
                aggregate.key,
                version + number,
                SystemClock().now_ns(),
                "soak",
                "",
                "",
                "",
                msgspec.Raw(b"{}"),
            )
            for number in range(1, PER_APPEND + 1)
        ]
        await journal.append([AppendGroup(aggregate, version, events)], command_id=events[0].id)
        written += PER_APPEND
        await asyncio.sleep(max(0.0, began + written / rate - loop.time()))
    return written


async def read(store: RedisRowStore, seen: Seen, stop: asyncio.Event) -> None:
    last = 0
    while not stop.is_set():
        seen.reads += 1
        try:
            page = await store.read("counts", keys=["left", "right"])
        except Unavailable:
            seen.unavailable += 1
            await asyncio.sleep(0.005)
            continue
        except SsmdError as error:
            seen.other_errors[type(error).__name__] += 1
            continue
        rows = {key: decode_row(value, Count) for key, value in page.rows.items()}
        left, right = (rows[name].events if name in rows else 0 for name in ("left", "right"))
        if not seen.pages or seen.pages[-1] != (page.stamp.position, left, right):
            seen.pages.append((page.stamp.position, left, right))
        seen.backwards += page.stamp.position < last
        last = page.stamp.position
        await asyncio.sleep(0.002)


async def whole_again(store: RedisRowStore) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(Unavailable):
                if await store.current("counts") is not None:
                    return
            await asyncio.sleep(0.02)


async def rebuild_rounds(
    rounds: int, seed: int, journal: NatsJournal, store: RedisRowStore, cache: RunningServer, record: ProjectionRecord
) -> tuple[Counter[str], Counter[str]]:
    """Outcomes, and where troubles struck."""
    outcomes: Counter[str] = Counter()
    struck: Counter[str] = Counter()
    plan = [(trouble, step) for step in range(STEPS) for trouble in TROUBLES]
    random.Random(seed).shuffle(plan)
    for number in range(rounds):
        await whole_again(store)
        await asyncio.sleep(CALM_S)
        trouble, step = plan[number % len(plan)]
        strike = store.clear if trouble == "flush" else cache.restart
        if trouble == "kill":

            async def strike() -> None:
                cache.kill()
                await cache.restart()

        troubled = TroubledStore(store, step, strike)
        version = Projection("counts", 1, COUNTS.aggregates, fold)
        try:
            outcome = (await record.rebuild(journal, troubled, version)).outcome
        except Conflict:
            outcome = "conflict"  # type: ignore[assignment]
        except Unavailable:
            outcome = "unavailable"  # type: ignore[assignment]
        outcomes[outcome] += 1
        struck[f"{trouble} after {troubled.struck_at or 'the end'}"] += 1
    await whole_again(store)
    return outcomes, struck


async def counted(journal: NatsJournal) -> list[int]:
    """Positions of the events that count."""
    return [message.position async for batch in journal.replay(filters=["trading-day"]) for message in batch]


async def soak(rounds: int, rate: int, seed: int, directory: Path) -> dict[str, Any]:
    nats = await start_nats(directory / "nats", sync_always=True)
    cache = await start_cache(directory / "cache")
    journal = await NatsJournal.open(nats.url, ENV, ensure=True)
    store, reading = (RedisRowStore(cache.url, ENV, random=system_random, deadline_seconds=5) for _ in range(2))
    record = ProjectionRecord(Application(journal, CATALOGUE, SystemClock(), system_random), "soak")
    projector = ProjectorService(
        journal,
        store,
        None,
        random=system_random,
        projections=[COUNTS],
        settings=ProjectorSettings(retry_max_s=0.2, standby_s=0.2, head_s=0.1),
        record=ProjectionRecord(Application(journal, CATALOGUE, SystemClock(), system_random), "projector:soak"),
    )
    seen, stop, began = Seen(), asyncio.Event(), time.perf_counter()
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(projector.run()),
        asyncio.create_task(read(reading, seen, stop)),
    ]
    writers = [asyncio.create_task(write(journal, f"w{one}-", rate // WRITERS, stop)) for one in range(WRITERS)]
    try:
        outcomes, struck = await rebuild_rounds(rounds, seed, journal, store, cache, record)
        seconds = time.perf_counter() - began
        stop.set()
        written = sum(await asyncio.gather(*writers))
        await projector.flush()
        verified = await verify(journal, store, COUNTS)
        wrong: Rebuilt = await record.rebuild(journal, store, Projection("counts", 1, COUNTS.aggregates, wrong_fold))
        positions = await counted(journal)
    finally:
        stop.set()
        await projector.stop()
        await asyncio.wait([*tasks, *writers], timeout=30)
        await store.close()
        await reading.close()
        await journal.close()
        await cache.stop()
        await nats.stop()
    mixtures = [page for page in seen.pages if not page[1] == page[2] == bisect_right(positions, page[0])]
    return {
        "seconds": round(seconds, 1),
        "events_written": written,
        "events_per_second": round(written / seconds),
        "rebuilds": rounds,
        "outcomes": dict(sorted(outcomes.items())),
        "struck": dict(sorted(struck.items())),
        "reads": seen.reads,
        "reads_unavailable": seen.unavailable,
        "reads_other_errors": dict(seen.other_errors),
        "positions_seen": len(seen.pages),
        "mixtures": len(mixtures),
        "positions_backwards": seen.backwards,
        "verified": verified.is_good,
        "wrong_fold": wrong.outcome,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=MEASUREMENTS / "projections.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(soak(arguments.rounds, arguments.rate, arguments.seed, Path(directory)))
    is_good = (
        figures["mixtures"] == 0
        and figures["positions_backwards"] == 0
        and not figures["reads_other_errors"]
        and figures["verified"]
        and figures["wrong_fold"] == "diverged"
        and figures["positions_seen"] > 0
    )
    report = write_measurement(arguments.output, seed=arguments.seed, rounds=arguments.rounds, figures=figures, is_good=is_good)
    print(json.dumps(report, indent=2))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
