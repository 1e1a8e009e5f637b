"""Logs: one line of JSON an event, on the stream the composition root gives. No secret passes.

    {"ts":"2026-05-14T13:00:00.000000000Z","level":"info","component":"connector","event":"connected","session":17}

Modules log with `structlog.get_logger()` (of `telemetry.structured`); what libraries log through the standard library comes
out the same way. What is done for a request carries its `correlation_id` (`telemetry.request`).
Fields named like a secret are withheld, and so are private keys, URL credentials, keys of the gateway and seeds of NATS inside
any text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO, cast, get_args

import msgspec

from ssmd.clock import Clock, iso_of
from ssmd.errors import Misconfigured
from ssmd.telemetry import request
from ssmd.telemetry.structured import structlog

Level = Literal["debug", "info", "warning", "error"]
WITHHELD = "[withheld]"

# A bare "key" is an object key in this code base, and is shown.
_SECRET_NAME = re.compile(
    r"(api|access|private|secret|signing)[_-]?key|secret|passw(or)?d|token|authorization|signature|credential|cookie",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# To the last @ before the path: a password may have one.
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s]+@")
_TELLTALE = re.compile(
    r"\bssmd_[a-z2-7]{12}_[A-Za-z0-9_-]{43}"  # a key of the gateway (gateway.api_keys)
    r"|\bS[ACNOUX][A-Z2-7]{56}\b"  # a seed of NATS
    r"|(?<=\bbearer )[^\s\"']+",
    re.IGNORECASE,
)
_FIRST = ("ts", "level", "component", "event")


def _text(value: str) -> str:
    # Names of files may hold bytes that are no text, as lone surrogates; JSON cannot.
    return value.encode("utf-8", "backslashreplace").decode()


def withhold(name: str, value: object) -> object:
    """`value` of a field called `name` as it may be shown, at any depth."""
    if _SECRET_NAME.search(name):
        return WITHHELD
    if isinstance(value, str):
        shown = _URL_CREDENTIALS.sub(f"{WITHHELD}@", _PRIVATE_KEY.sub(WITHHELD, _text(value)))
        return _TELLTALE.sub(WITHHELD, shown)
    if isinstance(value, bytes):
        return withhold(name, value.decode("utf-8", "backslashreplace"))
    if isinstance(value, Mapping):
        return {_text(str(key)): withhold(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [withhold(name, item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return withhold(name, repr(value))


def log_level(given: Mapping[str, str]) -> Level:
    """SSMD_LOG_LEVEL, in any case; "info" where it is not set.

    Raises:
        Misconfigured: it is no level.
    """
    wanted = given.get("SSMD_LOG_LEVEL", "") or "info"
    if wanted.lower() not in get_args(Level):
        raise Misconfigured(
            f"SSMD_LOG_LEVEL is {wanted!r}; expected {', '.join(get_args(Level))}", mend="export SSMD_LOG_LEVEL=info"
        )
    return cast("Level", wanted.lower())


def configure_logging(component: str, clock: Clock, stream: TextIO, *, level: Level = "info") -> None:
    """Send all logs of this process to `stream`; the composition root calls it once, before anything else."""

    def complete(_logger: object, method: str, event: MutableMapping[str, Any]) -> dict[str, object]:
        fields = {"ts": iso_of(clock.now_ns()), "level": method, "component": component, "event": event.pop("event", "")}
        for name, value in event.items():
            fields[f"{name}_" if name in _FIRST else name] = value
        return {_text(name): withhold(name, value) for name, value in fields.items()}

    def render(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        return msgspec.json.encode(event).decode()

    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _with_request,
            structlog.processors.format_exc_info,
            complete,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        # A logger made before this call must follow it.
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Forward()]
    # Libraries are only heard when something is wrong, unless everything is wanted.
    root.setLevel(logging.DEBUG if threshold == logging.DEBUG else max(threshold, logging.WARNING))


def _with_request(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in request.fields().items():
        event.setdefault(name, value)
    return event


class _Forward(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
        fields: dict[str, object] = {"exc_info": record.exc_info} if record.exc_info else {}
        log = getattr(structlog.get_logger(), level, None) or structlog.get_logger().info
        log(record.getMessage(), logger=record.name, **fields)
