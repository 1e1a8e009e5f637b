"""Spans through OpenTelemetry's SDK, sent by OTLP over HTTP; the SDK reads the OTEL_* variables itself.

They wait in a bounded queue and are sent by a thread of their own: a collector that is away costs spans, nothing else.
Errors are told by type, never by traceback, and attributes pass the same filter as logs: no secret gets out this way.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import uuid
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ssmd import __version__
from ssmd.errors import Misconfigured
from ssmd.telemetry import request
from ssmd.telemetry.logging import withhold
from ssmd.telemetry.tracing import Tracer, Value

CLOSE_S: Final = 3.0
"""How long the last spans may take at the end of a process."""


def trace_id_of(correlation_id: str) -> int:
    """A request's trace: its id where that is a UUID, else (a workflow's name) the beginning of its SHA-256."""
    try:
        found = uuid.UUID(correlation_id).int
    except ValueError:
        found = 0
    return found or int.from_bytes(hashlib.sha256(correlation_id.encode()).digest()[:16], "big")


class _Ids(RandomIdGenerator):
    """Gives a trace the id of the request at hand."""

    def generate_trace_id(self) -> int:
        correlation_id = request.current()
        return trace_id_of(correlation_id) if correlation_id else super().generate_trace_id()


class OpenTelemetry:
    """Implements `tracing.Tracer`; `processor` takes the spans that are over."""

    def __init__(self, resource: Mapping[str, str], processor: SpanProcessor) -> None:
        provider = TracerProvider(resource=Resource.create(dict(resource)), id_generator=_Ids(), shutdown_on_exit=False)
        provider.add_span_processor(processor)
        self._provider = provider
        self._tracer = provider.get_tracer("ssmd", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def span(
        self, name: str, parent: Mapping[str, str] | None, attributes: Mapping[str, Value]
    ) -> AbstractContextManager[None]:
        return self._span(name, parent, attributes)

    @contextmanager
    def _span(self, name: str, parent: Mapping[str, str] | None, attributes: Mapping[str, Value]) -> Generator[None]:
        correlation_id = request.current()
        shown = {f"ssmd.{key}": _shown(key, value) for key, value in attributes.items()}
        if correlation_id:
            shown["ssmd.correlation_id"] = correlation_id
        context = None if parent is None else self._propagator.extract(dict(parent))
        with self._tracer.start_as_current_span(
            name, context=context, attributes=shown, record_exception=False, set_status_on_exception=False
        ) as started:
            try:
                yield
            except BaseException as error:
                started.set_attribute("error.type", type(error).__qualname__)
                started.set_status(Status(StatusCode.ERROR))
                raise

    def headers(self) -> dict[str, str]:
        """W3C trace context of the span at hand."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def close(self) -> None:
        """Send what is left, for `CLOSE_S` at most: a collector that is away must hold up no stop."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def exporting(component: str, instance: str, env: str, variables: Mapping[str, str]) -> Tracer:
    """Sends by OTLP to where the variables say; the service is called ssmd-{component} unless they call it otherwise.

    Raises:
        Misconfigured: what they say cannot be.
    """
    # A command without logs is silent about a collector that is away, too: without this the SDK's words go to stderr.
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    resource = {"service.instance.id": instance, "service.version": __version__, "deployment.environment.name": env}
    if not variables.get("OTEL_SERVICE_NAME") and "service.name=" not in variables.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        resource["service.name"] = f"ssmd-{component}"
    try:
        return OpenTelemetry(resource, BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise Misconfigured(f"OTEL_* variables cannot be: {error}", mend="env | grep OTEL_") from error


def _shown(name: str, value: Value) -> Value:
    if isinstance(value, tuple):
        return tuple(str(withhold(name, one)) for one in value)
    return str(withhold(name, value)) if isinstance(value, str) else value
