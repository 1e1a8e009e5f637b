"""`ssmd journal` on an environment that does not run: filters, counts, damage on disk, and copies."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.trading_day import ActivateDay, StartDay
from ssmd.identifiers import system_random
from ssmd.services.embedded_servers import start_nats
from ssmd.streams.journal import Journal
from ssmd.streams.journal_anchor import RollingDigest, anchor_key, encode_anchor
from ssmd.streams.journal_nats import NatsJournal
from ssmd.streams.journal_sqlite import SqliteJournal

Ssmd = Any
ENV = "kalshi-dev"
T0 = 1_778_760_000_000_000_000  # 2026-05-14T12:00:00Z
DAY_NS = 86_400 * 10**9
DAYS = [f"2026-05-{day}" for day in range(14, 24)]


async def fill(journal: Journal, directory: Path) -> None:
    clock = ManualClock(T0)
    application = Application(journal, CATALOGUE, clock, system_random, "c0ffee")
    for number, day in enumerate(DAYS):
        actor = "cli:anna" if number % 2 else "workflow:day"
        for command in (StartDay(day, "test"), ActivateDay()):
            await application.handle(trading_day.DECIDER, (day,), command, actor=actor, correlation_id=f"all-{day}")
        clock.advance(DAY_NS)
    digest = RollingDigest(ENV)
    async for batch in journal.replay():
        for message in batch:
            digest.add(message)
            if message.position % 5 == 0:
                path = directory / "archive" / anchor_key(ENV, digest.position)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode_anchor(digest.anchor(T0)))


async def on_server(directory: Path) -> None:
    server = await start_nats(directory / "nats-journal", sync_always=True)
    try:
        journal = await NatsJournal.open(server.url, ENV, ensure=True)
        await fill(journal, directory)
        await journal.close()
    finally:
        await server.stop()


async def in_file(directory: Path) -> None:
    journal = await SqliteJournal.open(directory / "journal.sqlite", ENV)
    await fill(journal, directory)
    await journal.close()


def use_sqlite(workspace: Path) -> None:
    document = workspace / "exchanges" / "environments" / f"{ENV}.yaml"
    document.write_text(document.read_text() + "\njournal:\n  backend: sqlite\n")


@pytest.fixture(params=["nats", "sqlite"])
def stopped(request: pytest.FixtureRequest, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that ran before: its journal and anchors are there, nothing runs."""
    monkeypatch.setenv("SSMD_ENV", ENV)
    directory = workspace / ".ssmd" / ENV
    directory.mkdir(parents=True)
    if request.param == "sqlite":
        use_sqlite(workspace)
    asyncio.run(on_server(directory) if request.param == "nats" else in_file(directory))
    return directory


def shown(ssmd: Ssmd, *arguments: str) -> list[dict[str, Any]]:
    called = ssmd("journal", "show", "-o", "json", *arguments)
    assert (called.status, called.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(called.out)
    return found


def damage(directory: Path) -> None:
    """Turn one bit of the event at position 17 as it lies on the disk."""
    if (directory / "journal.sqlite").exists():
        with closing(sqlite3.connect(directory / "journal.sqlite", isolation_level=None)) as database:
            (state,) = database.execute("SELECT state FROM stored_events WHERE rowid=17").fetchone()
            changed = state.replace(b"workflow:day", b"workflow:dax")
            assert changed != state
            database.execute("UPDATE stored_events SET state=? WHERE rowid=17", (changed,))
        return
    (block,) = (directory / "nats-journal" / "jetstream").rglob("*.blk")
    data = bytearray(block.read_bytes())
    at = data.index(DAYS[8].encode(), data.index(DAYS[8].encode()) + 20)
    data[at] ^= 1
    block.write_bytes(bytes(data))
    for index in block.parent.glob("*.db"):
        index.unlink()


def test_filters_by_aggregate_id_type_actor_and_time(ssmd: Ssmd, stopped: Path) -> None:
    everything = shown(ssmd)
    assert [one["position"] for one in everything] == list(range(1, 1 + len(everything)))
    count = len(everything) // len(DAYS)
    assert [one["envelope"]["aggregate_id"] for one in everything] == [day for day in DAYS for _ in range(count)]
    assert shown(ssmd, "--aggregate", f"trading-day/{DAYS[3]}") == everything[3 * count : 4 * count]
    assert shown(ssmd, "--actor", "cli:") == [one for one in everything if one["envelope"]["actor"] == "cli:anna"]
    event = everything[5]
    assert event in shown(ssmd, "--id", event["envelope"]["id"])
    assert shown(ssmd, "--id", f"all-{DAYS[2]}") == everything[2 * count : 3 * count]
    assert shown(ssmd, "--id", DAYS[2]) == everything[2 * count : 3 * count]
    assert shown(ssmd, "--since", "2026-05-16", "--until", "2026-05-18T12:00:00Z") == everything[2 * count : 4 * count]
    assert shown(ssmd, "--since", "2026-05-22T14:00:00+02:00", "-n", "1") == everything[-1:]
    kind = everything[0]["envelope"]["type"]
    assert shown(ssmd, "--type", kind) == [one for one in everything if one["envelope"]["type"] == kind]
    wrong = ssmd("journal", "show", "--since", "yesterday")
    assert wrong.status == 2
    assert "is no time" in wrong.err


def test_counts(ssmd: Ssmd, stopped: Path) -> None:
    events = shown(ssmd)
    called = ssmd("journal", "stats", "-o", "json")
    found = json.loads(called.out)
    assert (called.status, found["head"], found["events"], found["histories"]) == (0, len(events), len(events), len(DAYS))
    assert found["aggregates"] == {"trading-day": len(events)}
    assert sum(found["types"].values()) == sum(found["actors"].values()) == len(events)
    assert (found["first_ts_ns"], found["last_ts_ns"]) == (T0, T0 + 9 * DAY_NS)
    assert "trading-day" in ssmd("journal", "stats").out


def test_a_sound_journal_verifies_and_a_turned_bit_is_found(ssmd: Ssmd, stopped: Path) -> None:
    sound = ssmd("journal", "verify")
    assert (sound.status, sound.err) == (0, "")
    assert sound.out.startswith("nothing wrong in ")
    damage(stopped)
    called = ssmd("journal", "verify", "-o", "json")
    assert called.status == 1, called
    findings = json.loads(called.out)["findings"]
    assert findings
    first = findings[0]
    assert 16 <= first["position"] <= 17
    assert first["problem"] in {"changed", "missing", "truncated"}
    assert ssmd("journal", "verify").status == 1


def test_a_journal_cut_off_below_an_anchor_is_found(ssmd: Ssmd, stopped: Path) -> None:
    if (stopped / "journal.sqlite").exists():
        with closing(sqlite3.connect(stopped / "journal.sqlite", isolation_level=None)) as database:
            database.execute("DELETE FROM stored_events WHERE rowid>13")
    else:
        shutil.rmtree(stopped / "nats-journal" / "jetstream")
        (stopped / "nats-journal" / "jetstream").mkdir()
        asyncio.run(_restarted_empty(stopped))
    called = ssmd("journal", "verify", "-o", "json")
    assert called.status == 1
    findings = json.loads(called.out)["findings"]
    assert [one["problem"] for one in findings] == ["truncated"]
    assert "to 20 are lost" in findings[0]["reason"]


async def _restarted_empty(directory: Path) -> None:
    server = await start_nats(directory / "nats-journal", sync_always=True)
    journal = await NatsJournal.open(server.url, ENV, ensure=True)
    await journal.close()
    await server.stop()


def test_no_journal_is_no_answer(ssmd: Ssmd, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_ENV", ENV)
    called = ssmd("journal", "verify")
    assert called.status == 2
    assert "has no journal yet" in called.err


def test_a_copy_into_an_empty_place_is_the_same_journal(
    ssmd: Ssmd, stopped: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ssmd("journal", "show", "-o", "json").out
    assert ssmd("journal", "export", "copy.jsonl").status == 0
    assert ssmd("journal", "export", "copy.jsonl").status == 1
    exported = Path("copy.jsonl").read_bytes()
    shutil.rmtree(stopped / "nats-journal", ignore_errors=True)
    for file in stopped.glob("journal.sqlite*"):
        file.unlink()
    called = ssmd("journal", "import", "copy.jsonl")
    assert called.status == 0, called.err
    assert "messages written" in called.err
    assert ssmd("journal", "show", "-o", "json").out == before
    assert ssmd("journal", "verify").status == 0
    assert ssmd("journal", "import", "copy.jsonl").err.startswith("0 of ")
    assert ssmd("journal", "export", "again.jsonl").status == 0
    assert Path("again.jsonl").read_bytes() == exported
    Path("torn.jsonl").write_bytes(exported[:-20])
    torn = ssmd("journal", "import", "torn.jsonl")
    assert torn.status == 2
    assert "line" in torn.err
