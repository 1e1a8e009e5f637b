"""The archivers beside reading, compressing and hashing alone, and the codecs beside pycapnp; ratios first.

    python benchmarks/archive.py [FRAMES] [ROUNDS]

Frames of Kalshi's shape come in blocks of 50 from one nats-server. Rounds alternate with the baseline's, the best of
each counts.

raw          lines/s from the stream to sealed segments on disk (memory journal); baseline = read the same messages,
             take the entries out of their blocks, zstd the payloads in frames of 1 MiB and sha256 both sides
raw, opaque  as above, the baseline without taking the entries out: blocks compressed as they come
normalized   records/s from the stream to sealed segments; baseline = read the same messages, zstd, sha256
encode       records/s by template; baseline = pycapnp
decode       records/s in place; baseline = pycapnp
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvloop
import zstandard

from ssmd.application.handler import Application
from ssmd.archive.storage_local import LocalStorage
from ssmd.clock import SystemClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.identifiers import system_random
from ssmd.registry.documents import ArchiveSettings
from ssmd.schemas import codecs
from ssmd.schemas.blocks import NO_DIGEST, EntryKind, decode_block, encode_body, pack_entry
from ssmd.schemas.codecs import decode_records, encode_record, encode_reference
from ssmd.schemas.market_message import MARK_PART, Mark, Place, encode_mark, message_id, raw_message_id
from ssmd.schemas.records import BookDelta, Side, SizeMeaning
from ssmd.services.embedded_servers import start_nats
from ssmd.services.normalized_archiver import NormalizedArchiver
from ssmd.services.raw_archiver import RawArchiver
from ssmd.streams import subjects, topology
from ssmd.streams.connection import Connection
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.transport import Outgoing, StreamName
from ssmd.streams.transport_nats import NatsTransport

ENV, FEED, CONNECTION = "bench", "kalshi", "main"
SESSION = 1_778_760_000_000_000_000
FRAMES_PER_BLOCK = 50
FRAME_BYTES = 1 << 20


def frame(at: int) -> bytes:
    market = f"KXBTC15M-26MAY14{at * 7919 % 24:02}{at % 4 * 15:02}-15"
    return (
        f'{{"type":"orderbook_delta","sid":1,"seq":{at + 1},"msg":{{"market_ticker":"{market}",'
        f'"market_id":"fb95fe57-d4f2-4f3f-956c-f7011063d20f","price_dollars":"0.{at * 6151 % 9999:04}",'
        f'"delta_fp":"{at * 3571 % 5000}.00","side":"{"yes" if at % 3 else "no"}","ts_ms":{1_778_768_091_000 + at // 9}}}}}\n'
    ).encode()


def record(at: int) -> BookDelta:
    ts = SESSION + at * 120_000
    price, size = at * 6151 % 9999, at * 3571 % 500_000
    return BookDelta(
        FEED, f"KXBTC15M-{at % 4}", ts, ts, SESSION, at + 1, 0, 1, at + 1, -4, -2, price, size, Side.BID, SizeMeaning.CHANGE
    )


def messages(frames: int) -> list[Outgoing]:
    out, digest, previous = [], NO_DIGEST, (0, 0)
    for first in range(0, frames, FRAMES_PER_BLOCK):
        numbers = range(first, min(first + FRAMES_PER_BLOCK, frames))
        times = [SESSION + at * 120_000 for at in numbers]
        body = b"".join(pack_entry(EntryKind.IN, ts, frame(at)) for at, ts in zip(numbers, times, strict=True))
        block, digest = encode_body(SESSION, first + 1, len(numbers), times[0], times[-1], digest, body)
        out.append(Outgoing(subjects.raw(ENV, FEED, CONNECTION), block, raw_message_id(CONNECTION, SESSION, first + 1)))
        for part in range(4):
            payload = b"".join(encode_record(record(at)) for at in numbers if at % 4 == part)
            place = Place(CONNECTION, SESSION, first + 1, part)
            out.append(Outgoing(subjects.market(ENV, FEED, "book", f"KXBTC15M-{part}"), payload, message_id(place)))
        mark = Mark(CONNECTION, SESSION, first + 1, numbers[-1] + 1, 4, {"book": len(numbers)}, *previous, times[-1], 1)
        place = Place(CONNECTION, SESSION, first + 1, MARK_PART)
        out.append(Outgoing(subjects.mark(ENV, FEED, CONNECTION), encode_mark(mark), message_id(place)))
        previous = (SESSION, numbers[-1] + 1)
    return out


class Sink:
    """zstd and sha256 of both sides, alone."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._hashes = hashlib.sha256(), hashlib.sha256()
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= FRAME_BYTES:
            self.flush()

    def flush(self) -> None:
        content = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        stored = self._compressor.compress(content)
        self._hashes[0].update(content)
        self._hashes[1].update(stored)
        self._file.write(stored)


async def read_alone(transport: NatsTransport, stream: StreamName, sink: Sink, *, entries: bool) -> None:
    last = (await transport.state(stream)).last_seq
    reader = await transport.read(stream)
    seq = 0
    while seq < last:
        for message in await reader.next(5.0):
            seq = message.seq
            if entries:
                for entry in decode_block(message.payload).entries:
                    sink.add(entry.payload)
            else:
                sink.add(message.payload)
    sink.flush()
    await reader.close()


async def archive(transport: NatsTransport, build: Any, directory: Path) -> int:
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
    )
    running = asyncio.create_task(archiver.run())
    await asyncio.sleep(0)
    await archiver.flush()
    await archiver.stop()
    await running
    return int(archiver.health().stats["records"])


async def best(rounds: int, *calls: Callable[[Path], Awaitable[Any]]) -> list[float]:
    """Seconds of the fastest round of each, taken by turns."""
    fastest = [float("inf")] * len(calls)
    for _ in range(rounds):
        for at, call in enumerate(calls):
            with tempfile.TemporaryDirectory() as directory:
                start = time.perf_counter()
                await call(Path(directory))
                fastest[at] = min(fastest[at], time.perf_counter() - start)
    return fastest


def show(name: str, count: int, own_s: float, baseline_s: float) -> None:
    print(f"{name:14} ratio {baseline_s / own_s:5.2f}   {count / own_s:12,.0f}/s   baseline {count / baseline_s:12,.0f}/s")


async def fill(transport: NatsTransport, url: str, out: Sequence[Outgoing]) -> None:
    connection = await Connection.open(url, name="bench", timeout_s=5)
    wanted = topology.desired(ENV, max_age_s=3600, max_bytes=4 << 30)
    await topology.apply({"transport": connection}, [one for one in wanted if one.endpoint == "transport"])
    await connection.close()
    publisher = await transport.publisher()
    for at in range(0, len(out), 500):
        sent = out[at : at + 500]
        await publisher.publish(sent)
        while publisher.acks("raw") + publisher.acks("market") < at + len(sent):
            await publisher.progress(10.0)
    await publisher.close()


async def streams(frames: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = await start_nats(Path(directory) / "nats", sync_always=False)
        transport = await NatsTransport.open(server.url, ENV)
        await fill(transport, server.url, messages(frames))

        async def own(build: Any, path: Path) -> None:
            found = await archive(transport, build, path)
            if found != frames:
                raise SystemExit(f"archived {found} of {frames}")

        raw_s, entries_s, opaque_s, normalized_s, market_s = await best(
            rounds,
            lambda path: own(RawArchiver, path),
            lambda path: read_alone(transport, "raw", Sink(path / "x"), entries=True),
            lambda path: read_alone(transport, "raw", Sink(path / "x"), entries=False),
            lambda path: own(NormalizedArchiver, path),
            lambda path: read_alone(transport, "market", Sink(path / "x"), entries=False),
        )
        show("raw", frames, raw_s, entries_s)
        show("raw, opaque", frames, raw_s, opaque_s)
        show("normalized", frames, normalized_s, market_s)
        await transport.close()
        await server.stop()


async def codec_rates(count: int, rounds: int) -> None:
    written = [record(at) for at in range(count)]
    encoded = [encode_record(one) for one in written]
    data = b"".join(encoded)

    async def run(call: Callable[[], Any], _path: Path) -> None:
        call()

    fast_s, reference_s, decode_s, reference_decode_s = await best(
        rounds,
        lambda path: run(lambda: [encode_record(one) for one in written], path),
        lambda path: run(lambda: [encode_reference(one) for one in written], path),
        lambda path: run(lambda: list(decode_records(data)), path),
        lambda path: run(lambda: [codecs._read_reference(one, 0, len(one)) for one in encoded], path),  # noqa: SLF001
    )
    show("encode", count, fast_s, reference_s)
    show("decode", count, decode_s, reference_decode_s)


def main() -> None:
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    uvloop.run(codec_rates(min(frames, 30_000), rounds))
    uvloop.run(streams(frames, rounds))
    print(f"peak memory    {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB (the input is held too)")


if __name__ == "__main__":
    main()
