"""The request at hand: whose id every log line, journal event and span made for it carries.

A request begins at an edge (a command line, an HTTP request, an activity), and goes with the work it causes: within a
process by context variables, which tasks inherit, and to other processes in a header of the control subjects. Its id is
the `correlation_id` of the events it leads to.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final

from ssmd.telemetry import tracing

HEADER: Final = "Ssmd-Request"
"""Of a message on a control subject: the request's id."""
_ID: Final = re.compile(r"[A-Za-z0-9._:/+@%-]{1,200}")
_CORRELATION: Final = "correlation_id"
_NONE: Final = nullcontext()
# Not structlog's own context variables: importing it doubles what a short command takes.
_AT_HAND: Final[ContextVar[Mapping[str, str]]] = ContextVar("ssmd-request")


def current() -> str:
    """The id of the request at hand, "" = there is none."""
    return fields().get(_CORRELATION, "")


def fields() -> Mapping[str, str]:
    """What each log line says of the request at hand: its id, and what was given with it."""
    return _AT_HAND.get({})


def begun(correlation_id: str, **ids: str) -> AbstractContextManager[None]:
    """A block of work for request `correlation_id` ("" = for whichever is at hand); `ids` are further fields of its logs."""
    told = {name: value for name, value in {_CORRELATION: correlation_id, **ids}.items() if value}
    return _at_hand(told) if told else _NONE


@contextmanager
def _at_hand(told: Mapping[str, str]) -> Generator[None]:
    token = _AT_HAND.set({**fields(), **told})
    try:
        yield
    finally:
        _AT_HAND.reset(token)


def headers() -> dict[str, str]:
    """What tells another process of the request at hand, and of the span."""
    at_hand = current()
    return {**({HEADER: at_hand} if at_hand else {}), **tracing.headers()}


def checked(given: str) -> str:
    """`given` if it can be an id, else "": whatever others send must not make lines of a log unreadable."""
    return given if _ID.fullmatch(given) else ""


def of_headers(given: Mapping[str, str] | None) -> str:
    """The id that another process told; "" = none."""
    return checked((given or {}).get(HEADER, ""))
