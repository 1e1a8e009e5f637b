"""Combos (multivariate events): markets made on demand of legs on others, in huge numbers, apart from all others.

They are in no list of events, and what happens to them is told on a channel of its own. Source: Kalshi API documentation,
multivariate events, and changelog of 2026-02-12; tickers recorded in 2026-01 and 2026-08.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "KXMVE"


def is_combo(ticker: str) -> bool:
    """Whether a ticker of a series, an event or a market is a combo's."""
    return ticker.startswith(PREFIX)
