"""Assessed intervals, as rows of the view `quality`; who is meant by them is worked out when somebody asks.

interval/{feed}/{date}/{position}            -> IntervalRow        under each UTC date it touches
set/{feed}/{connection}/{ticker set}         -> TickerSet          whom a digest stands for

One event may speak of 20,000 tickers: it is one row, not 20,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ssmd.domain import capture
from ssmd.projections.projection import Rows, id_parts, position_token, row_key, row_prefix, utc_date
from ssmd.quality.coverage import Verdict
from ssmd.quality.intervals import Claim
from ssmd.streams.journal import RecordedEvent

_INTERVAL: Final = "interval"
_SET: Final = "set"
_DAY_NS: Final = 86_400 * 1_000_000_000
_DAYS_MAX: Final = 4000
"""An interval longer than this is a mistake of its clock; only so many of its days are counted."""


class IntervalRow(msgspec.Struct, frozen=True, gc=False):
    """As `capture.IntervalAssessed`. `is_before`: it is a hole that began before its session."""

    connection: str
    session: int
    sid: int
    channel: str
    verdict: Verdict
    cause: str
    gap_id: str
    start_ns: int
    end_ns: int
    first_seq: int
    last_seq: int
    ticker_set: str
    evidence: str
    is_before: bool = False

    @property
    def claim(self) -> Claim:
        return Claim(
            self.connection, self.channel, self.verdict, self.cause, self.gap_id, self.start_ns, self.end_ns, self.session
        )  # fmt: skip


class TickerSet(msgspec.Struct, frozen=True):
    """Whom a digest stands for: those of `base` ("" = nobody) with `tickers` and without `dropped`."""

    base: str
    tickers: tuple[str, ...]
    dropped: tuple[str, ...]


def intervals_prefix(feed: str, date: str) -> str:
    """Prefix of a date's `IntervalRow`s."""
    return row_prefix(_INTERVAL, feed, date)


def set_key(feed: str, connection: str, ticker_set: str) -> str:
    """Key of a `TickerSet`."""
    return row_key(_SET, feed, connection, ticker_set)


def fold_interval(rows: Rows, recorded: RecordedEvent, event: capture.IntervalAssessed) -> None:
    """Fold an assessment."""
    feed, connection = id_parts(recorded.envelope)
    if event.base != event.ticker_set:
        _name(rows, feed, connection, event)
    row = IntervalRow(
        connection, event.session, event.sid, event.channel, event.verdict, event.cause, event.gap_id, event.start_ns,
        event.end_ns, event.first_seq, event.last_seq, event.ticker_set, event.evidence,
        event.verdict == "missing" and not event.first_n,
    )  # fmt: skip
    token = position_token(recorded.position)
    for date in _dates(event.start_ns, event.end_ns):
        rows.add(row_key(_INTERVAL, feed, date, token), row)


def _name(rows: Rows, feed: str, connection: str, event: capture.IntervalAssessed) -> None:
    # What was named first stays, and nothing rests on what is not known: sets refer to earlier ones, never in a circle.
    key = set_key(feed, connection, event.ticker_set)
    if rows.get(key, TickerSet) is not None:
        return
    if not event.base or rows.get(set_key(feed, connection, event.base), TickerSet) is not None:
        rows.put(key, TickerSet(event.base, event.tickers, event.dropped))


def _dates(start_ns: int, end_ns: int) -> Iterable[str]:
    """UTC dates that [start_ns, end_ns) touches."""
    if start_ns < end_ns:
        days = range(start_ns // _DAY_NS, -(-end_ns // _DAY_NS))
        for day in days[:_DAYS_MAX]:
            yield utc_date(day * _DAY_NS)


class KnownSets:
    """The sets of one connection, with members worked out once."""

    def __init__(self, sets: Mapping[str, TickerSet]) -> None:
        self._sets = sets
        self._members: dict[str, frozenset[str]] = {}

    def members(self, ticker_set: str) -> frozenset[str]:
        """The tickers of a set; nobody for one that was never named."""
        chain: list[tuple[str, TickerSet]] = []
        name = ticker_set
        while name not in self._members:
            found = self._sets.get(name)
            if found is None:
                self._members[name] = frozenset()
                break
            chain.append((name, found))
            if not found.base:
                break
            name = found.base
        for name, found in reversed(chain):
            known = self._members.get(found.base, frozenset())
            self._members[name] = (known - frozenset(found.dropped)) | frozenset(found.tickers)
        return self._members.get(ticker_set, frozenset())
