"""Sums and instants of spans."""

from __future__ import annotations

from ssmd.quality.coverage import Span, sums, verdict_at


def test_instants_at_edges() -> None:
    spans = (Span(10, 20, "verified"), Span(20, 30, "missing"))
    assert [verdict_at(spans, at) for at in (9, 10, 19, 20, 29, 30)] == [
        None, "verified", "verified", "missing", "missing", None,
    ]  # fmt: skip
    assert sums(spans) == {"verified": 10, "unverifiable": 0, "missing": 10, "repaired": 0}
