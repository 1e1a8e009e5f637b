"""`ssmd projection` on an environment whose cache runs elsewhere, and what is said of a journal that was changed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.trading_day import ActivateDay, StartDay
from ssmd.identifiers import system_random
from ssmd.projections.journal_guard import Latest, encode_latest
from ssmd.projections.store_redis import RedisRowStore
from ssmd.services.embedded_servers import start_nats
from ssmd.streams.journal_anchor import Anchor
from ssmd.streams.journal_nats import NatsJournal

Ssmd = Any
ENV = "kalshi-dev"
DATE = "2026-05-14"
T0 = 1_778_760_000_000_000_000


async def write_journal(directory: Path) -> None:
    server = await start_nats(directory, sync_always=True)
    try:
        journal = await NatsJournal.open(server.url, ENV, ensure=True)
        application = Application(journal, CATALOGUE, ManualClock(T0), system_random)
        for command in (StartDay(DATE, "test"), ActivateDay()):
            await application.handle(trading_day.DECIDER, (DATE,), command, actor="cli:anna")
        await journal.close()
    finally:
        await server.stop()


async def clear(cache_url: str) -> None:
    """The cache outlives a test, the journal does not."""
    store = RedisRowStore(cache_url, ENV, random=system_random)
    await store.clear()
    await store.close()


@pytest.fixture
def environment(workspace: Path, cache_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSMD_ENV", ENV)
    path = workspace / "exchanges/environments/kalshi-dev.yaml"
    path.write_text(path.read_text() + f"cache: {{backend: redis, url: '{cache_url}'}}\n")
    asyncio.run(clear(cache_url))
    asyncio.run(write_journal(workspace / ".ssmd" / ENV / "nats-journal"))
    return workspace


def test_views_are_built_checked_and_rolled_back_and_the_journal_knows(ssmd: Ssmd, environment: Path) -> None:
    del environment
    assert [one["name"] for one in json.loads(ssmd("projection", "list", "-o", "json").out)][:3] == ["days", "captures", "gaps"]
    assert ssmd("projection", "rebuild").err == ("error: give the name of one view, or --all\n  try: ssmd projection list\n")
    absent = ssmd("projection", "status", "-o", "json")
    assert (absent.status, {one["state"] for one in json.loads(absent.out)["projections"]}) == (1, {"absent"})
    built = ssmd("projection", "rebuild", "days", "-o", "json")
    assert (built.status, built.err) == (0, "days: swapped at position 3, 3 rows\n")
    again = json.loads(ssmd("projection", "rebuild", "days", "-o", "json").out)[0]
    assert again["before"]["generation"] != again["after"]["generation"]
    checked = ssmd("projection", "verify", "days", "-o", "json")
    assert (checked.status, json.loads(checked.out)[0]["is_good"]) == (0, True)
    rolled = ssmd("projection", "rollback", "days", "--reason", "a test", "-o", "json")
    assert json.loads(rolled.out)["generation"] == again["before"]["generation"]
    history = json.loads(ssmd("journal", "show", "--aggregate", "projection", "-o", "json").out)
    assert [event["envelope"]["type"] for event in history] == [
        "projection.rebuilt.v1",
        "projection.swapped.v1",
        "projection.rebuilt.v1",
        "projection.swapped.v1",
        "projection.rolled-back.v1",
    ]
    assert history[-1]["envelope"]["data"]["reason"] == "a test"
    state = next(
        one for one in json.loads(ssmd("projection", "status", "-o", "json").out)["projections"] if one["name"] == "days"
    )
    assert (state["state"], state["previous"]) == ("behind", again["after"]["generation"])


@pytest.mark.parametrize("is_built", [False, True])
def test_every_view_answers_now_and_as_of_then(ssmd: Ssmd, environment: Path, is_built: bool) -> None:
    del environment
    names = [one["name"] for one in json.loads(ssmd("projection", "list", "-o", "json").out)]
    if is_built:
        assert ssmd("projection", "rebuild", "--all").status == 0
    for name in names if is_built else names[:2]:
        shown = ssmd("projection", "show", name, "-o", "json")
        # Only the day has happened; every other view has an answer, too: that there is nothing.
        assert shown.out, shown.err
        rows = json.loads(shown.out)["rows"]
        assert (shown.status, sorted(key.partition("/")[0] for key in rows)) == (
            (0, ["day", "line", "line"]) if name == "days" else (1, [])
        )
    now = json.loads(ssmd("projection", "show", "days", "day/", "-o", "json").out)
    then = json.loads(ssmd("projection", "show", "days", "day/", "--as-of", "1", "-o", "json").out)
    assert [now["rows"][f"day/{DATE}"]["status"], then["rows"][f"day/{DATE}"]["status"]] == ["active", "starting"]
    assert then["position"] == 1
    assert "1 more rows are not shown" in ssmd("projection", "show", "days", "line/", "--limit", "1").err
    assert ssmd("projection", "show", "nothing").err.startswith('error: there is no view "nothing"')


def test_a_question_to_a_journal_off_its_anchor_is_refused_with_the_range(ssmd: Ssmd, environment: Path) -> None:
    latest = Latest(Anchor(0, "00" * 32), Anchor(2, "ab" * 32))
    path = environment / ".ssmd" / ENV / "archive" / "anchors-latest" / f"{ENV}.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(encode_latest(latest))
    for arguments in (("day", "status", "--date", DATE), ("data", "gaps"), ("day", "list", "--as-of", "1")):
        refused = ssmd(*arguments)
        assert (refused.status, refused.out) == (2, "")
        assert "off its anchor at 2: events 1..2 are not those that were folded" in refused.err
    path.write_bytes(encode_latest(Latest(Anchor(0, "00" * 32), Anchor(7, "ab" * 32))))
    assert "ends at position 2, an anchor was taken at 7: events 3..7 are lost" in ssmd("day", "list").err
