"""`ssmd record`: one command, no documents, and the data is there."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
import zstandard

from ssmd.clock import SystemClock
from ssmd.errors import Misconfigured
from ssmd.identifiers import system_random
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator
from ssmd.wiring.record import Recording


async def command(*words: str) -> tuple[int, str, str]:
    """`ssmd WORDS`: exit status, what it answered, what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ssmd", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(100):
        told, said = await process.communicate()
    return process.returncode or 0, told.decode(), said.decode()


async def test_a_market_is_recorded_by_one_command_with_nothing_set_up(tmp_path: Path) -> None:
    simulator = Simulator(SimulatorConfig(seed=7, markets=3, rate=300, require_auth=False), SystemClock())
    await simulator.start()
    serving = asyncio.create_task(simulator.run())
    try:
        ticker, other, _ = simulator._feed.model.markets  # type: ignore[union-attr]  # it is the model's
        url = simulator.rest_url.removesuffix("/trade-api/v2")
        where = ("--workspace", str(tmp_path / "w"))
        recording = ("record", "kalshi", ticker, "--for", "2s", "--url", url, "--keep", str(tmp_path / "rec"), "-o", "json")
        status, answered, said = await command(*where, *recording)
        assert status == 0, said
        assert "no live view" not in said
        report = json.loads(answered)
    finally:
        await simulator.stop()
        await serving
    assert report["frames"] > 20
    assert report["records"]["book"] > 10
    assert report["records"]["snapshot"] >= 1
    raw = list(Path(report["archive"]).rglob("*.jsonl.zst"))
    lines = [
        json.loads(line)
        for path in raw
        for line in zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().splitlines()
    ]
    told = {line["frame"]["msg"].get("market_ticker") for line in lines if "frame" in line and "sid" in line["frame"]}
    assert ticker in told
    assert other not in told
    assert [gap["cause"] for gap in report["gaps"]] == ["stopped"]
    status, answered, said = await command("--workspace", report["workspace"], "data", "gaps", "-o", "json")
    assert status == 0, said
    assert [gap["cause"] for gap in json.loads(answered)] == ["stopped"]


async def test_an_url_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="is no url of a venue"):
        await Recording(
            {},
            SystemClock(),
            system_random,
            "cli:test",
            ("A",),
            "prod",
            "ftp://x",
            2.0,
            lambda _: None,
            _unseen,
            lambda _: None,
        ).run(tmp_path, asyncio.Event())


async def _unseen(_gateway: str) -> None:
    return
