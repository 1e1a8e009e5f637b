"""Where spans begin in components: requests, activities and batches of blocks; none for a frame or a record."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.testing import ActivityEnvironment
from tests.gateway.conftest import Gateway, gateway  # noqa: F401 - fixture
from tests.services.connector.test_connector import bench, running, until

from ssmd.clock import ManualClock
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.seeded_capture import write_seeded_capture
from ssmd.telemetry import request, tracing
from ssmd.telemetry.logging import configure_logging
from ssmd.telemetry.otlp import OpenTelemetry, trace_id_of
from ssmd.workflows.activities import Activities
from ssmd.workflows.orders import SyncOrder
from ssmd.workflows.work import Work

FRAMES = 600


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    end = tracing.use(OpenTelemetry({"service.name": "ssmd-test"}, SimpleSpanProcessor(exporter)))
    yield exporter
    end()


@pytest.fixture
def logs() -> io.StringIO:
    stream = io.StringIO()
    configure_logging("test", ManualClock(), stream)
    return stream


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def attribute(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    trace_id: int = span.context.trace_id
    return trace_id


async def test_a_connectors_spans_are_batches_of_blocks_never_frames(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    capture = tmp_path / "capture.jsonl"
    frames = write_seeded_capture(capture, seed=3, frames=FRAMES)
    async with bench(tmp_path, SimulatorConfig(capture=str(capture), speed="max", require_auth=False)) as system:
        async with running(system.connector()) as task:
            await until(lambda: system.simulator.done and sum(map(len, system.frames())) == frames, "all is published", task)
        blocks = len(system.transport.stored("raw"))
        appends = [one async for batch in system.journal.replay() for one in batch]
    published = named(spans, "publish blocks")
    assert sum(attribute(span, "ssmd.blocks") for span in published) == blocks
    assert {attribute(span, "ssmd.connection") for span in published} == {"main"}
    assert sum(attribute(span, "ssmd.events") for span in named(spans, "journal append")) == len(appends)
    assert {span.name for span in spans.get_finished_spans()} <= {"publish blocks", "commands", "journal append"}
    assert len(spans.get_finished_spans()) < frames / 2


async def test_a_request_of_the_gateway_has_one_id_in_answer_log_and_trace(
    gateway: Gateway,  # noqa: F811
    spans: InMemorySpanExporter,
    logs: io.StringIO,
) -> None:
    async with gateway() as one, httpx.AsyncClient(base_url=one.url) as http:
        mine = await http.get("/healthz", headers={"X-Request-Id": "desk-7"})
        made = (await http.get("/v1/markets?secret=hunter2")).headers["x-request-id"]
        odd = (await http.get("/healthz", headers={"X-Request-Id": 'a"b c'})).headers["x-request-id"]
    assert mine.headers["x-request-id"] == "desk-7"
    assert odd != 'a"b c'
    told = [json.loads(line) for line in logs.getvalue().splitlines()]
    assert [(line["path"], line["correlation_id"]) for line in told if line["event"] == "request"] == [
        ("/healthz", "desk-7"),
        ("/v1/markets", made),
        ("/healthz", odd),
    ]
    found = named(spans, "request GET")
    assert [trace_of(span) for span in found] == [trace_id_of(one) for one in ("desk-7", made, odd)]
    assert f"{trace_of(found[1]):032x}" == made.replace("-", "")
    assert "hunter2" not in "".join(span.to_json() for span in found) + logs.getvalue()


async def test_what_an_activity_does_belongs_to_its_workflow(spans: InMemorySpanExporter, logs: io.StringIO) -> None:
    class Syncing:
        async def sync(self, env: str, *, is_full: bool) -> str:
            return f"{env} {is_full} for {request.current()}"

    environment = ActivityEnvironment()
    workflow = environment.info.workflow_id
    assert workflow
    answer = await environment.run(Activities(cast("Work", Syncing())).sync, SyncOrder("kalshi-dev", is_full=True))
    assert answer == f"kalshi-dev True for {workflow}"
    (span,) = spans.get_finished_spans()
    kind = environment.info.activity_type
    assert (span.name, attribute(span, "ssmd.correlation_id")) == (f"activity {kind}", workflow)
    assert trace_of(span) == trace_id_of(workflow)
    (line,) = [json.loads(line) for line in logs.getvalue().splitlines()]
    assert (line["event"], line["activity"], line["correlation_id"]) == ("activity", kind, workflow)
    assert request.current() == ""
