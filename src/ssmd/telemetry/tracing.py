"""Traces: spans around commands, appends, batches and requests; never around a single record.

They are off unless OTEL_* variables name where they go (`wanted`): then `span` costs one comparison, and OpenTelemetry is
not even imported. It comes with the extra `otel`. A trace has the id of the request it belongs to (a UUID without its
hyphens), so that one id finds log lines, journal events and spans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from ssmd.errors import Misconfigured

Value = str | int | bool | tuple[str, ...]
PROTOCOL: Final = "http/protobuf"
_OFF: Final = nullcontext()


class Tracer(Protocol):
    """What makes spans (`telemetry.otlp`)."""

    def span(
        self, name: str, parent: Mapping[str, str] | None, attributes: Mapping[str, Value]
    ) -> AbstractContextManager[None]: ...

    def headers(self) -> dict[str, str]: ...

    def close(self) -> None: ...


class _Tracing:
    """Of this process; what `begin` has set."""

    tracer: Tracer | None = None


def span(name: str, parent: Mapping[str, str] | None = None, **attributes: Value) -> AbstractContextManager[None]:
    """A span around a block of work, within the one around the caller.

    Args:
        parent: headers of another process's request, which it continues.
        attributes: shown as ssmd.NAME. An error that leaves the block marks the span by its type.
    """
    return _OFF if _Tracing.tracer is None else _Tracing.tracer.span(name, parent, attributes)


def headers() -> dict[str, str]:
    """What tells another process of the span at hand; {} = there is none."""
    return {} if _Tracing.tracer is None else _Tracing.tracer.headers()


def wanted(variables: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces: an OTLP endpoint, or OTEL_TRACES_EXPORTER=otlp.

    Raises:
        Misconfigured: they ask for an exporter or a protocol that is not there.
    """
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if exporter == "none" or not (exporter or any(variables.get(name) for name in places)):
        return False
    if exporter not in {"", "otlp"}:
        raise Misconfigured(f"OTEL_TRACES_EXPORTER is {exporter!r}; expected otlp or none", mend="OTEL_TRACES_EXPORTER=otlp")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if variables.get(name, PROTOCOL) not in {"", PROTOCOL}:
            raise Misconfigured(f"{name} is {variables[name]!r}; expected {PROTOCOL}", mend=f"{name}={PROTOCOL}")
    return True


def begin(component: str, instance: str, env: str, variables: Mapping[str, str]) -> Callable[[], None]:
    """Trace this process from now on, if that is wanted; what ends it again, within seconds, whoever is away.

    Raises:
        Misconfigured: it is wanted, and the extra is not installed.
    """
    if not wanted(variables):
        return lambda: None
    try:
        from ssmd.telemetry import otlp  # noqa: PLC0415 - an extra, and only where it is asked for
    except ImportError as error:
        raise Misconfigured(
            f"OTEL_* variables ask for traces, and OpenTelemetry is not installed: {error}",
            mend="pip install 'ssmd[otel]', or OTEL_TRACES_EXPORTER=none",
        ) from error
    return use(otlp.exporting(component, instance, env, variables))


def use(tracer: Tracer) -> Callable[[], None]:
    """Let `tracer` make this process's spans; what ends that."""
    _Tracing.tracer = tracer

    def end() -> None:
        _Tracing.tracer = None
        tracer.close()

    return end
