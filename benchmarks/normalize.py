"""Frames a second through the Kalshi mapper, beside a plain decode of the same frames in the same run.

    python benchmarks/normalize.py CAPTURE.jsonl.zst [ROUNDS]

Each round is one pass over all frames, as the entries of one session a connection; the best and the median are told.
Seconds are CPU seconds of this process, so that neighbours on the machine count less.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import zstandard

from ssmd.exchanges.kalshi.frames import DOLLARS
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Connected, encode_fact


class Line(msgspec.Struct):
    ts_recv_ns: int
    conn: str
    frame: msgspec.Raw


def sessions_of(path: Path) -> list[list[Entry]]:
    """One list of entries a connection, each begun by its `connected` fact; frames have their newline again."""
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
        lines = reader.read().splitlines()
    decoder = msgspec.json.Decoder(Line)
    sessions: dict[str, list[Entry]] = {}
    for text in lines:
        line = decoder.decode(text)
        entries = sessions.setdefault(line.conn, [])
        if not entries:
            fact = encode_fact(Connected("kalshi", line.conn, "wss://capture", wire="kalshi-dollars"))
            entries.append(Entry(EntryKind.CTL, 1, line.ts_recv_ns, fact))
        entries.append(Entry(EntryKind.IN, len(entries) + 1, line.ts_recv_ns, bytes(line.frame) + b"\n"))
    return list(sessions.values())


def measure(name: str, frames: int, rounds: int, run: Callable[[], object]) -> None:
    rates = []
    for _ in range(rounds):
        gc.collect()
        start = time.process_time()
        run()
        rates.append(frames / (time.process_time() - start))
    print(f"{name:32} {max(rates):12,.0f} frames/s best {statistics.median(rates):12,.0f} median of {rounds}")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sessions = sessions_of(Path(sys.argv[1]))
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    frames = [entry.payload for entries in sessions for entry in entries if entry.kind == EntryKind.IN]

    def decode_plain() -> None:
        decode = msgspec.json.Decoder().decode
        for frame in frames:
            decode(frame)

    def decode_typed() -> None:
        decode = DOLLARS.decode
        for frame in frames:
            decode(frame)

    def normalize() -> None:
        for number, entries in enumerate(sessions, 1):
            mapper = KalshiMapper("kalshi", number)
            for entry in entries:
                mapper.map(entry)

    print(f"{len(frames):,} frames in {len(sessions)} sessions of {sys.argv[1]}")
    measure("plain msgspec decode", len(frames), rounds, decode_plain)
    measure("typed decode (all keys checked)", len(frames), rounds, decode_typed)
    measure("mapper (decode, checks, records)", len(frames), rounds, normalize)


if __name__ == "__main__":
    main()
