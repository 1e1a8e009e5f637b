"""The connector at scale and for long: 20,000 open markets, and ten times the measured peak of one market.

    python benchmarks/soak_connector.py [--markets 20000] [--churn 1000] [--seconds 3600] [--rate 6430] [--roll 600]
                                        [--only markets|load]

First all markets of a simulated venue (its own process) are subscribed and the coming and going of --churn of them is
followed; then --seconds of --rate messages a second, every fourth market replaced after --roll seconds. The streams are a
sink that acknowledges and forgets, so that what is measured is the connector. Writes docs/measurements/connector.json.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import httpx
from _measurement import MEASUREMENTS, write_measurement

from ssmd.application.handler import Application
from ssmd.clock import SystemClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.exchanges.kalshi.translate import CHANGES, SIZES
from ssmd.identifiers import system_random
from ssmd.services.connector.group import ConnectorGroup
from ssmd.services.connector.kalshi_venue import KalshiAccess
from ssmd.services.connector.service import ConnectorService
from ssmd.services.connector.settings import ConnectorSettings
from ssmd.services.connector.universe import Selection, Universe
from ssmd.services.connector.venue import Venue
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.transport import Outgoing, StreamMessage, StreamName, StreamState, stream_of

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = MEASUREMENTS / "connector.json"
CHANNELS = ("orderbook_delta", "ticker", "trade", "market_lifecycle_v2")
RSS_MAX_MB = 500
SUBSCRIBED_MAX_S = 60
SLOPE_MAX_MB_H = 20
BACKLOG_MAX = 2_000


class Sink:
    """A transport that acknowledges everything and keeps the last message of each raw and mark subject."""

    def __init__(self) -> None:
        self.kept: dict[str, StreamMessage] = {}
        self.counts: dict[StreamName, int] = {"raw": 0, "market": 0, "dlq": 0}

    async def state(self, stream: StreamName) -> StreamState:
        count = self.counts[stream]
        return StreamState("aa", min(1, count), count, count, 0)

    async def last(self, stream: StreamName, subject: str) -> StreamMessage | None:
        del stream
        return self.kept.get(subject)

    async def get(self, stream: StreamName, seq: int) -> StreamMessage | None:
        del stream, seq
        return None

    async def read(self, stream: StreamName, *, after: int = 0, filters: Sequence[str] = ()) -> Any:
        raise NotImplementedError

    async def publisher(self) -> Any:
        return _SinkLink(self)

    async def close(self) -> None:
        return


class _SinkLink:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._acks: dict[StreamName, int] = {"raw": 0, "market": 0, "dlq": 0}

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            stream = stream_of(message.subject)
            self._acks[stream] += 1
            self._sink.counts[stream] += 1
            if stream == "raw" or ".mark." in message.subject:
                seq = self._sink.counts[stream]
                self._sink.kept[message.subject] = StreamMessage(seq, message.subject, message.payload, message.message_id)

    def acks(self, stream: StreamName) -> int:
        return self._acks[stream]

    async def progress(self, timeout_s: float) -> None:
        del timeout_s
        await asyncio.sleep(0)

    async def close(self) -> None:
        return


def serve(config: SimulatorConfig, pipe: Connection) -> None:
    """The venue, in a process of its own."""

    async def run() -> None:
        simulator = Simulator(config, SystemClock())
        await simulator.start()
        # Readable once its other end is gone: who was killed leaves no venue behind.
        asyncio.get_running_loop().add_reader(pipe.fileno(), os._exit, 0)
        pipe.send((simulator.rest_url, simulator.websocket_url, simulator.control_url))
        await simulator.run()

    asyncio.run(run())


class Venues:
    """A simulated venue while the `with` lasts."""

    def __init__(self, config: SimulatorConfig) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe = ours  # the venue ends when this is closed
        self._process = context.Process(target=serve, args=(config, theirs), daemon=True)
        self._process.start()
        if not ours.poll(120):
            raise SystemExit("the simulator did not start")
        self.rest_url, self.websocket_url, self.control_url = ours.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(10)


def group_of(venues: Venues, directory: Path, per_connection: int) -> ConnectorGroup:
    clock = SystemClock()
    access = KalshiAccess(
        rest_url=venues.rest_url,
        websocket_url=venues.websocket_url,
        channels=CHANNELS,
        tickers=(),
        tickers_max=100_000,
        clock=clock,
    )
    application = Application(MemoryJournal("soak"), CATALOGUE, clock, system_random)
    sink = Sink()

    def member(connection: str, venue: Venue) -> ConnectorService:
        tape = directory / connection
        settings = ConnectorSettings(bytes_max=64 << 30)
        return ConnectorService(venue, "soak", connection, tape, sink, application, clock, system_random, settings)

    venue = replace(access.venue("kalshi", "kalshi-dollars"), pause_at=lambda _: "")
    return ConnectorGroup(
        venue,
        Universe(Selection(), access.listing()),
        member,
        system_random,
        instance="main",
        channels=CHANNELS,
        tickers_per_connection=per_connection,
    )


def rss_mb() -> float:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


async def wait(condition: Any, seconds: float, what: str) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise SystemExit(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def all_markets(venues: Venues, directory: Path, markets: int, churn: int, per_connection: int) -> dict[str, Any]:
    """Subscribe to all markets; then let `churn` of them come and go."""
    group = group_of(venues, directory, per_connection)
    began = time.monotonic()
    running = asyncio.create_task(group.run())
    stats = group.health
    try:
        await wait(lambda: _is_placed(stats().stats, markets) or running.done(), 300, f"{markets} markets subscribed")
        if running.done():
            running.result()
        subscribed_s = time.monotonic() - began
        seen = set(group.universe.tickers)
        came = went = 0
        peak_mb = rss_mb()
        deadline = time.monotonic() + 900
        while (came < churn or went < churn) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            peak_mb = max(peak_mb, rss_mb())
            now = set(group.universe.tickers)
            came, went, seen = came + len(now - seen), went + len(seen - now), now
        await wait(lambda: not stats().stats["unplaced"], 60, "the markets that came are subscribed")
        # Let the venue say what is open, and compare.
        found = stats().stats
        return {
            "markets": markets,
            "subscribed_s": round(subscribed_s, 1),
            "connections": found["connections"],
            "came": came,
            "went": went,
            "unplaced": found["unplaced"],
            "sessions": found["sessions"],
            "frames": found["frames"],
            "rss_peak_mb": round(peak_mb),
        }
    finally:
        await group.stop()
        await asyncio.wait({running}, timeout=60)


def _is_placed(stats: dict[str, Any], markets: int) -> bool:
    # A connection that is not there yet has nothing to place.
    is_connected = int(stats.get("sessions", 0)) >= int(stats.get("connections", 1))
    return is_connected and int(stats["markets"]) >= markets and not stats["unplaced"] and stats["commands_waiting"] == 0


def remember_numbers() -> None:
    """Fill what remembers the texts of numbers: it is bounded, and an hour at full load fills it within minutes."""
    for number in range(60_000):
        text = f"{number // 100}.{number % 100:02d}"
        SIZES[text], CHANGES[text] = number, number


async def load(venues: Venues, directory: Path, seconds: float) -> dict[str, Any]:
    """`seconds` of load; RSS, tasks and backlog sampled, the first sixth left out."""
    remember_numbers()
    group = group_of(venues, directory, 5000)
    running = asyncio.create_task(group.run())
    samples: list[tuple[float, float, int, int]] = []
    try:
        await wait(lambda: int(group.health().stats.get("frames", 0)) > 100, 60, "frames")
        began, frames = time.monotonic(), int(group.health().stats["frames"])
        while (at := time.monotonic() - began) < seconds and not running.done():
            await asyncio.sleep(min(1.0, seconds / 60))
            member = group._members[0]  # noqa: SLF001 - its places are not summed
            stats = member.health().stats
            backlog = int(stats["entries"]) - int(stats["acked_n"])
            samples.append((at, rss_mb(), len(asyncio.all_tasks()), backlog))
            tidy(directory)
        found = group.health().stats
        kept = samples[len(samples) // 6 :]
        return {
            "seconds": round(seconds),
            "frames": int(found["frames"]) - frames,
            "frames_s": round((int(found["frames"]) - frames) / (time.monotonic() - began)),
            "sessions": found["sessions"],
            "rss_mb": round(kept[-1][1]),
            "rss_slope_mb_h": round(slope([(at, rss) for at, rss, _, _ in kept]) * 3600, 2),
            "tasks": [min(one[2] for one in kept), max(one[2] for one in kept)],
            **backlog_of([one[3] for one in kept]),
        }
    finally:
        await group.stop()
        await asyncio.wait({running}, timeout=60)


def backlog_of(samples: list[int]) -> dict[str, int]:
    """Entries on the tape that the streams had not acknowledged. They wait there, not in memory."""
    ordered = sorted(samples)
    return {
        "backlog_median": ordered[len(ordered) // 2],
        "backlog_p99": ordered[len(ordered) * 99 // 100],
        "backlog_max": ordered[-1],
        "backlog_last_minute": min(samples[-60:]),
    }


def tidy(directory: Path) -> None:
    """The archive that would let go of the tape is not here: old files are removed by hand."""
    for path in sorted(directory.glob("main/*.tape"))[:-3]:
        path.unlink(missing_ok=True)


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares, per second."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / (sum((x - mean_x) ** 2 for x, _ in points) or 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--markets", type=int, default=20_000)
    parser.add_argument("--churn", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=3_600)
    parser.add_argument("--rate", type=int, default=6_430)
    parser.add_argument("--roll", type=int, default=600)
    parser.add_argument("--only", choices=("markets", "load"), default="")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    directory = Path(tempfile.mkdtemp())
    try:
        if given.only != "load":
            # Every fourth market is replaced after roll_s: that many come and go in some two minutes.
            roll_s = max(60, given.markets // 4 * 120 // max(1, given.churn))
            config = SimulatorConfig(seed=7, markets=given.markets, rate=500, roll_s=roll_s, require_auth=False)
            with Venues(config) as venues:
                httpx.get(f"{venues.control_url}/status").raise_for_status()
                figures["markets"] = asyncio.run(all_markets(venues, directory / "a", given.markets, given.churn, 5000))
            print(figures["markets"], flush=True)
        if given.only != "markets":
            with Venues(SimulatorConfig(seed=7, markets=20, rate=given.rate, roll_s=given.roll, require_auth=False)) as venues:
                figures["load"] = asyncio.run(load(venues, directory / "b", given.seconds))
            print(figures["load"], flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    is_good = judge(figures)
    write_measurement(given.output, seed=7, rounds=1, figures=figures, is_good=is_good)
    sys.exit(0 if is_good else 1)


def judge(figures: dict[str, Any]) -> bool:
    """Whether what must hold does."""
    good = True
    if markets := figures.get("markets"):
        good &= markets["subscribed_s"] <= SUBSCRIBED_MAX_S and not markets["unplaced"]
        good &= markets["rss_peak_mb"] <= RSS_MAX_MB and markets["sessions"] == markets["connections"]
    if loaded := figures.get("load"):
        fewest, most = loaded["tasks"]
        good &= most - fewest <= 2 and loaded["sessions"] == 1
        # A machine that is busy with other things for seconds makes a peak; what may not be is one that stays.
        good &= loaded["backlog_median"] <= BACKLOG_MAX and loaded["backlog_p99"] <= BACKLOG_MAX * 10
        good &= loaded["backlog_last_minute"] <= BACKLOG_MAX
        if loaded["seconds"] >= 600:
            good &= abs(loaded["rss_slope_mb_h"]) <= SLOPE_MAX_MB_H
    return good


if __name__ == "__main__":
    main()
