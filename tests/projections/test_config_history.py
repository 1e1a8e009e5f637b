from __future__ import annotations

import msgspec

from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import Envelope
from ssmd.domain.environment import Applied, TornDown
from ssmd.domain.trading_day import Activated
from ssmd.projections.config_history import ConfigSpan, fold_history, live_during


def event(what: msgspec.Struct, ts_ns: int, config: str) -> tuple[int, Envelope]:
    tag = tag_of(what)
    aggregate = tag.partition(".")[0]
    data = msgspec.Raw(msgspec.json.encode(what))
    return ts_ns, Envelope(f"id-{ts_ns}", tag, aggregate, "x", 1, ts_ns, "cli:anna", "", "", config, data)


def test_spans_follow_what_was_applied_and_what_was_used() -> None:
    events = [
        event(Activated(), 10, "c0"),
        event(Activated(), 20, "c0"),
        event(Applied("r1", "c1", "5f", ("x: 1 -> 2",), ("create stream e-raw",)), 30, "c1"),
        event(Activated(), 40, "c1"),
        event(Activated(), 50, "c2"),
        event(TornDown("r2", "2026-05-14", ("12 objects",)), 60, "c2"),
        event(TornDown("r3", "", ("stream e-raw",)), 55, "c2"),
    ]
    spans = fold_history(events, CATALOGUE)
    assert spans == [
        ConfigSpan(10, 30, "c0", "cli:anna", "in use", (), (), 10),
        ConfigSpan(30, 50, "c1", "cli:anna", "applied", ("x: 1 -> 2",), ("create stream e-raw",), 30),
        ConfigSpan(50, 60, "c2", "cli:anna", "in use", (), (), 50),
        ConfigSpan(60, None, "", "cli:anna", "torn down", (), ("stream e-raw",), 55),
    ]
    assert [span.config for span in live_during(spans, 0, 10)] == []
    assert [span.config for span in live_during(spans, 10, 30)] == ["c0"]
    assert [span.config for span in live_during(spans, 29, 51)] == ["c0", "c1", "c2"]
    assert [span.what for span in live_during(spans, 1000, 1001)] == ["torn down"]
