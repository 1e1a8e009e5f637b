"""The archivers beside reading, compressing and hashing alone, and the codecs beside pycapnp; ratios first.

    python benchmarks/archive.py [FRAMES] [ROUNDS] [--json [FILE]]

Frames come in blocks of 50 (10 ms at 5,000 a second) from one nats-server, with the records and marks the connector makes
of them: of the genuine capture (a seeded one where it is absent), and of 2,000 tickers that follow Zipf's law. Rounds
alternate with the baselines'; the ratio is the median of the pairs', by the clock.

raw          entries/s from the stream to sealed segments on disk (memory journal)
normalized   records/s, likewise
             The baseline of both is: read the same messages, then zstd and SHA-256 (of both sides) of the very bytes that
             were archived, in frames of 1 MiB, one after the other on one thread: nothing is decoded, checked, put in order,
             uploaded or journaled, and no sidecar is made, as ours does for normalized segments. Four rows each:
             - beside the bare client: what reads is nats-py alone, `pull_subscribe(...).fetch(100)` without acks, as capture.py
               has the bare client for its baseline. Of the market stream BARE_MESSAGES are read, and reckoned up.
             - beside our reader: it reads as our archiver does, which skips what nats-py does for every message: the leanest
               "read" there can be. Whatever makes our reader faster makes this ratio worse.
             - from a cold start: as the first, but with what an archiver does once in its life: start, begin to read, start
               the process that writes, and end that again. The others leave it out, for an archiver runs for days: they
               begin when the first segment has been sealed.
             - by CPU: CPU seconds of this process and of those it started, cold, beside our reader. By the clock ours may use
               two cores (an archiver's loop reads and orders, the process beside it writes), by CPU that counts twice.
RSS          highest resident memory of an archiver in a process of its own, and of the process that writes beside it, while
             they archive all that as fast as they can
encode       records/s by template; baseline = pycapnp
decode       records/s in place; baseline = pycapnp

A figure that misses what is wanted makes the exit status 1. --json writes docs/measurements/archive-speed.json, or FILE.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import _archive_input as archive_input
import _table
import nats
import structlog
import uvloop
import zstandard
from _measurement import write_rows
from nats.js.api import AckPolicy, ConsumerConfig

from ssmd.application.handler import Application
from ssmd.archive import crash_points
from ssmd.archive.segment import read_file
from ssmd.archive.storage_local import LocalStorage
from ssmd.clock import SystemClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.identifiers import system_random
from ssmd.registry.documents import ArchiveSettings
from ssmd.schemas import codecs
from ssmd.schemas.codecs import decode_records, encode_record, encode_reference
from ssmd.schemas.records import BookDelta, Side, SizeMeaning
from ssmd.services.embedded_servers import start_nats
from ssmd.services.normalized_archiver import NormalizedArchiver
from ssmd.services.raw_archiver import RawArchiver
from ssmd.streams import topology
from ssmd.streams.connection import Connection
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.transport import Outgoing, StreamName
from ssmd.streams.transport_nats import NatsTransport

ENV, FEED = "bench", archive_input.FEED
SESSION = 1_778_760_000_000_000_000
FRAME_BYTES = 1 << 20
FETCH = 100
BARE_MESSAGES = 50_000
WANTED = ">= 0.7"
RSS_MIB_MAX = 300
CHILD_S_MAX = 120


def record(at: int) -> BookDelta:
    ts = SESSION + at * 120_000
    price, size = at * 6151 % 9999, at * 3571 % 500_000
    return BookDelta(
        FEED, f"KXBTC15M-{at % 4}", ts, ts, SESSION, at + 1, 0, 1, at + 1, -4, -2, price, size, Side.BID, SizeMeaning.CHANGE
    )


async def read_alone(transport: NatsTransport, stream: StreamName) -> None:
    last = (await transport.state(stream)).last_seq
    reader = await transport.read(stream)
    seq = 0
    while seq < last:
        for message in await reader.next(5.0):
            seq = message.seq
    await reader.close()


async def read_bare(url: str, stream: StreamName, limit: int) -> None:
    """`limit` messages of a stream by nats-py alone."""
    client = await nats.connect(url)
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True)
    consumer = await client.jetstream().pull_subscribe("", stream=topology.stream_name(ENV, stream), config=config)
    read = 0
    while read < limit:
        read += len(await consumer.fetch(min(FETCH, limit - read), timeout=5))
    await client.close()


def compress_and_hash(contents: dict[str, bytes], directory: Path) -> None:
    """What has to be done to `contents` in any case."""
    for name, content in contents.items():
        compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        sides = hashlib.sha256(), hashlib.sha256()
        with (directory / name).open("wb") as file:
            for at in range(0, len(content), FRAME_BYTES):
                piece = content[at : at + FRAME_BYTES]
                stored = compressor.compress(piece)
                sides[0].update(piece)
                sides[1].update(stored)
                file.write(stored)


def contents_of(directory: Path) -> dict[str, bytes]:
    """The content of every segment below `directory`."""
    return {str(n): b"".join(read_file(path)) for n, path in enumerate(sorted(directory.rglob("*.zst")))}


class Archived(NamedTuple):
    """A run of an archiver: its records and seconds, and those of them behind its first seal (0 = it had but one)."""

    records: int
    seconds: float
    steady_records: int
    steady_s: float


async def archive(
    transport: NatsTransport, build: Any, directory: Path, at_seal: Callable[[Any], None] | None = None
) -> Archived:
    sealed: list[tuple[float, int]] = []

    def note(point: str) -> None:
        if point == crash_points.AFTER_SEAL:  # what was sealed before this seal
            sealed.append((time.perf_counter(), int(archiver.health().stats["records"])))
            if at_seal is not None:
                at_seal(archiver)

    began = time.perf_counter()
    archiver = build(
        ENV,
        FEED,
        instance="bench",
        transport=transport,
        storage=LocalStorage(directory / "archive"),
        application=Application(MemoryJournal(ENV), CATALOGUE, SystemClock(), system_random),
        clock=SystemClock(),
        random=system_random,
        spool=directory / "spool",
        settings=ArchiveSettings(segment_bytes=32 << 20),
        crash_point=note,
    )
    running = asyncio.create_task(archiver.run())
    await asyncio.sleep(0)
    await archiver.flush()
    flushed = time.perf_counter()
    await archiver.stop()
    await running
    records = int(archiver.health().stats["records"])
    whole_s = time.perf_counter() - began
    if len(sealed) < 2:
        return Archived(records, whole_s, 0, 0.0)
    return Archived(records, whole_s, records - sealed[1][1], flushed - sealed[0][0])


def highest_rss_mib(pid: int | str) -> float:
    """The most resident memory that the process ever had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


async def archive_alone(url: str, stream: str, directory: str) -> None:
    """Child: archive a stream; prints the highest memory of this process, and of the one that writes, in MiB."""
    found = {"archiver": 0.0, "writer": 0.0}

    def look(archiver: Any) -> None:
        found["archiver"] = highest_rss_mib("self")
        child = archiver._sealer._process._child  # noqa: SLF001 - it is what is measured
        if child is not None:
            found["writer"] = max(found["writer"], highest_rss_mib(child.pid))

    transport = await NatsTransport.open(url, ENV)
    await archive(transport, RawArchiver if stream == "raw" else NormalizedArchiver, Path(directory), look)
    await transport.close()
    print(json.dumps(found), flush=True)


def cpu_s() -> float:
    """CPU seconds of this process and of those that it started and that have ended: the server has not."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


class Figures:
    """What was measured, shown as it comes."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def show(self, name: str, unit: str, count: int, pairs: Sequence[tuple[float, float]], wanted: str = "") -> None:
        """`pairs`: seconds for `count` of ours and of the baseline beside it."""
        ratio = statistics.median(base / own for own, base in pairs)
        own_rate, base_rate = (count / statistics.median(times) for times in zip(*pairs, strict=True))
        _table.row(ratio, name, f"{own_rate:,.0f} {unit}", f"{base_rate:,.0f} {unit}", wanted)
        self.found[f"{name} ratio"], self.found[f"{name} per_s"] = round(ratio, 3), round(own_rate)

    def show_rss(self, name: str, mib: float) -> None:
        """`mib`: the most that a process had."""
        _table.row(mib / RSS_MIB_MAX, f"{name}: highest RSS", f"{mib:,.0f} MiB", f"{RSS_MIB_MAX} MiB, the limit", "<= 1")
        self.found[f"{name} rss_mib"] = round(mib)


async def fill(transport: NatsTransport, url: str, out: Iterable[Outgoing]) -> None:
    connection = await Connection.open(url, name="bench", timeout_s=5)
    wanted = topology.desired(ENV, max_age_s=3600, max_bytes=4 << 30)
    await topology.apply({"transport": connection}, [one for one in wanted if one.endpoint == "transport"])
    await connection.close()
    publisher = await transport.publisher()
    sent, waiting = 0, iter(out)
    while some := list(islice(waiting, 500)):
        await publisher.publish(some)
        sent += len(some)
        while publisher.acks("raw") + publisher.acks("market") < sent:
            await publisher.progress(10.0)
    await publisher.close()


async def streams(name: str, frames: Sequence[bytes], count: int, rounds: int, figures: Figures) -> None:
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        server = await start_nats(directory / "nats", sync_always=False)
        transport = await NatsTransport.open(server.url, ENV)
        await fill(transport, server.url, archive_input.messages(ENV, frames, count))
        await one_stream(f"raw, {name}", "entries/s", transport, server.url, "raw", RawArchiver, rounds, figures, directory)
        await one_stream(
            f"normalized, {name}", "records/s", transport, server.url, "market", NormalizedArchiver, rounds, figures, directory
        )
        await transport.close()
        await server.stop()


async def one_stream(
    name: str,
    unit: str,
    transport: NatsTransport,
    url: str,
    stream: StreamName,
    build: Any,
    rounds: int,
    figures: Figures,
    directory: Path,
) -> None:
    messages = (await transport.state(stream)).last_seq
    contents: dict[str, bytes] = {}
    pairs: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": [], "cold": [], "cpu": []}
    records = 0
    for number in range(rounds + 1):
        place = directory / f"{stream}-{number}"
        place.mkdir()
        start_cpu = cpu_s()
        own = await archive(transport, build, place)
        own_cpu_s, records = cpu_s() - start_cpu, own.records
        steady_s = own.steady_s * records / own.steady_records if own.steady_records else own.seconds
        contents = contents or contents_of(place / "archive")
        start, start_cpu = time.perf_counter(), cpu_s()
        await read_alone(transport, stream)
        read = time.perf_counter()
        compress_and_hash(contents, place)
        written, end_cpu = time.perf_counter(), cpu_s()
        limit = min(messages, BARE_MESSAGES)
        await read_bare(url, stream, limit)
        bare_s = (time.perf_counter() - written) * messages / limit + written - read
        if number:  # the first round warms up
            pairs["bare"].append((steady_s, bare_s))
            pairs["ours"].append((steady_s, written - start))
            pairs["cold"].append((own.seconds, bare_s))
            pairs["cpu"].append((own_cpu_s, end_cpu - start_cpu))
        shutil.rmtree(place)
    figures.show(f"{name}: beside the bare client", unit, records, pairs["bare"], WANTED)
    figures.show(f"{name}: beside our reader", unit, records, pairs["ours"])
    figures.show(f"{name}: from a cold start", unit, records, pairs["cold"])
    figures.show(f"{name}: by CPU", unit, records, pairs["cpu"])
    alone = directory / f"{stream}-alone"
    alone.mkdir()
    command = [sys.executable, __file__, "--child", url, stream, str(alone)]
    done = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, text=True, timeout=CHILD_S_MAX, check=True)
    for who, mib in json.loads(done.stdout.splitlines()[-1]).items():
        figures.show_rss(f"{name}, {who}", mib)


async def codec_rates(count: int, rounds: int, figures: Figures) -> None:
    written = [record(at) for at in range(count)]
    encoded = [encode_record(one) for one in written]
    data = b"".join(encoded)

    def seconds(call: Callable[[], object]) -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    encodes, decodes = [], []
    for _ in range(rounds):
        encodes.append(
            (
                seconds(lambda: [encode_record(one) for one in written]),
                seconds(lambda: [encode_reference(one) for one in written]),
            )
        )
        decodes.append(
            (
                seconds(lambda: list(decode_records(data))),
                seconds(lambda: [codecs._read_reference(one, 0, len(one)) for one in encoded]),  # noqa: SLF001
            )
        )
    figures.show("encode", "records/s", count, encodes, ">= 1.5")
    figures.show("decode", "records/s", count, decodes)


def main(arguments: list[str]) -> int:
    numbers = [int(text) for text in arguments if text.isdigit()]
    count, rounds = (*numbers, *(400_000, 5)[len(numbers) :])[:2]
    figures = Figures()
    _table.heading()
    uvloop.run(codec_rates(20_000, rounds, figures))
    with tempfile.TemporaryDirectory() as directory:
        name, frames = archive_input.capture_frames(Path(directory))
    uvloop.run(streams(name, frames, count, rounds, figures))
    uvloop.run(streams("2,000 Zipf tickers", archive_input.zipf_frames(count), count, rounds, figures))
    return write_rows("archive-speed.json", arguments, rounds=rounds, figures=figures.found, frames=count)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if sys.argv[1:2] == ["--child"]:
        uvloop.run(archive_alone(*sys.argv[2:]))
    else:
        sys.exit(main(sys.argv[1:]))
