"""What the gateway counts: shown at /metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ssmd.telemetry.metrics import Metrics

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_GAUGES: Final = {
    "clients": "WebSocket clients connected",
    "clients_resuming": "clients that are being sent what they missed",
    "lag_messages": "messages of the market stream not read yet",
    "markets": "markets held",
    "queued_messages": "messages waiting in all clients' queues",
    "records": "records of the market stream applied",
    "holes": "holes found between the tape and here",
    "malformed": "messages of the market stream that could not be read",
    "stream_seq": "position in the market stream",
    "messages_offered": "messages given to clients' queues",
    "clients_closed_slow": "clients closed because they did not keep up",
    "checkpoints": "rounds of saving the derived state",
}
_DROPPED: Final = {"messages_lost": "slow-client", "messages_conflated": "conflated"}
"""Statistic -> the reason why messages were not sent."""
_SIZES: Final = {"queued": "text waiting in all clients' queues"}


class GatewayMetrics:
    """One gateway's metrics."""

    def __init__(self) -> None:
        self._metrics = Metrics("gateway")
        self._answers = self._metrics.counter("requests", "REST requests answered", labels=["status"])
        self._took = self._metrics.histogram("request", "time to answer a REST request", buckets=_BOUNDS_S)
        self._gauges = {name: self._metrics.gauge(name, text) for name, text in _GAUGES.items()}
        self._dropped = self._metrics.gauge("messages_dropped", "messages not sent to clients", labels=["reason"])
        self._sizes = {name: self._metrics.gauge(name, text, unit="bytes") for name, text in _SIZES.items()}

    def answered(self, status: int, took_ns: int) -> None:
        self._answers.labels(str(status)).inc()
        self._took.observe(took_ns / 1e9)

    def exposition(self, stats: Mapping[str, int | str]) -> bytes:
        """All values in Prometheus's text format, `stats` being the component's own of this moment."""
        for name, gauge in self._gauges.items():
            value = stats.get(name, 0)
            gauge.set(value if isinstance(value, int) else 0)
        for name, reason in _DROPPED.items():
            value = stats.get(name, 0)
            self._dropped.labels(reason).set(value if isinstance(value, int) else 0)
        for name, gauge in self._sizes.items():
            value = stats.get(f"{name}_bytes", 0)
            gauge.set(value if isinstance(value, int) else 0)
        return self._metrics.exposition()
