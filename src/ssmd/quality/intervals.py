"""What holds of a ticker at each instant, from claims that may overlap: one list without overlap, and a sum for each verdict.

A claim is an assessed interval, or a hole that is still open. Of one connection: missing before unverifiable before
verified, for what is found later to be wrong counts; repaired where every gap that is missing there was repaired. Of
several connections that have the same ticker the best holds, for what one of them has is there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ssmd.quality.coverage import Verdict

CHANNELS: Final = ("orderbook_delta", "trade", "ticker")
"""Of several that a ticker is on, the first says how it is covered."""
_BEST: Final[tuple[Verdict, ...]] = ("verified", "repaired", "unverifiable", "missing")


class Claim(NamedTuple):
    """`channel` "" = every channel; `gap_id` of missing and repaired ones; `is_open`: nobody has told its end, so it ends
    where a later session of the connection covers the ticker.
    """

    connection: str
    channel: str
    verdict: Verdict
    cause: str
    gap_id: str
    start_ns: int
    end_ns: int
    session: int = 0
    is_open: bool = False


class Interval(NamedTuple):
    """[start_ns, end_ns) of one verdict and cause ("" = verified)."""

    start_ns: int
    end_ns: int
    verdict: Verdict
    cause: str


def channel_of(claims: Iterable[Claim]) -> str:
    """The channel that says how a ticker with these claims is covered, "" = it is on none of them."""
    found = {claim.channel for claim in claims}
    return next((channel for channel in CHANNELS if channel in found), "")


def painted(claims: Iterable[Claim], channel: str, start_ns: int, end_ns: int) -> tuple[Interval, ...]:
    """What holds on `channel` within [start_ns, end_ns): in order, none overlapping, equal neighbours joined."""
    by_connection: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.channel in {"", channel}:
            by_connection.setdefault(claim.connection, []).append(claim)
    layers = [_of_connection(_ended(of_one), start_ns, end_ns) for of_one in by_connection.values()]
    return layers[0] if len(layers) == 1 else _best(layers)


def sums(intervals: Iterable[Interval]) -> Mapping[Verdict, int]:
    """Nanoseconds by verdict."""
    total: dict[Verdict, int] = dict.fromkeys(_BEST, 0)
    for interval in intervals:
        total[interval.verdict] += interval.end_ns - interval.start_ns
    return total


def _ended(claims: Sequence[Claim]) -> Sequence[Claim]:
    if not any(claim.is_open for claim in claims):
        return claims
    covered = [(one.session, one.start_ns) for one in claims if one.verdict in {"verified", "unverifiable"}]
    return [
        claim._replace(end_ns=min([claim.end_ns, *(start for session, start in covered if session > claim.session)]))
        if claim.is_open
        else claim
        for claim in claims
    ]


def _of_connection(claims: Sequence[Claim], start_ns: int, end_ns: int) -> tuple[Interval, ...]:
    edges: list[tuple[int, int]] = []
    for number, claim in enumerate(claims):
        low, high = max(claim.start_ns, start_ns), min(claim.end_ns, end_ns)
        if low < high:
            edges += [(low, number), (high, ~number)]
    edges.sort()
    active: dict[int, None] = {}
    found: list[Interval] = []
    before_ns = start_ns
    for ts_ns, number in edges:
        if ts_ns > before_ns and active:
            _join(found, Interval(before_ns, ts_ns, *_ruling([claims[one] for one in active])))
        if number < 0:
            del active[~number]
        else:
            active[number] = None
        before_ns = ts_ns
    return tuple(one for one in found if one.cause != _NOTHING)


_NOTHING: Final = "(only a repair of what is not missing)"


def _ruling(claims: Sequence[Claim]) -> tuple[Verdict, str]:
    repaired = {claim.gap_id for claim in claims if claim.verdict == "repaired"}
    missing = [claim for claim in claims if claim.verdict == "missing"]
    if missing:
        left = [claim for claim in missing if claim.gap_id not in repaired]
        first = min(left or missing, key=lambda claim: (claim.start_ns, claim.gap_id))
        return "missing" if left else "repaired", first.cause
    told = [claim for claim in claims if claim.verdict != "repaired"]
    worst = min(told, key=lambda claim: (claim.verdict, claim.start_ns, claim.cause), default=None)
    return ("repaired", _NOTHING) if worst is None else (worst.verdict, worst.cause)


def _best(layers: Sequence[Sequence[Interval]]) -> tuple[Interval, ...]:
    edges = sorted({edge for layer in layers for one in layer for edge in (one.start_ns, one.end_ns)})
    places = [0] * len(layers)
    found: list[Interval] = []
    for low, high in itertools.pairwise(edges):
        here: list[Interval] = []
        for number, layer in enumerate(layers):
            while places[number] < len(layer) and layer[places[number]].end_ns <= low:
                places[number] += 1
            if places[number] < len(layer) and layer[places[number]].start_ns <= low:
                here.append(layer[places[number]])
        if here:
            best = min(here, key=lambda one: _BEST.index(one.verdict))
            _join(found, Interval(low, high, best.verdict, best.cause))
    return tuple(found)


def _join(found: list[Interval], following: Interval) -> None:
    last = found[-1] if found else None
    if last is not None and last.end_ns == following.start_ns and last[2:] == following[2:]:
        found[-1] = last._replace(end_ns=following.end_ns)
    else:
        found.append(following)
