"""Traces: off by default and then not even imported; on, one trace a request, and no secret in any span."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.key import DECIDER, DefineKey, RecordAccess
from ssmd.errors import Misconfigured, Rejected
from ssmd.identifiers import system_random
from ssmd.services.folding import folding
from ssmd.streams.journal import RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.telemetry import request, tracing
from ssmd.telemetry.otlp import OpenTelemetry, trace_id_of

REQUEST = "0199a1b2-0000-7000-8000-000000000001"
COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    end = tracing.use(OpenTelemetry({"service.name": "ssmd-test"}, SimpleSpanProcessor(exporter)))
    yield exporter
    end()


def found(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    trace_id: int = span.context.trace_id
    return trace_id


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        (COLLECTOR, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({**COLLECTOR, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**COLLECTOR, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**COLLECTOR, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_the_standard_variables_say_whether(variables: dict[str, str], expected: bool) -> None:
    assert tracing.wanted(variables) == expected


@pytest.mark.parametrize(
    ("variables", "message", "mend"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER is 'zipkin'; expected otlp or none",
            "OTEL_TRACES_EXPORTER=otlp",
        ),
        (
            {**COLLECTOR, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; expected http/protobuf",
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        ),
    ],
)
def test_what_is_not_there_is_refused_at_the_start(variables: dict[str, str], message: str, mend: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        tracing.wanted(variables)
    assert (refused.value.message, refused.value.mend) == (message, mend)


def test_without_the_extra_whoever_asks_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ssmd.telemetry.otlp", raising=False)
    monkeypatch.delattr("ssmd.telemetry.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(Misconfigured, match="OpenTelemetry is not installed") as refused:
        tracing.begin("gateway", "main", "dev", COLLECTOR)
    assert refused.value.mend == "pip install 'ssmd[otel]', or OTEL_TRACES_EXPORTER=none"
    tracing.begin("gateway", "main", "dev", {})()


def test_off_it_is_not_imported_and_every_span_is_the_same_nothing() -> None:
    script = (
        "import sys\n"
        "import ssmd.wiring.process, ssmd.wiring.components, ssmd.cli.app, ssmd.services.connector.service\n"
        "from ssmd.telemetry import tracing\n"
        "tracing.begin('cli', 'main', '', {})()\n"
        "assert tracing.span('a') is tracing.span('b', x=1)\n"
        "assert tracing.headers() == {}\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


async def test_one_trace_leads_from_the_request_over_command_and_append_to_the_views(spans: InMemorySpanExporter) -> None:
    journal = MemoryJournal("dev")
    app = Application(journal, CATALOGUE, ManualClock(), system_random)
    with request.begun(REQUEST), tracing.span("ssmd key"):
        carried = request.headers()
        await app.handle(DECIDER, ("kalshi",), DefineKey("opaque", ("token",)), actor="cli:anna")
    # Another process, which was asked.
    with request.begun(request.of_headers(carried)), tracing.span("control flush", carried):
        pass
    async for batch in journal.replay():
        with folding(batch):
            assert isinstance(batch[0], RecordedEvent)
    whole = found(spans)
    assert {name: trace_of(span) for name, span in whole.items()} == dict.fromkeys(
        ["journal append", "command DefineKey", "ssmd key", "control flush", "projection batch"],
        int(REQUEST.replace("-", ""), 16),
    )
    parents = {name: None if span.parent is None else span.parent.span_id for name, span in whole.items()}
    ids = {name: span.context.span_id for name, span in whole.items() if span.context is not None}
    assert parents == {
        "ssmd key": None,
        "command DefineKey": ids["ssmd key"],
        "journal append": ids["command DefineKey"],
        "control flush": ids["ssmd key"],
        "projection batch": None,
    }
    assert dict(whole["command DefineKey"].attributes or {}) == {
        "ssmd.aggregate": "key",
        "ssmd.id": "kalshi",
        "ssmd.actor": "cli:anna",
        "ssmd.correlation_id": REQUEST,
    }
    assert dict(whole["projection batch"].attributes or {}) == {
        "ssmd.first": 1,
        "ssmd.last": 1,
        "ssmd.events": 1,
        "ssmd.correlation_ids": (REQUEST,),
        "ssmd.correlation_id": REQUEST,
    }


def test_a_request_that_is_no_uuid_has_a_trace_of_its_own_too() -> None:
    workflow = "kalshi-prod/day-start/2026-05-14"
    assert trace_id_of(workflow) == trace_id_of(workflow) != trace_id_of(f"{workflow}x")
    assert 0 < trace_id_of(workflow) < 1 << 128
    assert trace_id_of("00000000-0000-0000-0000-000000000000") != 0


async def test_an_error_is_told_by_its_type_and_no_secret_passes(spans: InMemorySpanExporter) -> None:
    app = Application(MemoryJournal("dev"), CATALOGUE, ManualClock(), system_random)
    with pytest.raises(Rejected):
        await app.handle(DECIDER, ("kalshi",), RecordAccess("hunter2", "hunter2", ()), actor="nats://anna:hunter2@host")
    with pytest.raises(ValueError, match="hunter2"), tracing.span("ask", url="redis://u:hunter2@h/0", api_key="hunter2"):
        raise ValueError("hunter2")
    whole = found(spans)
    assert "hunter2" not in "".join(span.to_json() for span in whole.values())
    for name, error in (("command RecordAccess", "Rejected"), ("ask", "ValueError")):
        span = whole[name]
        assert not span.status.is_ok
        assert (span.status.description, span.events) == (None, ())
        assert (span.attributes or {})["error.type"] == error


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Takes what is sent to it by OTLP."""
    taken: list[bytes] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Take)
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    serving.join()
    server.server_close()


def test_spans_are_sent_by_otlp_to_where_the_variables_say(
    collector: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, taken = collector
    # The SDK reads the process's own variables.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    end = tracing.begin("gateway", "main", "kalshi-dev", {"OTEL_EXPORTER_OTLP_ENDPOINT": url})
    with request.begun(REQUEST), tracing.span("request GET", path="/v1/markets"):
        pass
    end()
    (sent,) = [ExportTraceServiceRequest.FromString(body).resource_spans[0] for body in taken]
    resource = {one.key: one.value.string_value for one in sent.resource.attributes}
    assert resource["service.name"] == "ssmd-gateway"
    assert (resource["service.instance.id"], resource["deployment.environment.name"]) == ("main", "kalshi-dev")
    (span,) = sent.scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("request GET", REQUEST.replace("-", ""))
    assert tracing.headers() == {}


def test_a_setting_that_cannot_be_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999")
    with pytest.raises(Misconfigured) as refused:
        tracing.begin("cli", "main", "kalshi-dev", COLLECTOR)
    said = "OTEL_* variables cannot be: max_export_batch_size must be less than or equal to max_queue_size."
    assert (refused.value.message, refused.value.mend) == (said, "env | grep OTEL_")


def test_a_command_without_logs_is_silent_about_a_collector_that_is_away() -> None:
    program = (
        "import os; from ssmd.telemetry import otlp, tracing; otlp.CLOSE_S = 0.2\n"
        "end = tracing.begin('cli', 'main', 'dev', os.environ)\n"
        "with tracing.span('one'): pass\n"
        "end(); print('done')"
    )
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_MAX_QUEUE_SIZE": "many"}
    done = subprocess.run([sys.executable, "-c", program], env=away, capture_output=True, text=True, check=True, timeout=30)
    assert (done.stdout, done.stderr) == ("done\n", "")
