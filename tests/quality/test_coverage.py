"""Spans: what is painted over what, and nothing twice. Against a naive painter, instant by instant."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ssmd.quality.coverage import VERDICTS, Span, Verdict, _painted, sums, verdict_at

_interval = st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from(VERDICTS))


@given(st.lists(_interval, max_size=12), st.integers(0, 20), st.integers(0, 40))
def test_as_a_naive_painter(found: list[tuple[int, int, Verdict]], start: int, length: int) -> None:
    end = start + length
    canvas: dict[int, Verdict] = {}
    for verdict in VERDICTS:
        for low, high, of in found:
            if of == verdict:
                canvas.update(dict.fromkeys(range(max(low, start), min(high, end)), verdict))
    spans = _painted(found, start, end)
    assert {at: span.verdict for span in spans for at in range(span.start_ns, span.end_ns)} == canvas
    assert all(before.end_ns < after.start_ns or before.verdict != after.verdict for before, after in itertools.pairwise(spans))
    assert sum(sums(spans).values()) == len(canvas)
    assert all(verdict_at(spans, at) == canvas.get(at) for at in range(45))


def test_instants_at_edges() -> None:
    spans = (Span(10, 20, "verified"), Span(20, 30, "missing"))
    assert [verdict_at(spans, at) for at in (9, 10, 19, 20, 29, 30)] == [
        None, "verified", "verified", "missing", "missing", None,
    ]  # fmt: skip
