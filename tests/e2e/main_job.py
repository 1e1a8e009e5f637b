"""What a run of the main job left on disk, read with as little of ssmd as possible."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zstandard

from ssmd import settings
from ssmd.schemas.codecs import decode_records
from ssmd.schemas.records import Record

Levels = tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]
"""Bids and asks: price -> size."""


class ArchivedLine(NamedTuple):
    """One raw line. `frame` is the text between `"frame":` and the line's last brace."""

    session: int
    n: int
    direction: str
    frame: str


def run_ssmd(
    *arguments: str, timeout_s: float = 240, cwd: Path | None = None, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would, with `variables` on top of this process's own."""
    return subprocess.run(
        [sys.executable, "-m", "ssmd", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=cwd,
        check=False,
        env={**settings.variables(), **(variables or {})},
    )


def open_zstd(path: Path) -> io.BufferedReader:
    reader = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True, closefd=True)
    return io.BufferedReader(reader)


@dataclass(frozen=True)
class MainJob:
    """`ssmd demo --capture` has run; `report` is what it printed with -o json."""

    capture: Path
    workspace: Path
    report: dict[str, Any]

    @cached_property
    def captured(self) -> list[list[str]]:
        """Frames of the capture, per connection, verbatim."""
        found: dict[str, list[str]] = {}
        with open_zstd(self.capture) if self.capture.suffix == ".zst" else self.capture.open("rb") as lines:
            for line in lines:
                text = line.decode()
                found.setdefault(msgspec.json.decode(text)["conn"], []).append(text[text.index('"frame":') + 8 : -2])
        return list(found.values())

    def segments(self, kind: str) -> list[Path]:
        """Files of one kind ("raw", "book", ...) in order of their stream sequences."""
        part = "/archive/raw/" if kind == "raw" else f"/market-v1/{kind}/"
        paths = [Path(one["path"]) for one in self.report["segments"] if part in one["path"]]
        return sorted(paths, key=lambda path: path.name.split("-")[-2])

    @cached_property
    def raw_lines(self) -> list[ArchivedLine]:
        """In order of the archive."""
        found: list[ArchivedLine] = []
        for path in self.segments("raw"):
            with open_zstd(path) as lines:
                for line in lines:
                    text = line.decode().rstrip("\n")
                    head, _, frame = text.partition('"frame":')
                    told = msgspec.json.decode(head + '"frame":0}')
                    found.append(ArchivedLine(told["session"], told["n"], told.get("dir", "in"), frame[:-1]))
        return found

    def records(self, *kinds: str) -> list[Record]:
        """Records of some kinds, by (session, n, index)."""
        found: list[Record] = []
        for kind in kinds:
            for path in self.segments(kind):
                with open_zstd(path) as content:
                    found += decode_records(content.read())
        return sorted(found, key=lambda record: (record.session, record.n, record.index))


def run_main_job(capture: Path, workspace: Path) -> MainJob:
    done = run_ssmd("demo", "--capture", str(capture), "--keep", str(workspace), "-o", "json")
    assert done.returncode == 0, done.stderr
    return MainJob(capture, workspace, json.loads(done.stdout))


class NaiveBook:
    """A book straight from Kalshi's frames: decimals, no cleverness, on the YES side."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}

    def apply(self, frame: dict[str, Any]) -> None:
        msg = frame["msg"]
        if frame["type"] == "orderbook_snapshot":
            self.bids = {Decimal(price): Decimal(size) for price, size in msg.get("yes_dollars_fp", [])}
            self.asks = {1 - Decimal(price): Decimal(size) for price, size in msg.get("no_dollars_fp", [])}
            return
        price = Decimal(msg["price_dollars"])
        side, price = (self.bids, price) if msg["side"] == "yes" else (self.asks, 1 - price)
        size = side.get(price, Decimal(0)) + Decimal(msg["delta_fp"])
        assert size >= 0
        side.pop(price, None)
        if size:
            side[price] = size

    def levels(self) -> Levels:
        return dict(self.bids), dict(self.asks)
