"""Lists of tickers, cut to what one journal message holds.

A server takes messages of 1 MiB by default; a venue may have more open markets than fit by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

TICKERS_BYTES_MAX: Final = 512 << 10
"""Of one part, as JSON; the rest of an event and its envelope is far below what is left."""


def ticker_parts(tickers: Sequence[str], bytes_max: int = TICKERS_BYTES_MAX) -> list[tuple[str, ...]]:
    """`tickers` in parts of at most `bytes_max`, in order; one part, the whole, where they fit."""
    parts: list[tuple[str, ...]] = []
    part: list[str] = []
    size = 0
    for ticker in tickers:
        own = len(msgspec.json.encode(ticker)) + 1
        if part and size + own > bytes_max:
            parts.append(tuple(part))
            part, size = [], 0
        part.append(ticker)
        size += own
    return [*parts, tuple(part)]


def set_digest(tickers: Iterable[str]) -> str:
    """The name of a set of tickers by its content: SHA-256 (hex) of the sorted ones, each followed by a line feed."""
    return hashlib.sha256("".join([f"{ticker}\n" for ticker in sorted(tickers)]).encode()).hexdigest()
