"""`ssmd data backfill` into a stopped environment, from a simulated venue."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Ssmd

from ssmd.clock import SystemClock
from ssmd.registry.documents import Endpoint
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator
from ssmd.streams.journal_sqlite import SqliteJournal
from ssmd.wiring.backfill import Wanted, dates_of
from ssmd.wiring.environment import ResolvedEnvironment

ENV = "kalshi-dev"
START_NS = 1_795_363_200_000_000_000


@pytest.fixture
def venue() -> Iterator[str]:
    """REST url of a venue that ran on 2026-11-22, in a thread with a loop of its own."""
    config = SimulatorConfig(
        require_auth=False, start_ns=START_NS, start_paused=True, rest_tokens_s=50_000, markets=3, rate=5, roll_s=60,
        history_s=300, live_window_s=100,
    )  # fmt: skip
    simulator = Simulator(config, SystemClock())
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def serve() -> None:
        await simulator.start()
        ready.set()
        await simulator.run()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    yield simulator.rest_url
    asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result(10)
    thread.join(10)
    loop.close()


@pytest.fixture
def stopped(workspace: Path, venue: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    document = workspace / "exchanges" / "environments" / f"{ENV}.yaml"
    document.write_text(document.read_text() + "journal:\n  backend: sqlite\n")
    directory = workspace / ".ssmd" / ENV
    directory.mkdir(parents=True)

    async def make() -> None:
        await (await SqliteJournal.open(directory / "journal.sqlite", ENV)).close()

    asyncio.run(make())
    monkeypatch.setenv("SSMD_ENV", ENV)
    monkeypatch.setattr(ResolvedEnvironment, "endpoint", Endpoint(rest=venue, websocket=""))
    # What the workspace's feed and today are is a matter of the clock: the venue's day is over for it.
    monkeypatch.setattr(SystemClock, "now_ns", staticmethod(lambda: START_NS + 2 * 86_400_000_000_000))
    return workspace


def asked(ssmd: Ssmd, *more: str) -> Any:
    called = ssmd("data", "backfill", "--from", "2026-11-21", "--to", "2026-11-22", *more, "-o", "json")
    assert called.status == 0, called.err
    return json.loads(called.out)


def test_days_are_brought_once_and_shown_in_the_inventory(ssmd: Ssmd, stopped: Path) -> None:
    dry = asked(ssmd, "--dry-run")
    assert [(day["date"], day["was_there"], day["trades"]) for day in dry] == [
        ("2026-11-21", False, 0),
        ("2026-11-22", False, 0),
    ]
    assert not list((stopped / ".ssmd" / ENV).glob("archive/raw/**/*.zst"))
    empty, full = asked(ssmd)
    assert (empty["trades"], empty["candles"], empty["was_there"]) == (0, 0, False)
    assert full["trades"] > 50
    assert full["markets"] >= 1
    again = asked(ssmd)
    assert [day["was_there"] for day in again] == [True, True]
    called = ssmd("data", "inventory", "--date", "2026-11-22", "-o", "json")
    lines = {(line["type"], line["kind"], line["partition"]): line for line in json.loads(called.out)}
    trades = lines["normalized", "trade", "backfill:all"]
    assert (trades["records"], trades["status"]) == (full["trades"], "complete")
    assert ("raw", "raw", "backfill-candles:all") in lines
    assert ssmd("data", "verify", "--date", "2026-11-22").status in {0, 1}  # manifests are the projector's


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("2026-11-23", "2026-11-22", "is after"),
        ("2026-11-22", "2026-11-24", "is not over"),
        ("2010-01-01", "2026-11-22", "at most"),
    ],
)
def test_days_that_cannot_be_are_refused_before_anything_is_asked(
    ssmd: Ssmd, stopped: Path, first: str, last: str, words: str
) -> None:
    called = ssmd("data", "backfill", "--from", first, "--to", last)
    assert called.status != 0
    assert words in called.err


def test_the_days_are_those_between_both_inclusive() -> None:
    assert dates_of(Wanted("2026-02-27", "2026-03-02"), "2026-03-03") == [
        "2026-02-27",
        "2026-02-28",
        "2026-03-01",
        "2026-03-02",
    ]
