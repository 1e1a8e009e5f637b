"""A day's quality measured from its raw lines, held against the venue's list of trades, and journaled.

Every line of the date is read once and given to the mapper and to `quality.measure`; sessions that began on an earlier
date are read from there. What is kept grows with tickers and trades (16 bytes a trade), not with frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date as calendar_date
from datetime import timedelta
from typing import Final

from ssmd.application.handler import Application
from ssmd.archive.backfilled import is_backfill
from ssmd.archive.reading import raw_chains, raw_lines, segment_content
from ssmd.archive.shelf_manifest import raw_shelf, read_manifest
from ssmd.archive.storage import Storage
from ssmd.clock import DayCalendar
from ssmd.domain import archive
from ssmd.errors import Rejected, Unavailable
from ssmd.exchanges.adapter import Mapper
from ssmd.exchanges.kalshi.evidence import frame_place
from ssmd.projections.queries import GapLine
from ssmd.quality.coverage import Repair
from ssmd.quality.measure import TRADE, ConnectionMeasure, Reader
from ssmd.quality.report import QualityReport, Told, assemble
from ssmd.quality.trades import TradeMatch
from ssmd.schemas.raw_line import read_lines
from ssmd.services.venue_trades import VenueTrades, grid_of_detail, tickers_by_trades
from ssmd.streams.journal import Journal, PoisonEvent

MakeMapper = Callable[[int], Mapper]
Progress = Callable[[str, int, int], None]
"""Told (what is being done, how much is done, of how much; 0 = not known)."""

DAYS_BACK_MAX: Final = 31
RECONCILED_MAX: Final = 500
"""Tickers whose trades are asked for, those with most trades first: each costs a request at least."""
_PAD_NS: Final = 60 * 10**9
READER: Final = Reader(frame_place, grid_of_detail)


class Assessed:
    """What a day came to. `by_connection`: the same for each connection alone, as it is journaled."""

    def __init__(self, report: QualityReport, by_connection: dict[str, QualityReport]) -> None:
        self.report = report
        self.by_connection = by_connection


async def measure_day(
    storage: Storage, env: str, feed: str, date: str, zone: str, make_mapper: MakeMapper, progress: Progress
) -> list[ConnectionMeasure]:
    """Every connection of the date, measured, by name.

    Raises:
        Rejected: "nothing-archived".
        Malformed, Unavailable: a segment is damaged or absent, or the storage is away.
    """
    calendar = DayCalendar(zone)
    day = calendar_date.fromisoformat(date)
    start_ns, end_ns = calendar.start_ns(day), calendar.start_ns(day + timedelta(days=1))
    dates, lines_of_all = await _dates(storage, env, feed, date, calendar)
    measures: dict[str, ConnectionMeasure] = {}
    mappers: dict[tuple[str, int], tuple[Mapper, int]] = {}
    latest: dict[str, int] = {}
    done = 0
    for on_date in dates:
        async for lines in raw_lines(storage, raw_shelf(env, feed, on_date)):
            for connection, session, entry in lines:
                if is_backfill(connection):
                    continue  # asked for afterwards: it says nothing of what was captured
                measure = measures.get(connection)
                if measure is None:
                    measure = measures[connection] = ConnectionMeasure(connection, start_ns, end_ns, READER)
                key = connection, session
                before = latest.setdefault(connection, session)
                if session > before:
                    measure.end(mappers[connection, before][0], is_last=False)
                    latest[connection] = session
                mapper, reached = mappers.get(key) or (make_mapper(session), 0)
                if entry.n != reached + 1 and (reached or on_date == date):
                    # What is missing was told; from here on nothing is known of the books, nor of the counts.
                    if reached:
                        measure.end(mapper, is_last=False)
                    measure.lost(session, entry.n - reached - 1, entry.ts_recv_ns)
                    mapper = make_mapper(session)
                mappers[key] = mapper, entry.n
                measure.take(session, entry, mapper.map(entry))
            done += len(lines)
            progress("entries read", done, lines_of_all)
    for name, measure in measures.items():
        measure.end(mappers[name, latest[name]][0], is_last=True)
        measure.close()
    return [measures[name] for name in sorted(measures)]


async def _dates(storage: Storage, env: str, feed: str, date: str, calendar: DayCalendar) -> tuple[list[str], int]:
    """The date, and those before it on which its first sessions began; and how many lines they have."""
    manifest = await read_manifest(storage, raw_shelf(env, feed, date))
    if manifest is None or not manifest.segments:
        raise Rejected("nothing-archived", f"nothing of {feed} is archived for {date}", mend="ssmd data inventory")
    first = calendar_date.fromisoformat(date)
    for chain in await raw_chains(storage, raw_shelf(env, feed, date)):
        async for content in segment_content(storage, chain[0].key, chain[0].segment):
            line = next(read_lines([content.partition(b"\n")[0]]))
            first = min(first, calendar_date.fromisoformat(calendar.day_of(line.session)[0]))
            break
    last = calendar_date.fromisoformat(date)
    first = max(first, last - timedelta(days=DAYS_BACK_MAX))
    dates, lines = [], 0
    for number in range((last - first).days + 1):
        on_date = (first + timedelta(days=number)).isoformat()
        held = await read_manifest(storage, raw_shelf(env, feed, on_date))
        if held is not None and held.segments:
            dates.append(on_date)
            lines += held.record_count
    return dates, lines


async def reconcile(measures: Sequence[ConnectionMeasure], venue: VenueTrades, progress: Progress) -> Told:
    """Hold each ticker's trades against the venue's list; a venue that cannot be asked is said so, not raised."""
    try:
        grids = await venue.grids(sorted({ticker for measure in measures for ticker in measure.tickers}))
        covered = {measure.connection: measure.spans(TRADE) for measure in measures}
        by_name = {measure.connection: measure for measure in measures}
        counts = [
            (name, ticker, len(by_name[name].tickers[ticker].trades)) for name, of_name in covered.items() for ticker in of_name
        ]
        if not counts:
            return Told(None, "trades were not captured", grids)
        matches: dict[tuple[str, str], TradeMatch] = {}
        asked = tickers_by_trades(counts, RECONCILED_MAX)
        for number, (name, ticker) in enumerate(asked, 1):
            spans = covered[name][ticker]
            if spans:
                told = await venue.trades(ticker, spans[0].start_ns - _PAD_NS, spans[-1].end_ns + _PAD_NS)
                matches[name, ticker] = by_name[name].tickers[ticker].trades.match(ticker, told, spans)
            progress("tickers' trades asked for", number, len(asked))
        left = len(counts) - len(asked)
        return Told(matches, f"{left} tickers with fewer trades were not asked for" if left else "", grids)
    except (Unavailable, Rejected) as error:
        return Told(None, f"the venue could not be asked: {error.message}")


def repairs_of(gaps: Sequence[GapLine]) -> list[Repair]:
    """What the journal says was filled. Books cannot be: only of a gap in trades alone is nothing missing afterwards."""
    return [
        Repair(gap.gap_id, repair.start_ns, repair.end_ns, frozenset(repair.tickers))
        for gap in gaps
        if gap.channel == "trade"
        for repair in gap.repairs
    ]


def assessed(feed: str, date: str, measures: Sequence[ConnectionMeasure], told: Told, repairs: Sequence[Repair]) -> Assessed:
    """The reports."""
    whole = assemble(feed, date, measures, told, repairs)
    return Assessed(whole, {one.connection: assemble(feed, date, [one], told, repairs) for one in measures})


_CHANGES: Final = (
    archive.SegmentSealed, archive.Completed, archive.Reopened, archive.Renormalized, archive.Repaired, archive.Pruned,
    archive.Damaged,
)  # fmt: skip


async def changed_at(journal: Journal, catalogue_decode: Callable[[str, bytes], object], feed: str, date: str) -> int:
    """Journal position of the last event that changed what is archived of the date, 0 = none did."""
    position = 0
    async for batch in journal.replay(filters=[archive.AGGREGATE]):
        for recorded in batch:
            if isinstance(recorded, PoisonEvent) or recorded.envelope.aggregate_key.parts[:2] != (feed, date):
                continue
            if isinstance(catalogue_decode(recorded.envelope.type, recorded.envelope.data), _CHANGES):
                position = recorded.position
    return position


async def journal_quality(application: Application, found: Assessed, until_position: int, actor: str) -> int:
    """Journal each connection's assessment; how many events that took (an equal one is not written again)."""
    written = 0
    for connection, report in found.by_connection.items():
        assessment = archive.QualityAssessed(
            rules=report.rules,
            score_ppm=report.score_ppm,
            tickers=len(report.tickers),
            verified_ns=report.verified_ns,
            unverifiable_ns=report.unverifiable_ns,
            missing_ns=report.missing_ns,
            repaired_ns=report.repaired_ns,
            until_position=until_position,
            reasons=report.reasons,
        )
        parts = (report.feed, report.date, "raw", connection)
        handled = await application.handle(archive.DECIDER, parts, archive.AssessQuality(assessment), actor=actor)
        written += len(handled.events)
    return written
