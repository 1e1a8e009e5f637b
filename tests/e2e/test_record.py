"""`ssmd record`: one command, no documents, and the data is there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import zstandard

from ssmd.clock import SystemClock
from ssmd.errors import Misconfigured
from ssmd.identifiers import system_random
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator
from ssmd.wiring.record import Recorded, Recording


async def record(directory: Path, ticker: str, url: str) -> tuple[Recorded, list[str]]:
    seen: list[str] = []

    async def view(gateway: str) -> None:
        seen.append(gateway)

    recording = Recording(
        {}, SystemClock(), system_random, "cli:test", (ticker,), "prod", url, 2.0, lambda _: None, view, lambda _: None
    )
    return await recording.run(directory, asyncio.Event()), seen


async def test_a_market_is_recorded_with_nothing_set_up(tmp_path: Path) -> None:
    simulator = Simulator(SimulatorConfig(seed=7, markets=3, rate=300, require_auth=False), SystemClock())
    await simulator.start()
    serving = asyncio.create_task(simulator.run())
    try:
        ticker = next(iter(simulator._feed.model.markets))  # type: ignore[union-attr]  # it is the model's
        report, seen = await record(tmp_path / "rec", ticker, simulator.rest_url)
    finally:
        await simulator.stop()
        await serving
    assert seen
    assert seen[0].startswith("http://127.0.0.1:")
    assert report.frames > 20
    assert report.records["book"] > 10
    assert report.records["snapshot"] >= 1
    raw = list(Path(report.archive).rglob("*.jsonl.zst"))
    lines = [
        json.loads(line)
        for path in raw
        for line in zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().splitlines()
    ]
    told = {line["frame"]["msg"].get("market_ticker") for line in lines if "frame" in line and "sid" in line["frame"]}
    assert ticker in told
    assert [gap.cause for gap in report.gaps] == ["stopped"]


async def test_an_url_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="is no url of a venue"):
        await record(tmp_path, "A", "ftp://x")
