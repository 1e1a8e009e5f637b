from __future__ import annotations

import pytest

from ssmd.streams.backoff import backoff_s


@pytest.mark.parametrize(("attempt", "low", "high"), [(1, 0.025, 0.05), (3, 0.1, 0.2), (50, 2.5, 5.0)])
def test_backoff_doubles_within_bounds_and_jitters(attempt: int, low: float, high: float) -> None:
    assert backoff_s(attempt, lambda size: b"\0" * size) == low
    assert low < backoff_s(attempt, lambda size: b"\xff" * size) < high
