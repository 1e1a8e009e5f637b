"""`ssmd dlq` on real servers: frames, events and messages are listed, tried with today's code, and given up for a reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ssmd.application.handler import Application
from ssmd.cli.app import main
from ssmd.clock import ManualClock
from ssmd.domain import dead_letter, trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import Decider
from ssmd.identifiers import system_random
from ssmd.projections.folder import Poison
from ssmd.registry.bootstrap import write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services.connector.frame_letter import recording, unmapped
from ssmd.services.connector.quarantine import Quarantine
from ssmd.services.projection_record import ProjectionRecord
from ssmd.settings import Workspace
from ssmd.streams import subjects
from ssmd.streams.journal import RecordedEvent
from ssmd.streams.transport import Outgoing
from ssmd.wiring.backends import open_journal, open_transport
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment
from ssmd.wiring.system import apply_streams

NOON = 1_778_760_000_000_000_000
SESSION = NOON - 1_000
ENVIRONMENT = """
keys:
  kalshi: {{type: kalshi-api-key, fields: [api_key, private_key], source: generated}}
name: {name}
feed: kalshi
schema: market:1
capture: {{endpoint: simulator, key: $key:kalshi}}
transport: {{url: {transport}, max_bytes: 67108864}}
journal: {{url: {journal}}}
cache: {{backend: memory}}
"""
BOOK = (
    b'{"type":"orderbook_snapshot","sid":1,"seq":7,"msg":{"market_ticker":"KXBTC15M-26MAY141200-00","market_id":"m",'
    b'"yes_dollars_fp":[["0.1000","5.00"]],"no_dollars_fp":[["0.2000","7.00"]]}}'
)
UNKNOWN = b'{"type":"rumour","sid":1,"msg":{"market_ticker":"A"}}'


class Renamed(msgspec.Struct, frozen=True, tag_field="type", tag="trading-day.dreamt.v9"):
    """An event of a version to come."""


DREAM: Decider[Any, Any, None] = Decider(
    trading_day.AGGREGATE, ("date",), None, lambda _s, _c: (Renamed(),), lambda s, _e: s, (Renamed,)
)


@pytest.fixture
def environment(tmp_path: Path, fresh_env: str, transport_url: str, journal_url: str) -> ResolvedEnvironment:
    text = ENVIRONMENT.format(name=fresh_env, transport=transport_url, journal=journal_url)
    write_registry(tmp_path, {fresh_env: text}, definition_sha256())
    found = resolve_environment(Workspace(tmp_path), fresh_env, "2026-05-14")
    asyncio.run(apply_streams(found, {}))
    return found


@pytest.fixture
def troubled(environment: ResolvedEnvironment) -> ResolvedEnvironment:
    """As `_trouble` leaves it."""
    asyncio.run(_trouble(environment))
    return environment


async def _trouble(environment: ResolvedEnvironment) -> None:
    """Make an environment with two frames in quarantine, two events passed over, and a message no archiver can read."""
    transport = await open_transport(environment, {})
    journal = await open_journal(environment, {})
    application = Application(journal, CATALOGUE, ManualClock(NOON), system_random)
    quarantine = Quarantine(transport, application, environment.name, environment.directory, system_random, None)
    environment.directory.mkdir(parents=True, exist_ok=True)
    for n, payload in ((3, BOOK), (4, UNKNOWN)):
        quarantine.offer(unmapped("kalshi", "main", (SESSION, n), NOON, "not understood", payload))
    publishing = asyncio.create_task(quarantine.run())
    async with asyncio.timeout(60):
        while quarantine.stats()["quarantined"] != 2 or quarantine.stats()["letters_waiting"]:
            await asyncio.sleep(0.01)
    publishing.cancel()
    link = await transport.publisher()
    await link.publish([Outgoing(subjects.raw(environment.name, "kalshi", "main"), b"no block", "x-1")])
    while not link.acks("raw"):
        await link.progress(10)
    await link.close()
    await application.handle(trading_day.DECIDER, ("2026-05-14",), trading_day.StartDay("2026-05-14"), actor="cli:anna")
    dreaming = Application(journal, CATALOGUE, ManualClock(NOON), system_random)
    await dreaming.handle(DREAM, ("2026-05-13",), object(), actor="cli:anna")
    good, bad = [one async for batch in journal.replay() for one in batch if isinstance(one, RecordedEvent)][-2:]
    record = ProjectionRecord(application, "projector:main")
    poison = [Poison(one.position, one.envelope.type, "trading-day/x", "not known") for one in (good, bad)]
    await record.passed_over("days", poison)
    # The dead-letter stream has let this one go.
    gone = recording(unmapped("kalshi", "main", (SESSION, 2), NOON, "an old one", b""))
    await application.handle(dead_letter.DECIDER, (f"frame-main-{SESSION}-2",), gone, actor="connector:kalshi-main")
    command = dead_letter.RecordDeadLetter("raw-archiver", "raw", 1, "kalshi/raw", "", "not a block")
    await application.handle(dead_letter.DECIDER, ("raw-feed-1",), command, actor="raw-archiver:main")
    await transport.close()
    await journal.close()


Called = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def called(troubled: ResolvedEnvironment, capsys: pytest.CaptureFixture[str]) -> Called:
    """Calls `ssmd dlq ARGUMENTS` in this process: exit status, what it answered, what it said."""

    def call(*arguments: str) -> tuple[int, Any, str]:
        capsys.readouterr()
        where = ("--workspace", str(troubled.workspace.root), "--env", troubled.name)
        status = main([*where, "dlq", *arguments, "-o", "json"])
        told = capsys.readouterr()
        return status, json.loads(told.out) if told.out else None, told.err

    return call


async def told_of(environment: ResolvedEnvironment) -> list[tuple[str, str, str]]:
    """(id, event, actor) of what the journal has of dead letters."""
    journal = await open_journal(environment, {})
    found = [
        (one.envelope.aggregate_id, one.envelope.type, one.envelope.actor)
        async for batch in journal.replay(filters=[dead_letter.AGGREGATE])
        for one in batch
        if isinstance(one, RecordedEvent)
    ]
    await journal.close()
    return found


@pytest.mark.timeout(120)
def test_letters_are_listed_tried_and_given_up(troubled: ResolvedEnvironment, called: Called) -> None:
    status, letters, _ = called("list")
    by_id = {one["letter"]["id"]: one for one in letters}
    gone, understood, unknown = (f"frame-main-{SESSION}-{n}" for n in (2, 3, 4))
    good, bad = sorted(one for one in by_id if one.startswith("days-"))
    assert status == 0
    assert {name: one["kind"] for name, one in by_id.items()} == {
        gone: "frame", understood: "frame", unknown: "frame", good: "event", bad: "event", "raw-feed-1": "segment",
    }  # fmt: skip
    assert (by_id[unknown]["text"], by_id[unknown]["letter"]["reason"]) == (UNKNOWN.decode(), "not understood")
    assert [by_id[one]["is_gone"] for one in (gone, understood, unknown)] == [True, False, False]
    before = asyncio.run(told_of(troubled))
    assert {name for name, kind, _ in before if kind == "dead-letter.recorded.v1"} == set(by_id), "the journal knows them all"

    status, dry, _ = called("replay", "--all", "--dry-run")
    assert (status, {one["id"]: one["ok"] for one in dry}) == (
        1, {gone: False, understood: True, unknown: False, good: True, bad: False, "raw-feed-1": False},
    )  # fmt: skip
    assert asyncio.run(told_of(troubled)) == before
    status, outcomes, _ = called("replay", "--all")
    assert (status, outcomes) == (1, dry)
    details = {one["id"]: one["detail"] for one in outcomes}
    assert details[understood].startswith("mapper ")
    assert "does not understand it either" in details[unknown]
    assert "ssmd data renormalize judges it from the archive" in details[gone]
    assert details[good].endswith("folds it")
    assert "cannot read it either" in details["raw-feed-1"]
    _, left, _ = called("list")
    assert sorted(one["letter"]["id"] for one in left) == sorted([gone, unknown, bad, "raw-feed-1"])

    status, _, error = called("discard", unknown, "--reason", " ")
    assert (status, "--reason says nothing" in error) == (2, True)
    status, discarded, _ = called("discard", unknown, bad, "--reason", "a rumour")
    assert (status, [one["ok"] for one in discarded]) == (0, [True, True])
    status, again, _ = called("discard", understood, "--reason", "no")
    assert (status, again[0]["detail"]) == (1, "was processed after all")
    status, refused, _ = called("replay", unknown)
    assert (status, refused[0]["detail"]) == (1, "was discarded: a rumour")
    status, shown, _ = called("show", unknown)
    assert (shown["letter"]["status"], shown["letter"]["closed_why"], shown["text"]) == (
        "discarded",
        "a rumour",
        UNKNOWN.decode(),
    )
    status, _, error = called("show", "nobody")
    assert (status, "there is no dead letter nobody" in error) == (1, True)

    news = (asyncio.run(told_of(troubled)))[len(before) :]
    assert {(name, kind) for name, kind, _ in news} == {
        (understood, "dead-letter.replayed.v1"),
        (good, "dead-letter.replayed.v1"),
        (unknown, "dead-letter.discarded.v1"),
        (bad, "dead-letter.discarded.v1"),
    }  # fmt: skip
    assert all(actor.startswith("cli:") for _, _, actor in news)
