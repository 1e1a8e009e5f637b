"""Reading the archive beside the least that could do it, in CPU seconds; ratios first.

    python benchmarks/archive_reading.py [RECORDS] [ROUNDS] [--changes N] [--json [FILE]]

A day of Kalshi-like raw lines and book changes in memory storage. Rounds alternate, the best of each counts.

raw replay   lines/s of `Replayer.raw` as fast as possible, to a file; baseline = the zstandard library decompressing the
             same segments to a file, which is `zstdcat` without a process
records      records/s decoded to columns (`record_columns`); baseline = pycapnp reading every field of a record
objects      records/s as `Record` objects in order (`reading.records`); the same baseline
export       records/s to Parquet; baseline = decode to objects alone
book         `book_at` on a day of 10 million book changes of 64 tickers (--changes), in a directory, by its sidecars: wall
             milliseconds of 20 instants spread over the day, in a process of its own; also without the sidecars, once
command      `ssmd data book` on the same day, from the start of its process to its end: wall milliseconds, the median of
             rounds that alternate with a bare interpreter (`python -c pass`), one that imports what any command line of
             typer does, and `ssmd data book --help`: what the book takes stands beside what others take. Nothing is wanted of
             it: the limit is the query's, and most of this is the start of a Python process with its modules
inventory    `queries.days_inventory` of 1,000 days, wall milliseconds, the median of five
RSS          peak of the process, with the day itself held in memory; of the book's process, and of who made its sidecars

A figure that misses what is wanted makes the exit status 1. --json writes docs/measurements/archive-reading.json, or FILE.
"""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _table
import msgspec
import zstandard
from _measurement import ROOT, write_rows

from ssmd.application.handler import Application
from ssmd.archive.keys import SegmentName, Shelf
from ssmd.archive.reading import Wanted, record_contents, records
from ssmd.archive.reindexing import reindex
from ssmd.archive.segment import SegmentWriter
from ssmd.archive.shelf_manifest import raw_shelf, record_shelf
from ssmd.archive.storage import Storage
from ssmd.archive.storage_local import LocalStorage
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import SystemClock, date_of
from ssmd.domain import archive
from ssmd.domain.archive import CompletePartition, OpenPartition, SealSegment, SegmentFile, SessionReached
from ssmd.domain.catalogue import CATALOGUE
from ssmd.identifiers import system_random
from ssmd.projections import queries
from ssmd.projections.views import fold_views
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.codecs import _schema, decode_records, encode_record
from ssmd.schemas.raw_line import LineEncoder
from ssmd.schemas.record_columns import book_columns
from ssmd.schemas.records import BookDelta, BookSnapshot, Side, SizeMeaning
from ssmd.services.replayer import Replayer
from ssmd.settings import variables
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.transforms.book_at import book_at
from ssmd.transforms.export import Request, export

ENV, FEED = "kalshi-dev", "kalshi"
SESSION = 1_778_760_000_000_000_000
DATE = date_of(SESSION)
BLOCK = 50
PER_SEGMENT = 300_000
TICKERS = 64
WANTED = Wanted(ENV, FEED, DATE, 1, ("book",))


def ticker(at: int) -> str:
    return f"KXBTC15M-26MAY14{at % TICKERS:04}-45"


def delta(at: int) -> BookDelta:
    ts = SESSION + at * 8_000
    return BookDelta(
        FEED, ticker(at * 7919), ts, ts, SESSION, at + 1, 0, 1, at + 1, -4, -2, 100 + at * 6151 % 99 * 100, at * 3571 % 500_000,
        Side.BID, SizeMeaning.CHANGE,
    )  # fmt: skip


def line(at: int) -> bytes:
    return (
        f'{{"type":"orderbook_delta","sid":1,"seq":{at + 1},"msg":{{"market_ticker":"{ticker(at * 7919)}",'
        f'"market_id":"fb95fe57-d4f2-4f3f-956c-f7011063d20f","price_dollars":"0.{at * 6151 % 9999:04}",'
        f'"delta_fp":"{at * 3571 % 5000}.00","side":"yes","ts_ms":{1_778_768_091_000 + at // 9}}}}}\n'
    ).encode()


class Day:
    """Raw lines and book changes of one day, and their manifests."""

    def __init__(self, directory: Path, storage: Storage | None = None) -> None:
        self.storage = storage or MemoryStorage()
        self._path = directory / "spool"

    async def fill(self, count: int, *, is_big: bool = False) -> None:
        if not is_big:
            await self._shelf(raw_shelf(ENV, FEED, DATE), "raw", count, self._raw())
        await self._shelf(record_shelf(ENV, FEED, DATE, "book", 1), "book", count, self._book)
        shots = [
            BookSnapshot(
                FEED, ticker(at), SESSION, SESSION, SESSION, 1, at, 1, 1, -4, -2, ((4000, 100),), ((6000, 100),), False
            )
            for at in range(TICKERS)
        ]
        piece = b"".join(map(encode_record, shots))
        await self._shelf(record_shelf(ENV, FEED, DATE, "snapshot", 1), "snapshot", BLOCK, lambda _: piece)

    def _raw(self) -> Callable[[range], bytes]:
        encoder = LineEncoder("main")
        return lambda numbers: encoder.encode(
            SESSION, [Entry(EntryKind.IN, at + 1, SESSION + at * 8_000, line(at)) for at in numbers]
        )

    def _book(self, numbers: range) -> bytes:
        found = sorted(map(delta, numbers), key=lambda one: one.ticker)
        return b"".join(map(encode_record, found))

    async def _shelf(self, shelf: Shelf, kind: str, count: int, make: Callable[[range], bytes]) -> None:
        segments: list[dict[str, Any]] = []
        for start in range(0, count, PER_SEGMENT):
            end = min(start + PER_SEGMENT, count)
            writer = SegmentWriter(self._path, 3)
            for first in range(start, end, BLOCK):
                numbers = range(first, min(first + BLOCK, end))
                writer.add(make(numbers), len(numbers), SESSION + numbers[0] * 8_000, SESSION + numbers[-1] * 8_000)
            facts = writer.finish()
            name = SegmentName(shelf, "main", "ab", start + 1, end)
            await self.storage.put_file(name.key, self._path)
            segments.append(
                {
                    "name": name.key.rpartition("/")[2], "partition": "main", "incarnation": "ab", "first_seq": start + 1,
                    "last_seq": end, "record_count": facts.records, "byte_size": facts.size_bytes, "sha256": facts.sha256,
                    "content_bytes": facts.content_bytes, "content_sha256": facts.content_sha256,
                    "ts_recv_first_ns": facts.ts_recv_first_ns, "ts_recv_last_ns": facts.ts_recv_last_ns,
                }
            )  # fmt: skip
        manifest = {
            "manifest_version": 1, "feed": FEED, "date": DATE, "data_type": shelf.data_type, "kind": kind,
            "mapper_version": 1, "status": "complete", "record_count": count, "byte_size": 0, "gaps": [],
            "partitions": {"main": "complete"}, "segments": segments, "journal_position": 1,
        }  # fmt: skip
        await self.storage.put(shelf.manifest_key, msgspec.json.encode(manifest))


def best(rounds: int, *works: Callable[[], object]) -> list[float]:
    """CPU seconds of each work, the best of `rounds`, alternating."""
    found = [float("inf")] * len(works)
    for _ in range(rounds):
        for number, work in enumerate(works):
            before = time.process_time()
            work()
            found[number] = min(found[number], time.process_time() - before)
    return found


def run(work: Any) -> Any:
    return asyncio.run(work)


def zstdcat(day: Day, kind: str, target: Path) -> None:
    with target.open("wb") as out:
        for key, data in sorted(day.storage._objects.items()):  # type: ignore[attr-defined]  # noqa: SLF001 - bytes alone
            if key.startswith(kind) and key.endswith(".zst"):
                with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
                    while piece := reader.read(1 << 20):
                        out.write(piece)


async def raw_replay(day: Day, target: Path) -> None:
    async def no_sleep(_: float) -> None:
        return

    player = Replayer(day.storage, ENV, FEED, clock=SystemClock(), sleep=no_sleep)
    with target.open("wb") as out:
        async for piece in player.raw(DATE):
            out.write(piece)


async def contents(day: Day) -> list[bytes]:
    return [content async for _, content in record_contents(day.storage, WANTED)]


async def as_columns(day: Day) -> int:
    return sum([len(book_columns(content).n) async for _, content in record_contents(day.storage, WANTED)])


async def as_objects(day: Day) -> int:
    return sum([len(batch) async for batch in records(day.storage, WANTED)])


async def decode_alone(day: Day) -> None:
    async for _, content in record_contents(day.storage, WANTED):
        list(decode_records(content))


def pycapnp_fields(data: list[bytes]) -> None:
    schema = _schema()
    for content in data:
        for record in schema.read_multiple_bytes(content):
            change = record.bookDelta
            _ = (
                record.feed, record.ticker, record.tsEventNs, record.tsRecvNs, record.session, record.n, record.index,
                record.sid, record.seq, record.priceExponent, record.sizeExponent, change.price, change.size, change.side,
                change.meaning,
            )  # fmt: skip


async def make_big_day(directory: Path, changes: int) -> None:
    """Child: a day of book changes in a directory, its manifests, no sidecars."""
    day = Day(directory, LocalStorage(directory / "archive"))
    await day.fill(changes, is_big=True)


async def make_sidecars(directory: Path) -> None:
    """Child."""
    await reindex(LocalStorage(directory / "archive"), WANTED)


async def ask_big_day(directory: Path, changes: int, instants: int) -> list[float]:
    """Child: milliseconds of each book asked for."""
    storage = LocalStorage(directory / "archive")
    took = []
    for number in range(instants):
        at_ns = SESSION + changes * 8_000 * (number + 1) // instants
        start = time.perf_counter()
        found = await book_at(storage, WANTED._replace(kinds=()), ticker(number * 5), at_ns)
        took.append((time.perf_counter() - start) * 1e3)
        if not found.deltas:
            raise SystemExit("no change was found")
    return took


def child(*arguments: object) -> dict[str, Any]:
    argv = [sys.executable, __file__, "--child", *map(str, arguments)]
    found: dict[str, Any] = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True, timeout=1800).stdout)
    return found


def run_child(kind: str, directory: str, changes: str = "0", instants: str = "0") -> None:
    place = Path(directory)
    took: list[float] = []
    if kind == "fill":
        run(make_big_day(place, int(changes)))
    elif kind == "index":
        run(make_sidecars(place))
    else:
        took = run(ask_big_day(place, int(changes), int(instants)))
    print(json.dumps({"ms": took, "rss_mib": peak_rss_mib()}))


def peak_rss_mib() -> float:
    """Of this process alone: ru_maxrss of a child begins with what its parent had when it was forked."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:")) / 1024


async def long_inventory(days: int) -> float:
    """Milliseconds of `queries.days_inventory` over so many days with their seals, scores and a gap each."""
    journal = MemoryJournal(ENV)
    application = Application(journal, CATALOGUE, SystemClock(), system_random)
    for number in range(days):
        date = date_of(SESSION + number * 86_400 * 10**9)
        for kind in ("raw", "normalized"):
            parts = (FEED, date, kind, "main")
            kinds = ("raw",) if kind == "raw" else ("book", "trade", "snapshot")
            files = tuple(
                SegmentFile(f"{kind}/{one}/{date}", one, 1000, "ab" * 32, 9000, "cd" * 32, 100, SESSION, SESSION)
                for one in kinds
            )
            seal = SealSegment(
                1, "ab", number * 10 + 1, number * 10 + 9, f"m-{number}", files, (SessionReached(SESSION, 9, True),)
            )
            for command in (OpenPartition(1, "bench"), seal, CompletePartition("day-mark")):
                await application.handle(archive.DECIDER, parts, command, actor="bench")
    views = await fold_views(journal, None)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        found = await queries.days_inventory(views, FEED)
        took.append((time.perf_counter() - start) * 1e3)
        if len(found) != days:
            raise SystemExit(f"{len(found)} days found")
    return statistics.median(took)


def alternating(rounds: int, commands: Sequence[Sequence[str]], where: Path) -> list[float]:
    """Wall milliseconds of each command from start to end, the median of `rounds`, after one that does not count."""
    took: list[list[float]] = [[] for _ in commands]
    given = {name: value for name, value in variables().items() if not name.startswith("SSMD_")} | {"SSMD_ENV": ENV}
    for number in range(rounds + 1):
        for at, argv in enumerate(commands):
            start = time.perf_counter()
            subprocess.run(argv, check=True, cwd=where, env=given, stdout=subprocess.DEVNULL, timeout=120)
            if number:
                took[at].append((time.perf_counter() - start) * 1e3)
    return [statistics.median(one) for one in took]


def book_command(workspace: Path, changes: int, rounds: int = 15) -> dict[str, float]:
    """`ssmd data book` in a workspace whose environment has the day."""
    shutil.copytree(ROOT / "exchanges", workspace / "exchanges")
    interpreter = [sys.executable, "-c", "pass"]
    ssmd = [sys.executable, "-m", "ssmd", "data", "book"]
    at = str(SESSION + changes * 8_000 // 2)
    asked = [*ssmd, "--ticker", ticker(5), "--at", at, "-o", "json"]
    typer_alone = [sys.executable, "-c", "import typer"]
    bare, typed, framed, whole = alternating(rounds, [interpreter, typer_alone, [*ssmd, "--help"], asked], workspace)
    return {
        "typer_ms": typed,
        "command_ms": whole,
        "command_help_ms": framed,
        "interpreter_ms": bare,
        "command_over_interpreter": whole / bare,
        "book_in_command_ms": whole - framed,
    }


def big_book(directory: Path, changes: int) -> dict[str, float]:
    workspace = directory / "workspace"
    place = workspace / ".ssmd" / ENV
    place.mkdir(parents=True)
    child("fill", place, changes)
    without = child("ask", place, changes, 1)
    start = time.perf_counter()
    index = child("index", place, changes)
    index_s = time.perf_counter() - start
    found = child("ask", place, changes, 20)
    return {
        "book_changes": changes,
        "book_ms_median": statistics.median(found["ms"]),
        "book_ms_max": max(found["ms"]),
        "book_rss_mib": found["rss_mib"],
        "book_without_sidecars_ms": without["ms"][0],
        "book_without_sidecars_rss_mib": without["rss_mib"],
        "sidecars_us_per_change": index_s / changes * 1e6,
        "sidecars_rss_mib": index["rss_mib"],
        **book_command(workspace, changes),
    }


def show(figures: dict[str, float]) -> None:
    """The figures as rows of the table."""

    def told(ratio: float, what: str, ours: str, baseline: str, bound: float, *, is_most: bool = False) -> None:
        _table.row(ratio, what, ours, baseline, f"{'<=' if is_most else '>='} {bound:g}")

    raw, lines = figures["raw_replay_ratio"], figures["raw_replay_lines_per_s"]
    told(raw, "archive, raw day replayed", f"{lines:,.0f} lines/s", f"{lines / raw:,.0f} lines/s, zstdcat", 0.7)
    pycapnp = f"{figures['pycapnp_per_s']:,.0f} records/s, pycapnp"
    for key, what in (("columns", "archive, book changes as columns"), ("objects_in_order", "archive, records in order")):
        told(figures[f"{key}_over_pycapnp"], what, f"{figures[f'{key}_per_s']:,.0f} records/s", pycapnp, 2)
    share, exported = figures["export_over_decode"], figures["export_per_s"]
    alone = f"{exported / share:,.0f} records/s, decode alone"
    told(share, "archive, exported as Parquet", f"{exported:,.0f} records/s", alone, 0.75)
    for key, what, limit, unit in (
        ("inventory_ms", "archive, inventory of 1,000 days", 1000, "ms"),
        ("book_ms_median", "archive, a book of the day, by library", 150, "ms"),
        ("command_ms", "archive, ssmd data book, process and all", 150, "ms"),
        ("book_rss_mib", "archive, memory of a book", 300, "MiB"),
        ("sidecars_rss_mib", "archive, memory of who makes sidecars", 300, "MiB"),
        ("rss_mib", "archive, memory of this run, day and all", 300, "MiB"),
    ):
        found = figures[key]
        if key == "command_ms":
            beside = f"{limit} ms; {figures['interpreter_ms']:,.0f} python, {figures['typer_ms']:,.0f} typer"
            _table.row(found / limit, what, f"{found:,.0f} {unit}", beside)
            continue
        told(found / limit, what, f"{found:,.0f} {unit}", f"{limit} {unit}, the limit", 1, is_most=True)
    for key, value in figures.items():
        _table.note(f"{key:<32} {value:>14,.2f}")


def main(arguments: list[str]) -> int:
    _table.heading()
    numbers = [int(text) for text in arguments[:2] if text.isdigit()]
    count, rounds = (*numbers, *(600_000, 3)[len(numbers) :])[:2]
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        day = Day(directory)
        run(day.fill(count))
        out = directory / "out"
        ours, base = best(rounds, lambda: run(raw_replay(day, out)), lambda: zstdcat(day, "raw/", out))
        figures |= {"raw_replay_ratio": base / ours, "raw_replay_lines_per_s": count / ours}
        sample = run(contents(day))[:12]
        sampled = sum(len(book_columns(content).n) for content in sample)
        columns, objects, capnp, decode, exported = best(
            rounds,
            lambda: run(as_columns(day)),
            lambda: run(as_objects(day)),
            lambda: pycapnp_fields(sample),
            lambda: run(decode_alone(day)),
            lambda: run(export(day.storage, Request(WANTED, "parquet", directory))),
        )
        capnp_rate = sampled / capnp
        figures |= {
            "columns_over_pycapnp": count / columns / capnp_rate,
            "objects_in_order_over_pycapnp": count / objects / capnp_rate,
            "columns_per_s": count / columns,
            "objects_in_order_per_s": count / objects,
            "pycapnp_per_s": capnp_rate,
            "export_over_decode": decode / exported,
            "export_per_s": count / exported,
        }
        changes = int(arguments[arguments.index("--changes") + 1]) if "--changes" in arguments else 10_000_000
        figures |= big_book(directory, changes)
    figures["rss_mib"] = peak_rss_mib()
    figures["inventory_ms"] = run(long_inventory(1000))
    show(figures)
    return write_rows("archive-reading.json", arguments, rounds=rounds, figures=figures, records=count)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(*sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
