"""Lengths of time as people type them: 90s, 15m, 12h, 30d, 8w."""

from __future__ import annotations

import re
from typing import Final

import typer

_SPAN: Final = re.compile(r"([1-9]\d{0,5})([smhdw])")
_NS: Final = {
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}


def span_ns(text: str) -> int:
    """Nanoseconds of `text`.

    Raises:
        ValueError: it is no such length.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no length of time: 90s, 15m, 12h, 30d, 8w")
    return int(found[1]) * _NS[found[2]]


def checked_span(text: str) -> str:
    """`text` if it is a length of time or "" (callback of options)."""
    if text:
        try:
            span_ns(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    return text
