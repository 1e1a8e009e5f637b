"""Metrics of one component, and the small server that shows them: /metrics and /healthz.

Names are `ssmd_{component}_{what}_{unit}`, the unit last and in base units (seconds, bytes); a counter gets `_total`
from the library. Every component has a registry of its own; nothing is registered by importing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

from ssmd.errors import Misconfigured
from ssmd.telemetry.component_metrics import EVERYWHERE, HealthNow, Row, row_of

_NAME = re.compile(r"ssmd(_[a-z][a-z0-9]*){2,}")
_REQUEST_BYTES_MAX = 8192
_REQUEST_S_MAX = 5.0


class Metrics:
    """What one component counts and gauges. A name registered twice is a ValueError."""

    def __init__(self, component: str) -> None:
        self._component = component.replace("-", "_")
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

    def _name(self, what: str, unit: str) -> str:
        name = "_".join(part for part in ("ssmd", self._component, what, unit) if part)
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a metric name: {name!r}")
        return name

    def counter(self, what: str, help_text: str, *, unit: str = "", labels: Sequence[str] = ()) -> Counter:
        """A number that only grows: ("frames_received", ...) -> ssmd_connector_frames_received_total."""
        return Counter(self._name(what, unit), help_text, labels, registry=self.registry)

    def gauge(self, what: str, help_text: str, *, unit: str = "", labels: Sequence[str] = ()) -> Gauge:
        """A number that goes both ways: ("publish_lag", ..., unit="seconds")."""
        return Gauge(self._name(what, unit), help_text, labels, registry=self.registry)

    def histogram(
        self, what: str, help_text: str, *, buckets: Sequence[float], unit: str = "seconds", labels: Sequence[str] = ()
    ) -> Histogram:
        """A distribution; `buckets` are upper bounds, inclusive, in the unit."""
        return Histogram(self._name(what, unit), help_text, labels, buckets=buckets, registry=self.registry)

    def exposition(self) -> bytes:
        """All values in Prometheus's text format."""
        return generate_latest(self.registry)


class Verdict(NamedTuple):
    """What /healthz answers: 200 when `ok`, else 503 with the reason."""

    ok: bool
    reason: str = ""


class MonitorServer:
    """Serves /metrics and /healthz until closed. Made by `serve_metrics`."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def port(self) -> int:
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """Stop listening; requests under way have their own deadline. Safe to call twice."""
        self._server.close()
        await self._server.wait_closed()


async def serve_metrics(
    metrics: Metrics, health: Callable[[], Verdict], *, host: str = "127.0.0.1", port: int = 0
) -> MonitorServer:
    """Listen on `port` (0 = any free one). `health` is asked at each request, must be quick and must not raise.

    Raises:
        Misconfigured: the port is taken or not ours to use.
    """

    def answer(request_line: str) -> tuple[HTTPStatus, str, bytes]:
        method, _, rest = request_line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if path not in {"/metrics", "/healthz"}:
            return HTTPStatus.NOT_FOUND, "text/plain", b"/metrics or /healthz\n"
        if method not in {"GET", "HEAD"}:
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"GET only\n"
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, metrics.exposition()
        verdict = health()
        status = HTTPStatus.OK if verdict.ok else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "application/json", msgspec.json.encode({"ok": verdict.ok, "reason": verdict.reason}) + b"\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S_MAX):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status, kind, body = answer(head.partition("\r\n")[0])
                headers = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n{headers}".encode())
                writer.write(b"" if head.startswith("HEAD ") else body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Whoever asked went away, was too slow or talks something else.
            writer.transport.abort()
        finally:
            writer.close()

    try:
        return MonitorServer(await asyncio.start_server(serve, host, port, limit=_REQUEST_BYTES_MAX))
    except OSError as error:
        raise Misconfigured(
            f"cannot serve metrics on {host}:{port}: {error.strerror}", mend="choose another port (0 = any free one)"
        ) from error


def families(now: HealthNow) -> Iterator[Metric]:
    """All metrics of a component that can be told now."""
    is_standby = bool(now.stats.get("stands_by_for") or now.stats.get("standing_by"))
    for row, value in zip(EVERYWHERE, (1, int(now.ok), int(is_standby)), strict=True):
        family = GaugeMetricFamily(row.metric("component"), row.help, labels=["env", "component", "member"])
        family.add_metric([now.env, now.component, now.member], value)
        yield family
    found: dict[Row, list[tuple[str, float]]] = {}
    for stat, told in now.stats.items():
        placed = row_of(now.component, stat)
        if placed is not None and isinstance(told, int):
            row, label = placed
            found.setdefault(row, []).append((label, told if row.per == 1 else told / row.per))
    for row, values in found.items():
        labels = ["env", "component", "member", *([row.label] if row.label else [])]
        make = CounterMetricFamily if row.type == "counter" else GaugeMetricFamily
        told_by = make(row.metric(now.component), row.help, labels=labels)
        for label, number in values:
            told_by.add_metric([now.env, now.component, now.member, *([label] if row.label else [])], number)
        yield told_by


class HealthCollector:
    """Asks at each scrape; for a registry of prometheus_client (`registry.register`)."""

    def __init__(self, ask: Callable[[], HealthNow]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        """The library calls it."""
        return families(self._ask())

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask a component that is not there yet."""
        return ()
