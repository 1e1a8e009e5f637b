"""Which configuration of an environment was live when: a fold of its journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ssmd.domain.decider import Catalogue
from ssmd.domain.envelope import Envelope
from ssmd.domain.environment import Applied, TornDown

AGGREGATES = ("environment", "trading-day")
"""Whose events tell it: what was applied, and by which configuration days were run."""


class ConfigSpan(NamedTuple):
    """One configuration from `from_ns` (inclusive) until `until_ns` (exclusive, None = still).

    Attributes:
        config: git commit of the registry, "" = not under git.
        what: "applied", "torn down", or "in use" where processes worked by it though nobody applied it.
        uncommitted: what the registry held beyond the commit, in words.
        changes: what applying it changed, or what was removed.
        position: journal position of the event that began it.
    """

    from_ns: int
    until_ns: int | None
    config: str
    actor: str
    what: str
    uncommitted: tuple[str, ...]
    changes: tuple[str, ...]
    position: int


def fold_history(events: Iterable[tuple[int, Envelope]], catalogue: Catalogue) -> list[ConfigSpan]:
    """The spans, in order, of (position, event) pairs in journal order. Clocks that went back make no span negative."""
    spans: list[ConfigSpan] = []
    now_ns = 0
    for position, envelope in events:
        now_ns = max(now_ns, envelope.ts_ns)
        event = catalogue.decode(envelope.type, envelope.data) if envelope.aggregate == "environment" else None
        match event:
            case Applied(config=config, uncommitted=uncommitted, changes=changes):
                fresh = ConfigSpan(now_ns, None, config, envelope.actor, "applied", uncommitted, changes, position)
            case TornDown(date="", removed=removed):
                fresh = ConfigSpan(now_ns, None, "", envelope.actor, "torn down", (), removed, position)
            case TornDown():
                continue
            case _:
                if spans and spans[-1].config == envelope.config and spans[-1].what != "torn down":
                    continue
                fresh = ConfigSpan(now_ns, None, envelope.config, envelope.actor, "in use", (), (), position)
        if spans:
            spans[-1] = spans[-1]._replace(until_ns=now_ns)
        spans.append(fresh)
    return spans


def live_during(spans: Sequence[ConfigSpan], from_ns: int, until_ns: int) -> list[ConfigSpan]:
    """The spans that were live at some moment of [from_ns, until_ns)."""
    return [span for span in spans if span.from_ns < until_ns and (span.until_ns is None or span.until_ns > from_ns)]
