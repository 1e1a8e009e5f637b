"""The main job through real processes: simulator, connector, NATS, archivers, projector, gateway.

The promises of the first issue, on the genuine capture where it is present, elsewhere on a seeded one of the same shape.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import ROOT, find_tool
from tests.e2e.main_job import MainJob, NaiveBook, open_zstd, run_main_job

from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import SystemClock, date_of
from ssmd.exchanges.book import Book
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.projections import queries
from ssmd.projections.manifest_sink import ManifestSink
from ssmd.projections.views import PROJECTIONS, fold_views
from ssmd.schemas.raw_line import read_lines
from ssmd.schemas.records import BookDelta, BookSnapshot, Record
from ssmd.services.folding import IDS_SHOWN_MAX
from ssmd.services.simulator.seeded_capture import write_seeded_capture
from ssmd.settings import Workspace
from ssmd.streams.journal import RecordedEvent
from ssmd.wiring.backends import reading_journal
from ssmd.wiring.environment import resolve_environment

GENUINE = "kalshi-btc15m-2026-05-14.jsonl.zst"
SAMPLES = 1000


@pytest.mark.timeout(300)
async def test_the_main_job_holds_its_promises(tmp_path: Path) -> None:
    capture = ROOT.parent / "shared" / "captures" / GENUINE
    is_genuine = capture.exists()
    if not is_genuine:
        capture = tmp_path / "seeded.jsonl.zst"
        write_seeded_capture(capture, seed=11, frames=9000)
    job = run_main_job(capture, tmp_path / "workspace")
    check_frames_are_archived_verbatim(job)
    check_every_data_frame_yields_its_records(job, genuine=is_genuine)
    check_books_equal_the_frames_books(job)
    check_connections_and_close(job)
    check_normalizing_again_gives_the_same_records(job)
    check_capnp_reads_every_segment(job)
    await check_rebuilt_answers_and_manifests_are_equal(job)
    await check_one_request_is_followed_through_logs_and_journal(job)


def check_frames_are_archived_verbatim(job: MainJob) -> None:
    archived: dict[int, list[str]] = {}
    numbers: dict[int, list[int]] = {}
    for line in job.raw_lines:
        numbers.setdefault(line.session, []).append(line.n)
        if line.direction == "in":
            archived.setdefault(line.session, []).append(line.frame)
    wanted = job.captured
    assert list(archived.values()) == wanted
    assert job.report["frames"] == sum(len(frames) for frames in wanted)
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def check_every_data_frame_yields_its_records(job: MainJob, *, genuine: bool) -> None:
    types = Counter(msgspec.json.decode(frame)["type"] for frames in job.captured for frame in frames)
    records = job.report["records"]
    assert (records["book"], records["snapshot"], records["quote"]) == (
        types["orderbook_delta"],
        types["orderbook_snapshot"],
        types["ticker"],
    )
    if genuine:
        assert (records["book"], records["snapshot"], records["quote"], job.report["frames"]) == (101_703, 4, 842, 102_555)


def check_books_equal_the_frames_books(job: MainJob) -> None:
    """At sampled points of each session's tape, both sides of every book, level by level."""
    frames = [line for line in job.raw_lines if line.direction == "in" and '"type":"orderbook_' in line.frame]
    chosen = random.Random(1).sample(range(len(frames)), min(SAMPLES, len(frames)))
    points = {(frames[index].session, frames[index].n) for index in chosen}
    naive: dict[tuple[int, str], NaiveBook] = {}
    wanted = {}
    for line in frames:
        frame = msgspec.json.decode(line.frame)
        book = naive.setdefault((line.session, frame["msg"]["market_ticker"]), NaiveBook())
        book.apply(frame)
        if (line.session, line.n) in points:
            wanted[line.session, line.n] = book.levels()
    books: dict[tuple[int, str], Book] = {}
    found = {}
    for record in job.records("book", "snapshot"):
        assert isinstance(record, BookDelta | BookSnapshot)
        rebuilt = books.setdefault((record.session, record.ticker), Book(record.ticker))
        assert rebuilt.apply(record) == () or isinstance(record, BookDelta)
        if (record.session, record.n) in points:
            bids, asks = (
                {scaled(level.price, rebuilt.price_exponent): scaled(level.size, rebuilt.size_exponent) for level in side}
                for side in rebuilt.levels()
            )
            found[record.session, record.n] = (bids, asks)
    assert len(wanted) == min(SAMPLES, len(frames))
    assert found == wanted


def scaled(mantissa: int, exponent: int) -> Decimal:
    return Decimal(mantissa).scaleb(exponent)


def check_connections_and_close(job: MainJob) -> None:
    sessions = list(dict.fromkeys(line.session for line in job.raw_lines))
    assert len(sessions) == 3
    second = [record for record in job.records("snapshot") if record.session == sessions[1]]
    last = second[-1]
    assert isinstance(last, BookSnapshot)
    assert (last.bids, last.asks) == ((), ()), "the closed market's book ends with an empty snapshot"
    events = [line["what"] for history in job.report["answers"]["history"] for line in history["lines"]]
    assert sum(what.startswith("connected to ") for what in events) == 3
    assert sum(what.startswith("disconnected: closed-by-venue") for what in events) == 3
    assert [gap["cause"] for gap in job.report["answers"]["gaps"]] == ["closed-by-venue"] * 3
    assert [gap["end_ns"] is None for gap in job.report["answers"]["gaps"]] == [
        False,
        bool(job.report["answers"]["gaps"][1]["open_tickers"]),
        True,
    ]


def check_normalizing_again_gives_the_same_records(job: MainJob) -> None:
    mappers: dict[int, KalshiMapper] = {}
    again: list[Record] = []
    for path in job.segments("raw"):
        with open_zstd(path) as lines:
            for conn, session, entry in read_lines(lines):
                assert conn == "main"
                mapper = mappers.setdefault(session, KalshiMapper("kalshi", session))
                again += mapper.map(entry).records
    assert again == job.records("book", "snapshot", "quote", "trade", "status", "gap")
    assert any(type(record).__name__ == "Gap" for record in again)


def check_capnp_reads_every_segment(job: MainJob) -> None:
    tool = find_tool("capnp")
    if tool is None:
        return  # tests/services/test_archivers.py needs it, and says how to get it
    definition = ROOT / "src" / "ssmd" / "schemas" / "market.capnp"
    for kind, count in job.report["records"].items():
        lines = 0
        for path in job.segments(kind):
            with open_zstd(path) as content:
                decoded = subprocess.run(
                    [tool, "decode", "--short", str(definition), "Record"],
                    input=content.read(),
                    capture_output=True,
                    check=True,
                )
            lines += len(decoded.stdout.splitlines())
        assert lines == count, kind


async def check_rebuilt_answers_and_manifests_are_equal(job: MainJob) -> None:
    """From the journal alone: no cache, no manifest."""
    environment = resolve_environment(Workspace(job.workspace), "demo", date_of(SystemClock().now_ns()))
    storage = MemoryStorage()
    async with reading_journal(environment, {}) as journal:
        views = await fold_views(journal, projections=PROJECTIONS)
        await ManifestSink(views.rows, storage).reconcile()
        answers = job.report["answers"]
        assert to_json(await queries.inventory(views, "kalshi")) == answers["inventory"]
        assert to_json(await queries.gaps(views, "kalshi")) == answers["gaps"]
        history = [await queries.day_history(views, day.date) for day in await queries.days(views)]
        assert to_json(history) == answers["history"]
    root = environment.archive_directory
    wanted = {str(Path(path).relative_to(root)): Path(path).read_bytes() for path in job.report["manifests"]}
    rebuilt = {key: await storage.get(key) async for key in storage.list()}
    assert rebuilt == wanted


async def check_one_request_is_followed_through_logs_and_journal(job: MainJob) -> None:
    """The end of the day: its id leads from the event that asks for it to each process that did something for it."""
    environment = resolve_environment(Workspace(job.workspace), "demo", date_of(SystemClock().now_ns()))
    async with reading_journal(environment, {}) as journal:
        everything = [one async for batch in journal.replay() for one in batch if isinstance(one, RecordedEvent)]
    (asked,) = [one.envelope for one in everything if one.envelope.type == "trading-day.end-requested.v1"]
    events = {one.envelope.id: one for one in everything if one.envelope.correlation_id == asked.correlation_id}
    logs = {path.stem: logged(path) for path in (environment.directory / "logs").glob("*.log")}
    of_request = {
        name: [line for line in lines if line.get("correlation_id") == asked.correlation_id] for name, lines in logs.items()
    }
    for name in ("raw-archiver", "normalized-archiver", "projector"):
        assert [line["verb"] for line in of_request[name] if line["event"] == "asked"] == ["flush"], name
    # What was not sealed until then was sealed for this request, and both sides say so alike.
    for name in ("raw-archiver", "normalized-archiver"):
        appended = [line for line in of_request[name] if line["event"] == "appended"]
        told = {event_id: line for line in appended for event_id in line["event_ids"]}
        sealed = {key: one for key, one in events.items() if one.envelope.actor == f"{name}:main"}
        assert told.keys() == sealed.keys()
        assert any(one.envelope.type == "archive.segment-sealed.v1" for one in sealed.values())
        for key, one in sealed.items():
            assert told[key]["causation_id"] == one.envelope.causation_id
            assert told[key]["position"] >= one.position > told[key]["position"] - told[key]["events"]
    # And the projector tells of each event when it is in the views.
    folded = [line for line in logs["projector"] if line["event"] == "folded"]
    for key, one in events.items():
        commit = next((line for line in folded if line["first"] <= one.position <= line["position"]), None)
        if commit is None:
            # The day's last word comes behind the projector's flush: the demo may have emptied the cache by then.
            assert one.envelope.type == "trading-day.completed.v1"
            continue
        ids = [commit["correlation_id"]] if "correlation_id" in commit else commit["correlation_ids"]
        assert asked.correlation_id in ids or len(ids) == IDS_SHOWN_MAX
        assert key in commit["event_ids"] or commit["events"] > IDS_SHOWN_MAX


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def to_json(value: object) -> object:
    return json.loads(msgspec.json.encode(value))
