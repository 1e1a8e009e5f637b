from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.services.connector.test_connector import bench, running, until

from ssmd.errors import Unavailable
from ssmd.services.connector import flushing
from ssmd.services.simulator.config import SimulatorConfig

LIVE = SimulatorConfig(seed=4, markets=3, rate=1000, require_auth=False)


async def test_a_flush_hands_on_all_that_was_captured_by_then_while_the_capture_goes_on(tmp_path: Path) -> None:
    async with bench(tmp_path, LIVE) as system:
        connector = system.connector()
        with pytest.raises(Unavailable, match="does not run"):
            await connector.flush()
        async with running(connector) as task:
            await until(lambda: int(connector.health().stats["acked_n"]) > 20, "the first frames", task)
            system.transport.is_away = True
            frames = int(connector.health().stats["frames"])
            await until(lambda: int(connector.health().stats["frames"]) > frames + 100, "frames meanwhile", task)
            entries = int(connector.health().stats["entries"])
            flush = asyncio.create_task(connector.flush())
            await asyncio.wait({flush}, timeout=0.1)
            assert not flush.done()
            system.transport.is_away = False
            await asyncio.wait_for(flush, 60)
            assert len(system.entries()) >= entries
            assert not task.done()


async def test_a_flush_that_does_not_come_to_its_end_says_what_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flushing, "FLUSH_TIMEOUT_S", 0.1)
    async with bench(tmp_path, LIVE) as system:
        connector = system.connector()
        system.journal.is_away = True
        async with running(connector) as task:
            await until(lambda: int(connector.health().stats["acked_n"]) > 20, "the streams have frames", task)
            with pytest.raises(Unavailable, match=r"the streams have \d+/\d+, the journal 0/0 \(.+\) after 0.1 s"):
                await connector.flush()
            system.journal.is_away = False
            monkeypatch.setattr(flushing, "FLUSH_TIMEOUT_S", 20)
            await connector.flush()
            assert await system.facts()
