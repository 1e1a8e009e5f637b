"""The request at hand: within a process, over a control subject, and what others may not smuggle in."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import structlog

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.key import DECIDER, DefineKey
from ssmd.identifiers import system_random
from ssmd.services.folding import folding
from ssmd.streams.control import ControlClient, ControlServer
from ssmd.streams.journal import PoisonEvent, RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.telemetry import request
from ssmd.telemetry.logging import configure_logging

REQUEST = "0199a1b2-0000-7000-8000-000000000001"


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logging("test", ManualClock(), stream)
    yield stream
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def application(journal: MemoryJournal) -> Application:
    return Application(journal, CATALOGUE, ManualClock(), system_random)


async def define(app: Application, name: str, **ids: str) -> None:
    await app.handle(DECIDER, (name,), DefineKey("opaque", ("token",)), actor="cli:anna", **ids)


async def recorded(journal: MemoryJournal) -> list[RecordedEvent]:
    return [one async for batch in journal.replay() for one in batch if isinstance(one, RecordedEvent)]


def test_a_request_ends_with_its_block_and_another_may_lie_within() -> None:
    assert request.current() == ""
    with request.begun("a", causation_id="x"):
        with request.begun("b"):
            assert request.current() == "b"
        with request.begun(""):
            assert request.current() == "a"
        assert request.headers() == {"Ssmd-Request": "a"}
    assert (request.current(), request.headers()) == ("", {})


@pytest.mark.parametrize("given", ["", "a b", "a\nb", "é", "x" * 201, '"}'])
def test_what_cannot_be_an_id_is_none(given: str) -> None:
    assert request.of_headers({request.HEADER: given}) == ""
    assert request.of_headers(None) == ""
    workflow = "kalshi-prod/day-start/2026-05-14"
    assert request.of_headers({request.HEADER: workflow}) == workflow


async def test_an_event_belongs_to_the_request_at_hand_unless_another_is_named(logs: io.StringIO) -> None:
    journal = MemoryJournal("dev")
    app = application(journal)
    with request.begun(REQUEST):
        await asyncio.create_task(define(app, "first"))
        await define(app, "second", correlation_id="c-2", causation_id="cause")
    await define(app, "third")
    events = [one.envelope for one in await recorded(journal)]
    assert [(one.correlation_id, one.causation_id) for one in events] == [
        (REQUEST, ""),
        ("c-2", "cause"),
        (events[2].id, ""),
    ]
    assert lines(logs) == [
        {
            "ts": "1970-01-01T00:00:00.000000000Z",
            "level": "info",
            "component": "test",
            "event": "appended",
            "aggregate": f"key/{one.aggregate_id}",
            "types": ["key.defined.v1"],
            "events": 1,
            "event_ids": [one.id],
            "position": position,
            "actor": "cli:anna",
            "correlation_id": one.correlation_id,
            "causation_id": one.causation_id,
        }
        for position, one in enumerate(events, 1)
    ]


async def test_a_commit_of_one_request_is_told_as_its_own_and_one_of_several_names_them(logs: io.StringIO) -> None:
    journal = MemoryJournal("dev")
    app = application(journal)
    await define(app, "first", correlation_id="c-1", causation_id="x")
    await define(app, "second", correlation_id="c-2", causation_id="x")
    events = await recorded(journal)
    logs.truncate(0)
    logs.seek(0)
    with folding([events[0]]):
        pass
    with folding([*events, PoisonEvent(3, "dev.journal.x", b"?", "no event")]):
        pass
    with pytest.raises(ValueError, match="not committed"), folding([events[1]]):
        raise ValueError("not committed")
    ids = [one.envelope.id for one in events]
    shown = [{name: value for name, value in line.items() if name not in {"ts", "level", "component"}} for line in lines(logs)]
    assert shown == [
        {
            "event": "folded",
            "events": 1,
            "first": 1,
            "position": 1,
            "event_ids": ids[:1],
            "correlation_id": "c-1",
            "causation_id": "x",
        },
        {
            "event": "folded",
            "events": 3,
            "first": 1,
            "position": 3,
            "event_ids": ids,
            "correlation_ids": ["c-1", "c-2"],
            "causation_id": "x",
        },
    ]


async def test_a_request_goes_along_with_what_is_asked_over_control_subjects(
    transport_url: str, fresh_env: str, logs: io.StringIO
) -> None:
    seen: list[str] = []

    async def flush() -> Mapping[str, Any]:
        seen.append(request.current())
        return {"ok": True, "reason": ""}

    verbs = {"flush": flush, "health": flush}
    server = ControlServer(transport_url, fresh_env, "raw-archiver", "main", verbs, version="1.0.0", random=system_random)
    serving = asyncio.create_task(server.run())
    client = await ControlClient.open(transport_url, fresh_env)
    try:
        while not await client.roll_call(0.05, 1):
            pass
        with request.begun(REQUEST):
            assert (await client.request("raw-archiver", "main", "flush"))["ok"]
        assert (await client.request("raw-archiver", "main", "flush"))["ok"]
        await client.request("raw-archiver", "main", "health")
    finally:
        await client.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert seen[:2] == [REQUEST, ""]
    told = [(line["verb"], line.get("correlation_id")) for line in lines(logs) if line["event"] == "asked"]
    assert told == [("flush", REQUEST), ("flush", None)]
