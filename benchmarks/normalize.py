"""Frames a second through the Kalshi mapper, beside decoding alone and beside cryptofeed's playback of its own sample.

    python benchmarks/normalize.py [CAPTURE.jsonl.zst] [ROUNDS] [--json [FILE]]

Each round is one pass over all frames, as the entries of one session a connection, then one of each baseline; told are
medians. Seconds are CPU seconds, so that neighbours on the machine count less. Without a capture it is the genuine one
beside the checkout, else a seeded one of its shape.

A figure that misses what is wanted makes the exit status 1. --json writes docs/measurements/normalize.json, or FILE.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import _cryptofeed
import _table
import msgspec
from _measurement import write_rows

from ssmd.archive.segment import read_file, split_lines
from ssmd.exchanges.kalshi.frames import DOLLARS
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Connected, encode_fact
from ssmd.services.simulator.seeded_capture import write_seeded_capture

GENUINE = Path(__file__).resolve().parents[2] / "shared" / "captures" / "kalshi-btc15m-2026-05-14.jsonl.zst"
PLAYBACKS = 5
"""A round of cryptofeed's: its sample is short, and the first is slow."""


class Line(msgspec.Struct):
    ts_recv_ns: int
    conn: str
    frame: msgspec.Raw


def sessions_of(path: Path) -> list[list[Entry]]:
    """One list of entries a connection, each begun by its `connected` fact; frames have their newline again."""
    decoder = msgspec.json.Decoder(Line)
    sessions: dict[str, list[Entry]] = {}
    plain = path.suffix != ".zst"
    for text in path.read_bytes().splitlines() if plain else split_lines(read_file(path)):
        line = decoder.decode(text)
        entries = sessions.setdefault(line.conn, [])
        if not entries:
            fact = encode_fact(Connected("kalshi", line.conn, "wss://capture", wire="kalshi-dollars"))
            entries.append(Entry(EntryKind.CTL, 1, line.ts_recv_ns, fact))
        entries.append(Entry(EntryKind.IN, len(entries) + 1, line.ts_recv_ns, bytes(line.frame) + b"\n"))
    return list(sessions.values())


def rate(frames: int, run: Callable[[], object]) -> float:
    """Frames a CPU second."""
    gc.collect()
    began = time.process_time()
    run()
    return frames / (time.process_time() - began)


def cryptofeed_python() -> Path | str:
    """The Python that has cryptofeed, or why there is none."""
    try:
        return _cryptofeed.prepare()
    except _cryptofeed.NotHere as error:
        return str(error)


def measure(path: Path, rounds: int) -> None:
    sessions = sessions_of(path)
    frames = [entry.payload for entries in sessions for entry in entries if entry.kind == EntryKind.IN]

    def decode() -> None:
        decoded = DOLLARS.decode
        for frame in frames:
            decoded(frame)

    def normalize() -> None:
        for number, entries in enumerate(sessions, 1):
            mapper = KalshiMapper("kalshi", number)
            for entry in entries:
                mapper.map(entry)

    python = cryptofeed_python()
    ours, plain, theirs = [], [], []
    for _ in range(rounds):
        ours.append(rate(len(frames), normalize))
        plain.append(rate(len(frames), decode))
        if isinstance(python, Path):
            try:
                theirs += _cryptofeed.play(python, PLAYBACKS)[1:]
            except _cryptofeed.NotHere as error:
                python = str(error)
    own, alone = statistics.median(ours), statistics.median(plain)
    _table.row(own / 200_000, "normalize alone, genuine" if path == GENUINE else "normalize alone", f"{own:,.0f} frames/s",
               "200,000 frames/s, a constant", ">= 1")  # fmt: skip
    _table.row(own / alone, "normalize beside decoding alone", f"{own:,.0f} frames/s", f"{alone:,.0f} frames/s")
    beside = f"normalize beside cryptofeed {_cryptofeed.VERSION}"
    if isinstance(python, str):
        _table.not_run(beside, python)
    else:
        other = statistics.median(theirs)
        _table.row(own / other, beside, f"{own:,.0f} frames/s", f"{other:,.0f} msg/s, its Kraken sample", ">= 1.5")


def main(arguments: list[str]) -> int:
    _table.heading()
    named = arguments[: arguments.index("--json")] if "--json" in arguments else arguments
    given = [Path(one) for one in named if not one.isdigit()]
    rounds = next((int(one) for one in arguments if one.isdigit()), 7)
    with tempfile.TemporaryDirectory() as directory:
        path = given[0] if given else GENUINE
        if not path.exists():
            _table.not_run("normalize alone, genuine", "the capture is not beside the checkout; a seeded one instead")
            path = Path(directory) / "seeded.jsonl"
            write_seeded_capture(path, seed=1, frames=100_000)
        measure(path, rounds)
    return write_rows("normalize.json", arguments, rounds=rounds, figures={})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
