"""An account of a ticker's day: one list of intervals without overlap, each verified, unverifiable, missing or repaired.

It comes from the assessed intervals (`intervals`) and, for holes that have not ended, from the view `gaps`. What neither
tells was not captured, or is not assessed yet: a session assesses what it holds each full hour, and when something ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date as calendar_date
from typing import Final

import msgspec

from ssmd.projections import gaps as gaps_view
from ssmd.projections import intervals as intervals_view
from ssmd.projections import quality as quality_view
from ssmd.projections.gaps import GapRow
from ssmd.projections.intervals import IntervalRow, KnownSets, TickerSet
from ssmd.projections.views import Views
from ssmd.projections.working_set import decode_row
from ssmd.quality.coverage import Verdict
from ssmd.quality.intervals import Claim, channel_of, painted, sums

WHOLE: Final = "*"
"""As `schemas.records.WHOLE_CHANNEL`: all tickers of a channel without a ticker filter."""
_DAY_NS: Final = 86_400 * 1_000_000_000
_EPOCH: Final = calendar_date(1970, 1, 1).toordinal()


class IntervalLine(msgspec.Struct, frozen=True, gc=False):
    """[start_ns, end_ns) of one verdict. `cause`: why it is not verified, "" = it is."""

    start_ns: int
    end_ns: int
    verdict: Verdict
    cause: str


class TickerDay(msgspec.Struct, frozen=True):
    """A ticker's UTC date on one channel.

    Attributes:
        intervals: in order, none overlapping; what lies between them was not captured (or not assessed yet).
        verified_ns, ...: their sums.
    """

    feed: str
    date: str
    ticker: str
    channel: str
    verified_ns: int
    unverifiable_ns: int
    missing_ns: int
    repaired_ns: int
    intervals: tuple[IntervalLine, ...]


class _Claims:
    """All claims that touch a date, each with whom it concerns."""

    def __init__(self) -> None:
        self.named: list[tuple[Claim, frozenset[str]]] = []
        # Claims on all tickers of the connection but some.
        self.of_all: list[tuple[Claim, frozenset[str]]] = []

    def of(self, ticker: str) -> list[Claim]:
        found = [claim for claim, members in self.named if ticker in members or WHOLE in members]
        connections = {claim.connection for claim in found}
        return found + [claim for claim, but in self.of_all if claim.connection in connections and ticker not in but]

    @property
    def tickers(self) -> list[str]:
        return sorted(frozenset[str]().union(*(members for _, members in self.named)) - {WHOLE})

    @property
    def last_ns(self) -> int:
        """The latest moment that any of them tells of."""
        return max((claim.end_ns for claim, _ in (*self.named, *self.of_all)), default=0)


async def ticker_day(
    views: Views, feed: str, date: str, ticker: str, *, channel: str = "", known_ns: int = 0
) -> TickerDay | None:
    """The account of one ticker, None = nothing of the date is known of it. Needs the views quality and gaps.

    Args:
        channel: "" = its book's; without one, its trades'; without those, its quotes'.
        known_ns: until when holes that have not ended are missing (now, or as of when it is asked), 0 = as long as
            anything is known.
    """
    claims = await _claims(views, feed, date, known_ns)
    return _day(feed, date, ticker, channel, claims.of(ticker))


async def ticker_days(views: Views, feed: str, date: str, *, channel: str = "", known_ns: int = 0) -> list[TickerDay]:
    """The accounts of all tickers of a date, by ticker. Arguments as in `ticker_day`."""
    claims = await _claims(views, feed, date, known_ns)
    numbers: dict[str, list[int]] = {ticker: [] for ticker in claims.tickers}
    for number, (_, members) in enumerate(claims.named):
        for ticker in numbers if WHOLE in members else members:
            numbers[ticker].append(number)
    # Of 20,000 tickers most share their claims.
    known: dict[tuple[object, ...], TickerDay | None] = {}
    days: list[TickerDay] = []
    for ticker, of_ticker in numbers.items():
        excepted = tuple(number for number, (_, but) in enumerate(claims.of_all) if ticker in but)
        key = (*of_ticker, "", *excepted)
        if key not in known:
            known[key] = _day(feed, date, ticker, channel, claims.of(ticker))
        found = known[key]
        if found is not None:
            days.append(msgspec.structs.replace(found, ticker=ticker))
    return days


def _day(feed: str, date: str, ticker: str, channel: str, claims: Sequence[Claim]) -> TickerDay | None:
    channel = channel or channel_of(claims)
    start_ns = _start_ns(date)
    found = painted(claims, channel, start_ns, start_ns + _DAY_NS) if channel else ()
    if not found:
        return None
    total = sums(found)
    return TickerDay(
        feed, date, ticker, channel, total["verified"], total["unverifiable"], total["missing"], total["repaired"],
        tuple(IntervalLine(*one) for one in found),
    )  # fmt: skip


def _start_ns(date: str) -> int:
    return (calendar_date.fromisoformat(date).toordinal() - _EPOCH) * _DAY_NS


async def _claims(views: Views, feed: str, date: str, known_ns: int) -> _Claims:
    page = await views.read(quality_view.NAME, prefixes=[intervals_view.intervals_prefix(feed, date)])
    rows = [decode_row(value, IntervalRow) for value in page.rows.values()]
    page = await views.read(gaps_view.NAME, prefixes=gaps_view.gaps_prefixes(feed, date))
    gaps = [gap for gap in (decode_row(value, GapRow) for value in page.rows.values()) if gap.touches(date)]
    sets = {connection: await _sets(views, feed, connection, rows) for connection in {row.connection for row in rows}}
    by_id = {(gap.connection, gap.gap_id): gap for gap in gaps}
    claims = _Claims()
    for row in rows:
        members = sets[row.connection].members(row.ticker_set)
        if row.verdict == "repaired" and not members:
            claims.of_all.append((row.claim, frozenset()))
            continue
        gap = by_id.get((row.connection, row.gap_id)) if row.is_before else None
        if gap is not None and gap.opened_position and not gap.is_whole:
            # The session that ended knew whom it had; the one that tells the end does not.
            members = frozenset(ticker for ticker in members if ticker in gap.tickers)
        claims.named.append((row.claim, members))
    until_ns = known_ns or max(claims.last_ns, max((gap.start_ns for gap in gaps), default=0))
    for gap in gaps:
        if gap.is_open and gap.start_ns < until_ns:
            claim = Claim(
                gap.connection, gap.channel, "missing", gap.cause, gap.gap_id, gap.start_ns, until_ns, gap.session, is_open=True
            )
            if gap.is_whole:
                claims.of_all.append((claim, frozenset(gap.tickers)))
            else:
                claims.named.append((claim, frozenset(ticker for ticker, end_ns in gap.tickers.items() if not end_ns)))
    return claims


async def _sets(views: Views, feed: str, connection: str, rows: Iterable[IntervalRow]) -> KnownSets:
    """The sets that the rows name, and those they are made of."""
    found: dict[str, TickerSet] = {}
    wanted = {row.ticker_set for row in rows if row.connection == connection}
    while wanted:
        keys = {intervals_view.set_key(feed, connection, name): name for name in wanted}
        page = await views.read(quality_view.NAME, keys=sorted(keys))
        fresh = {keys[key]: decode_row(value, TickerSet) for key, value in page.rows.items()}
        found |= fresh
        wanted = {one.base for one in fresh.values() if one.base} - found.keys()
    return KnownSets(found)
