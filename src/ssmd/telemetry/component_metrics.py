"""The one table of what components tell of themselves: statistic of their health -> metric.

Every component process shows its health at /metrics through this table (`metrics.HealthCollector`), and
docs/reference/metrics.md is made of it:

    python -m ssmd.telemetry.component_metrics > docs/reference/metrics.md

All metrics carry the labels `env`, `component` and `member` (its instance: "main"); statistics are whole numbers, `per` of
which are one of the metric's unit. A statistic whose name ends with * stands for many; what * stands for is the label.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Type = Literal["counter", "gauge"]


class Row(NamedTuple):
    """One statistic as a metric. `name` is without `ssmd_{component}_` and without a counter's `_total`."""

    stat: str
    name: str
    type: Type
    help: str
    per: int = 1
    label: str = ""

    def metric(self, component: str) -> str:
        """The whole name, as queries have it."""
        return f"ssmd_{component.replace('-', '_')}_{self.name}{'_total' if self.type == 'counter' else ''}"


class HealthNow(NamedTuple):
    """A component at a scrape: `services.component.Health` by its parts, and who it is."""

    component: str
    member: str
    env: str
    ok: bool
    stats: Mapping[str, int | str]


_CONNECTOR: Final = (
    Row("connected", "connected", "gauge", "1 while the (first) connection to the venue stands"),
    Row("planned_pause", "planned_pause", "gauge", "1 while the venue's schedule says that it does not trade"),
    Row("frame_age_ms", "frame_age_seconds", "gauge", "time since the last frame; of several connections the longest", 1000),
    Row(
        "clock_offset_ms", "clock_offset_seconds", "gauge", "our clock less the venue's, plus the shortest way of a frame", 1000
    ),
    Row("publish_lag_ms", "publish_lag_seconds", "gauge", "for how long the streams have lacked something of the tape", 1000),
    Row("disk_free_bytes", "disk_free_bytes", "gauge", "free on the disk of the tape"),
    Row("tape_bytes", "tape_bytes", "gauge", "size of the tape"),
    Row("tape_bytes_max", "tape_bytes_max", "gauge", "size at which the tape refuses more (tape.bytes_max)"),
    Row("frames", "frames", "counter", "frames received"),
    Row("entries", "session_entries", "gauge", "entries of the session on the tape"),
    Row("sessions", "sessions", "counter", "connections made"),
    Row("connections", "connections", "gauge", "connections that share the markets"),
    Row("markets", "markets", "gauge", "markets wanted"),
    Row("unplaced", "unplaced_markets", "gauge", "markets wanted and not subscribed"),
    Row("unacked", "unacked_connections", "gauge", "connections of whose tape the streams lack something"),
    Row("facts_waiting", "facts_waiting", "gauge", "facts not in the journal yet"),
    Row("commands_waiting", "commands_waiting", "gauge", "commands to the venue that wait for their turn"),
    Row("publisher_recoveries", "publisher_recoveries", "counter", "times publishing began anew after trouble"),
    Row("refills", "refills", "counter", "times the streams were filled again from the tape"),
    Row("quarantined", "quarantined_frames", "counter", "frames not understood, put on the dead-letter stream"),
    Row("letters_waiting", "letters_waiting", "gauge", "of those, on their way to the dead-letter stream or the journal"),
    Row("letters_dropped", "letters_dropped", "counter", "of those, left to the tape because too many waited"),
    Row("repairs_waiting", "repairs_waiting", "gauge", "gaps over, to be repaired from the venue's REST interface"),
    Row("repaired", "gaps_repaired", "counter", "gaps repaired so"),
    Row("repairs_given_up", "repairs_given_up", "counter", "gaps whose repair was given up after so many tries"),
)
_ARCHIVER: Final = (
    Row("unsealed_age_ms", "unsealed_age_seconds", "gauge", "age of the oldest message read and not sealed", 1000),
    Row("retention_ms", "retention_seconds", "gauge", "how long the stream keeps a message (transport.max_age_hours)", 1000),
    Row("unsealed_messages", "unsealed_messages", "gauge", "messages of the stream behind the last seal"),
    Row("stream_messages", "stream_messages", "gauge", "messages the stream holds"),
    Row("unread_messages", "unread_messages", "gauge", "messages of the stream not read"),
    Row("disk_free_bytes", "disk_free_bytes", "gauge", "free on the disk of the spool"),
    Row("sealed", "segments_sealed", "counter", "segments sealed"),
    Row("records", "records_sealed", "counter", "lines or messages in sealed segments"),
    Row("stream_seq", "stream_seq", "gauge", "position in the stream"),
    Row("open_segments", "open_segments", "gauge", "segments being written"),
    Row("open_bytes", "open_bytes", "gauge", "content of segments being written"),
    Row("holes", "holes", "counter", "messages given up waiting for"),
    Row("damaged", "damaged_messages", "counter", "messages that could not be archived"),
    Row("duplicates", "duplicates", "counter", "messages that had been archived already"),
    Row("chain_breaks", "chain_breaks", "counter", "tape blocks whose digest does not follow the one before"),
)
_PROJECTOR: Final = (
    Row("position", "position", "gauge", "journal position that every view includes"),
    Row("head", "journal_head", "gauge", "the journal's last position"),
    Row("lag", "lag_events", "gauge", "events the slowest view lacks"),
    Row("lag_*", "view_lag_events", "gauge", "events a view lacks", label="view"),
    Row("position_*", "view_position", "gauge", "journal position of a view", label="view"),
    Row("skipped", "skipped_events", "gauge", "events that views passed over because they could not fold them"),
    Row("diverged", "diverged_views", "gauge", "views whose last check gave other rows at the same position"),
    Row("gaps_open", "gaps_open", "gauge", "holes in the data that have not ended"),
    Row("dead_letters", "dead_letters", "gauge", "dead letters that wait for a decision"),
    Row("day_failed", "day_failed", "gauge", "1 while today's or yesterday's trading day stands in error"),
    Row("day_overdue_ms", "day_overdue_seconds", "gauge", "for how long a trading day should have started or ended", 1000),
    Row("day_status_*", "day_status", "gauge", "1 for the status of today's trading day", label="status"),
    Row("key_expires_ms_*", "key_expires_in_seconds", "gauge", "time until a key that is set expires", 1000, label="key"),
    Row("anchored", "anchored_position", "gauge", "journal position of the last anchor"),
    Row("manifests_written", "manifests_written", "counter", "manifests written"),
    Row("manifests_pending", "manifests_pending", "gauge", "manifests to be written"),
    Row("batches", "batches", "counter", "batches of events folded"),
    Row("events", "events", "counter", "events folded"),
    Row("failures", "failures", "counter", "times it had to open its views again, or to try again"),
    Row("rebuilds", "rebuilds", "counter", "views built anew because they were missing or of another version"),
)
_GATEWAY: Final = (
    Row("clients", "clients", "gauge", "WebSocket clients connected"),
    Row("clients_resuming", "clients_resuming", "gauge", "clients that are being sent what they missed"),
    Row("clients_closed_slow", "clients_closed_slow", "counter", "clients closed because they did not keep up"),
    Row("lag_messages", "lag_messages", "gauge", "messages of the market stream not read yet"),
    Row("markets", "markets", "gauge", "markets held"),
    Row("markets_forgotten", "markets_forgotten", "counter", "markets dropped because there were too many"),
    Row("queued_messages", "queued_messages", "gauge", "messages waiting in all clients' queues"),
    Row("queued_bytes", "queued_bytes", "gauge", "text waiting in all clients' queues"),
    Row("records", "records", "counter", "records of the market stream applied"),
    Row("duplicates", "duplicates", "counter", "messages of the market stream met again"),
    Row("holes", "holes", "counter", "holes found between the tape and here"),
    Row("malformed", "malformed", "counter", "messages of the market stream that could not be read"),
    Row("resets", "resets", "counter", "times the derived state was begun anew"),
    Row("stream_seq", "stream_seq", "gauge", "position in the market stream"),
    Row("messages_offered", "messages_offered", "counter", "messages given to clients' queues"),
    Row("messages_lost", "messages_lost", "counter", "messages not sent because a client did not keep up"),
    Row("messages_conflated", "messages_conflated", "counter", "messages left out because a newer one replaced them"),
    Row("checkpoints", "checkpoints", "counter", "rounds of saving the derived state"),
)
_SIMULATOR: Final = (
    Row("connections_accepted", "connections_accepted", "counter", "connections accepted"),
    Row("connections_open", "connections_open", "gauge", "connections open"),
    Row("frames_sent", "frames_sent", "counter", "frames sent"),
    Row("rest_requests", "rest_requests", "counter", "REST requests answered"),
    Row("done", "done", "gauge", "1 once a recording has been played to its end"),
)

_WORKER: Final = (
    Row("secmaster_messages", "secmaster_lifecycle_messages", "counter", "lifecycle messages read from the market stream"),
    Row("secmaster_written", "secmaster_events_written", "counter", "listing events written because of them"),
    Row("secmaster_asked", "secmaster_markets_asked", "counter", "markets asked of the venue because of them"),
    Row("secmaster_pending", "secmaster_markets_pending", "gauge", "markets to be asked for"),
    Row("secmaster_given_up", "secmaster_markets_given_up", "counter", "markets left to the next sync"),
    Row("secmaster_overflowed", "secmaster_hints_dropped", "counter", "hints dropped because too many waited"),
    Row("secmaster_unreadable", "secmaster_messages_unreadable", "counter", "messages that could not be read"),
)

TABLE: Final[Mapping[str, tuple[Row, ...]]] = {
    "connector": _CONNECTOR,
    "raw-archiver": _ARCHIVER,
    "normalized-archiver": _ARCHIVER,
    "projector": _PROJECTOR,
    "gateway": _GATEWAY,
    "simulator": _SIMULATOR,
    "worker": _WORKER,
}
"""Component -> its metrics, in the order in which they are shown."""

EVERYWHERE: Final = (
    Row("", "up", "gauge", "1: the process answers"),
    Row("", "ok", "gauge", "1 while the component does its job, by its own word (/healthz names the reason)"),
    Row("", "standby", "gauge", "1 while it waits to take over from another instance"),
)
"""`ssmd_component_*`: of every process."""

NOT_EXPORTED: Final[Mapping[str, Mapping[str, str]]] = {
    "connector": {
        "session": "a name, not a quantity",
        "acked_session": "a name, not a quantity",
        "acked_n": "a place within acked_session; publish_lag_seconds tells what matters",
    },
    "raw-archiver": {"stands_by_for": "text; ssmd_component_standby"},
    "normalized-archiver": {"stands_by_for": "text; ssmd_component_standby"},
    "projector": {"standing_by": "ssmd_component_standby"},
    "gateway": {
        "url": "text",
        "feed": "text",
        "stream": "text",
        "position": "a name of a place; stream_seq",
        "last_recv_ns": "a time; the connector tells the age of the last frame",
    },
    "simulator": {},
    "worker": {"temporal": "text; Temporal's own server tells how workflows do"},
}
"""Component -> statistic that is no metric -> why. `metrics_url` is one of every component."""
_OF_ALL: Final = {"metrics_url": "where this is"}


def row_of(component: str, stat: str) -> tuple[Row, str] | None:
    """The row for a statistic and the value of its label ("" = it has none); None = it is not exported."""
    wild: tuple[Row, str] | None = None
    for row in TABLE.get(component, ()):
        if row.stat == stat:
            return row, ""
        prefix = row.stat.removesuffix("*")
        if prefix != row.stat and stat.startswith(prefix):
            wild = row, stat.removeprefix(prefix)
    return wild


def is_withheld(component: str, stat: str) -> bool:
    """Whether a statistic is left out on purpose."""
    return stat in NOT_EXPORTED.get(component, {}) or stat in _OF_ALL


_PREFACE: Final = """\
# Metrics

Made from the code: `python -m ssmd.telemetry.component_metrics > docs/reference/metrics.md`

Every component process serves `/metrics` (Prometheus text) and `/healthz` (200, or 503 with the reason) at `SSMD_MONITOR`
(HOST:PORT; a free port of 127.0.0.1 where it is not set). This tells where:

    ssmd status -o json | jq -r '.services[].stats.metrics_url'

Labels of all: `env`, `component` and `member` (its instance). Prometheus's own `process_*` metrics are there too. The
gateway counts and times REST requests besides, `ssmd_gateway_requests_total` (`status`) and `ssmd_gateway_request_seconds`
(a histogram), at `/metrics` of its public address, for those who have a key."""


def names_of(component: str) -> list[str]:
    """The metrics of a component, "" = those of every one."""
    rows = TABLE[component] if component else EVERYWHERE
    return [row.metric(component or "component") for row in rows]


def reference() -> str:
    """docs/reference/metrics.md."""
    lines = [_PREFACE]
    tables = [("every component", "component", EVERYWHERE), *((name, name, rows) for name, rows in TABLE.items() if rows)]
    for title, component, rows in tables:
        lines += ["", f"## {title}", "", "| metric | type | labels | what | statistic |", "| --- | --- | --- | --- | --- |"]
        for row in rows:
            stat = f"`{row.stat}`" if row.stat else ""
            lines.append(f"| `{row.metric(component)}` | {row.type} | {row.label} | {row.help} | {stat} |")
    lines += ["", "## Statistics that are no metrics", "", "| component | statistic | why |", "| --- | --- | --- |"]
    lines += [f"| {name} | `{stat}` | {why} |" for name, rows in NOT_EXPORTED.items() for stat, why in rows.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
