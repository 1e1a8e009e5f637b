"""Reading the archive beside the least that could do it, in CPU seconds; ratios first.

    python benchmarks/archive_reading.py [RECORDS] [ROUNDS] [--json FILE]

A day of Kalshi-like raw lines and book changes in memory storage. Rounds alternate, the best of each counts.

raw replay   lines/s of `Replayer.raw` as fast as possible, to a file; baseline = the zstandard library decompressing the
             same segments to a file, which is `zstdcat` without a process
records      records/s decoded to columns (`record_columns`); baseline = pycapnp reading every field of a record
objects      records/s as `Record` objects in order (`reading.records`); the same baseline
export       records/s to Parquet; baseline = decode to objects alone
ticker       seconds for one ticker of 64 out of the whole day, and for its book at the end
RSS          peak of the process, with the day itself held in memory
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from ssmd.archive.keys import SegmentName, Shelf
from ssmd.archive.reading import Wanted, record_contents, records
from ssmd.archive.segment import SegmentWriter
from ssmd.archive.shelf_manifest import raw_shelf, record_shelf
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import SystemClock, date_of
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.codecs import _schema, decode_records, encode_record
from ssmd.schemas.raw_line import LineEncoder
from ssmd.schemas.record_columns import book_columns
from ssmd.schemas.records import BookDelta, BookSnapshot, Side, SizeMeaning
from ssmd.services.replayer import Replayer
from ssmd.transforms.book_at import book_at
from ssmd.transforms.export import Request, export

ENV, FEED = "bench", "kalshi"
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
        FEED, ticker(at * 7919), ts, ts, SESSION, at + 1, 0, 1, at + 1, -4, -2, at * 6151 % 9999, at * 3571 % 500_000,
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

    def __init__(self, directory: Path) -> None:
        self.storage = MemoryStorage()
        self._path = directory / "spool"

    async def fill(self, count: int) -> None:
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
        for key, data in sorted(day.storage._objects.items()):  # noqa: SLF001 - the stored bytes alone
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


def main(arguments: list[str]) -> None:
    numbers = [int(text) for text in arguments if text.isdigit()]
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
        last = SESSION + count * 8_000
        (book,) = best(rounds, lambda: run(book_at(day.storage, WANTED._replace(kinds=()), ticker(5), last)))
        figures |= {"book_at_s": book, "book_at_s_per_10M_deltas": book / count * 10_000_000}
    figures["rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for key, value in figures.items():
        print(f"{key:<32} {value:>14,.2f}")
    if "--json" in arguments:
        machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "platform": platform.system()}
        document = {"records": count, "rounds": rounds, "machine": machine, "figures": figures}
        Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
