"""An archived day measured, held against a venue's REST list, and journaled once."""

from __future__ import annotations

import asyncio
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import zstandard
from websockets.asyncio.client import connect

from ssmd.archive.storage_local import LocalStorage
from ssmd.clock import SystemClock, date_of
from ssmd.domain.archive import SessionReached
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Rejected
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.identifiers import system_random
from ssmd.quality.page import page
from ssmd.quality.report import QualityReport, Told
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Connected, Disconnected, encode_fact
from ssmd.schemas.raw_line import LineEncoder, read_lines
from ssmd.services.kalshi_rest.client import KalshiRest, RestSettings
from ssmd.services.quality_assessor import assessed, changed_at, journal_quality, measure_day, reconcile
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator
from ssmd.services.venue_trades import VenueTrades

CAPTURE = Path(__file__).resolve().parents[3] / "shared" / "captures" / "kalshi-btc15m-2026-05-14.jsonl.zst"
FEED, DATE = "kalshi", "2026-05-14"
START_NS = 1_795_363_200_000_000_000
SECOND = 10**9


def progress(what: str, done: int, of: int) -> None:
    assert what
    assert 0 < done <= of


async def measured(world: Any, date: str = DATE) -> Any:
    return await measure_day(world.storage, world.env, FEED, date, "UTC", lambda session: KalshiMapper(FEED, session), progress)


async def test_a_day_is_assessed_and_journaled_once(make_world: Any) -> None:
    world = make_world()
    await world.session(count=120)
    await world.session(count=80)
    await world.complete()
    position = await changed_at(world.journal, CATALOGUE.decode, FEED, DATE)
    assert position == await world.journal.head()
    measures = await measured(world)
    found = assessed(FEED, DATE, measures, Told(None, "not asked"), [])
    (measure,) = measures
    assert measure.counts.entries == len(world.lines)
    assert sum(measure.counts.records.values()) == len(world.records)
    assert (measure.counts.sessions, measure.counts.entries_missing) == (2, 0)
    report = found.report
    assert [one.ticker for one in report.tickers] == ["A-1", "B.2"]
    assert report.verified_ns + report.unverifiable_ns + report.missing_ns == sum(
        span.end_ns - span.start_ns for one in report.tickers for span in one.spans
    )
    assert await journal_quality(world.application, found, position, "cli:t") == 1
    # Measured again: nothing new is known, nothing is written.
    again = assessed(FEED, DATE, await measured(world), Told(None, "not asked"), [])
    assert msgspec.json.encode(again.report) == msgspec.json.encode(report)
    assert await changed_at(world.journal, CATALOGUE.decode, FEED, DATE) == position
    assert await journal_quality(world.application, again, position, "cli:t") == 0
    await world.manifests()
    manifest = json.loads(await world.storage.get(f"raw/test/kalshi/{DATE.replace('-', '/')}/manifest.json"))
    assert manifest["quality_score"] == f"{report.score_ppm // 10**6}.{report.score_ppm % 10**6:06}"
    with pytest.raises(Rejected, match="nothing of kalshi is archived"):
        await measured(world, "2026-05-20")


async def test_a_session_of_the_day_before_is_read_from_its_beginning(make_world: Any) -> None:
    world = make_world()
    world.ts += 12 * 3600 * SECOND - 100_000_000  # 0.1 s before midnight
    await world.session(count=300)
    await world.complete()
    following = date_of(world.ts)
    assert following != DATE
    (measure,) = await measured(world, following)
    assert measure.counts.entries_missing == 0
    assert measure.counts.entries == sum(date_of(line.entry.ts_recv_ns) == following for line in world.lines)
    report = assessed(FEED, following, [measure], Told(None, "not asked"), []).report
    last_frame = max(line.entry.ts_recv_ns for line in world.lines if line.entry.kind == EntryKind.IN)
    assert report.missing_ns == 2 * (report.last_ns - last_frame)  # from the last frame until the session's end
    assert all(one.spans[0].start_ns == report.first_ns for one in report.tickers)


async def streamed(simulator: Simulator, count: int) -> list[dict[str, Any]]:
    """Frames of trades of all markets, from a venue that is then paused."""
    async with connect(simulator.websocket_url, proxy=None, max_size=None) as socket, httpx.AsyncClient() as client:
        tickers = [one["ticker"] for one in (await client.get(f"{simulator.rest_url}/markets")).json()["markets"]]
        params = {"channels": ["trade"], "market_tickers": tickers}
        await socket.send(json.dumps({"id": 1, "cmd": "subscribe", "params": params}))
        frames = [json.loads(await socket.recv()) for _ in range(count + 1)]
        await client.post(f"{simulator.control_url}/pause")
    return frames


async def test_trades_are_held_against_the_venues_own_list(make_world: Any) -> None:
    """From the simulated venue: lost, altered and invented trades that its sequence numbers do not show."""
    simulator = Simulator(
        SimulatorConfig(require_auth=False, start_ns=START_NS, markets=3, rate=100, speed="50x"), SystemClock()
    )
    await simulator.start()
    task = asyncio.create_task(simulator.run())
    client = KalshiRest(simulator.rest_url, None, SystemClock(), system_random)
    venue = VenueTrades(client)
    try:
        frames = await streamed(simulator, 400)
        sent = frames[1:]
        # The first two seconds and the last prove nothing; what is planted lies between.
        first_ms, last_ms = sent[0]["msg"]["ts_ms"], sent[-1]["msg"]["ts_ms"]
        inner = [one for one in sent if first_ms + 3000 < one["msg"]["ts_ms"] < last_ms - 3000]
        assert len(inner) > 40, last_ms - first_ms
        lost = {one["msg"]["trade_id"] for one in inner[10:13]}
        altered, doubled = inner[20]["msg"], inner[30]["msg"]
        kept = [one for one in sent if one["msg"]["trade_id"] not in lost]
        altered["count_fp"] = "77777.00"
        at = kept.index(next(one for one in kept if one["msg"] is doubled))
        kept.insert(at, {**kept[at], "msg": {**doubled, "trade_id": "invented"}})
        world = await archive_frames(make_world, frames[0], kept)
        (measure,) = await measured(world, date_of(kept[0]["msg"]["ts_ms"] * 10**6))
        told = await reconcile([measure], venue, progress)
        assert told.matches is not None, told.why_not
        assert told.grids.keys() == {one["msg"]["market_ticker"] for one in kept}
        total = {
            name: sum(getattr(one, name) for one in told.matches.values())
            for name in ("held", "differing", "extra", "missing", "at_edges", "matched", "missing_in_gaps")
        }
        assert total["held"] == 400 - 3 + 1
        assert (total["differing"], total["extra"]) == (1, 1)
        assert total["missing"] == 3
        assert total["matched"] == 400 - 3 - 1
        report = assessed(FEED, "x", [measure], told, []).report
        named = {example for one in told.matches.values() for example in one.examples}
        assert named == lost | {altered["trade_id"]}
        assert report.reconciliation.is_run
        assert report.parts[4].ppm == 396 * 10**6 // (396 + 1 + 1 + total["missing"])
        assert all(one.off_grid == 0 for one in report.tickers)
    finally:
        await client.close()
        await simulator.stop()
        await asyncio.wait_for(task, 60)


async def archive_frames(make_world: Any, ack: dict[str, Any], kept: list[dict[str, Any]]) -> Any:
    """An archive in which `kept` came one after another, counted without a hole."""
    world = make_world()
    session = kept[0]["msg"]["ts_ms"] * 10**6 - SECOND
    tickers = sorted({one["msg"]["market_ticker"] for one in kept})
    entries: list[Entry] = []

    def add(kind: EntryKind, ts_ns: int, payload: bytes) -> None:
        entries.append(Entry(kind, len(entries) + 1, ts_ns, payload))

    add(EntryKind.CTL, session, encode_fact(Connected(FEED, "main", "ws://x", "kalshi-dollars", "i", 1, "1", "", None)))
    params = {"channels": ["trade"], "market_tickers": tickers}
    add(EntryKind.OUT, session, json.dumps({"id": 1, "cmd": "subscribe", "params": params}).encode())
    add(EntryKind.IN, session, json.dumps(ack).encode() + b"\n")
    for seq, frame in enumerate(kept, 1):
        add(EntryKind.IN, frame["msg"]["ts_ms"] * 10**6 + 1000, json.dumps({**frame, "seq": seq}).encode() + b"\n")
    end = entries[-1].ts_recv_ns
    add(EntryKind.CTL, end + SECOND, encode_fact(Disconnected("stop", 0, "", end)))
    await world.write("main", session, entries, cut=1000)
    await world.complete()
    return world


async def test_a_venue_that_cannot_be_asked_is_said_so(make_world: Any) -> None:
    world = make_world()
    await world.session(count=40)
    await world.complete()
    measures = await measured(world)
    settings = RestSettings(tries_max=2, pause_first_s=0.01)
    async with KalshiRest("http://127.0.0.1:9", None, SystemClock(), system_random, settings) as client:
        told = await reconcile(measures, VenueTrades(client), progress)
    assert told.matches is None
    assert told.why_not.startswith("the venue could not be asked: http://127.0.0.1:9/markets: no answer after 2 tries")


_RUN = """
import asyncio, json, sys
from pathlib import Path
from ssmd.archive.storage_local import LocalStorage
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.quality.report import Told
from ssmd.services.quality_assessor import assessed, measure_day
import msgspec
storage = LocalStorage(Path(sys.argv[1]))
make = lambda session: KalshiMapper("kalshi", session)
measures = asyncio.run(measure_day(storage, "test", "kalshi", "2026-05-14", "UTC", make, lambda *_: None))
report = assessed("kalshi", "2026-05-14", measures, Told(None, "not asked"), []).report
# Not ru_maxrss: a child inherits that from the process it was forked from, which is the whole test run.
found = Path("/proc/self/status")
status = dict(line.split(":", 1) for line in found.read_text().splitlines()) if found.exists() else {}
rss = int(status.get("VmHWM", "0").split()[0]) * 1024
sys.stdout.buffer.write(msgspec.json.encode({"rss": rss, "report": report, "counts": [one.counts for one in measures]}))
"""


async def write_raw(world: Any, session: int, entries: list[Entry]) -> None:
    """One raw segment; records are not needed."""
    encoder, pieces = LineEncoder("main"), []
    for start in range(0, len(entries), 500):
        part = entries[start : start + 500]
        pieces.append((encoder.encode(session, part), len(part), part[0].ts_recv_ns, part[-1].ts_recv_ns))
    await world._seal("raw", "main", DATE, {"raw": pieces}, (SessionReached(session, entries[-1].n, newline=True),))


async def test_the_genuine_capture(make_world: Any, tmp_path: Path) -> None:
    """Figures of `../shared/captures/README.md`; memory stays below the promised bound."""
    if not CAPTURE.exists():
        pytest.skip("the genuine captures may not be redistributed")
    world = make_world(LocalStorage(tmp_path / "archive"))
    by_session: dict[tuple[str, int], list[Entry]] = {}
    with CAPTURE.open("rb") as stored, zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True) as content:
        for line in read_lines(io.BufferedReader(content)):
            by_session.setdefault((line.connection, line.session), []).append(line.entry)
    for entries in by_session.values():
        session = entries[0].ts_recv_ns - 1
        await write_raw(world, session, entries)
    await world.complete()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(tmp_path / "archive")], capture_output=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    answer = json.loads(done.stdout)
    assert answer["rss"] < 300 << 20
    (counts,) = answer["counts"]
    assert (counts["frames"], counts["records"]) == (102_555, {"snapshot": 4, "book": 101_703, "quote": 842})
    report = msgspec.json.decode(msgspec.json.encode(answer["report"]), type=QualityReport)
    assert sorted((one.first_seq, one.last_seq) for one in report.sequences if one.frames) == [
        (1, 636),
        (1, 42_001),
        (1, 59_070),
    ]
    assert sum(one.frames for one in report.sequences) == 636 + 42_001 + 59_070
    assert all(one.missing + one.duplicates + one.late == 0 for one in report.sequences)
    assert sum(one.negative for one in report.tickers) == 0
    html = page(report)
    assert html.count('role="img"') == len(report.tickers) == 2
    assert not re.search(r"(src|href)=|@import|url\((?!#)", html)  # it needs nothing but itself
