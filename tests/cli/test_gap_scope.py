"""Whom a hole concerned, in words."""

from __future__ import annotations

import pytest

from ssmd.cli.data import WHOLE_CHANNEL, scope_of
from ssmd.projections.queries import GapLine
from ssmd.schemas import records


@pytest.mark.parametrize(
    ("channel", "tickers", "said"),
    [
        ("trade", (), "all tickers of channel trade"),
        ("trade", ("*",), "all tickers of channel trade"),
        ("", (), "all tickers of the session"),
        ("", ("A", "B"), "A, B"),
        ("trade", ("A",), "A, on channel trade"),
        ("", ("*", "A", "B"), "A, B, and all tickers of the channels without a ticker filter"),
        ("", ("A", "B", "C", "D"), "A, B and 2 more"),
    ],
)
def test_no_star_is_shown(channel: str, tickers: tuple[str, ...], said: str) -> None:
    line = GapLine("g", "kalshi", "main", 1, "c", "e", channel, 0, 0, 1, None, tickers, ())
    assert scope_of(line) == said


def test_the_star_is_that_of_the_records() -> None:
    assert WHOLE_CHANNEL == records.WHOLE_CHANNEL
