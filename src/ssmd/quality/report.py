"""What was measured, as one document: measures with method and threshold, the score with its formula, ticker by ticker.

`assemble` is a pure function of the measures of the day's connections, so that the same archive gives the same report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Literal

import msgspec

from ssmd.quality.books import CROSSED_NS_MAX
from ssmd.quality.coverage import Repair, Span, Verdict, sums
from ssmd.quality.measure import BOOK, SILENCE_NS_MAX, TRADE, ConnectionMeasure, Counts, TickerWatch
from ssmd.quality.prices import GridRange
from ssmd.quality.score import (
    FORMULA,
    RULES,
    Part,
    books_part,
    coverage_part,
    records_part,
    score_of,
    sequence_part,
    trades_part,
)
from ssmd.quality.sequences import SequenceProof
from ssmd.quality.trades import TradeMatch

Standing = Literal["ok", "attention", "not run"]
_NS: Final = 10**9


class Measure(msgspec.Struct, frozen=True):
    """One thing that was measured. `value` in words with its unit; `threshold` "" = it is told, not judged."""

    name: str
    value: str
    standing: Standing
    method: str
    threshold: str


class TickerQuality(msgspec.Struct, frozen=True):
    """One ticker. Durations in nanoseconds; `spans`: (start, end, verdict), UTC nanoseconds, half open.

    `off_grid` None = the venue did not tell the market's price grid; `trades` None = not held against the venue's list.
    """

    ticker: str
    connection: str
    channel: str
    records: int
    verified_ns: int
    unverifiable_ns: int
    missing_ns: int
    repaired_ns: int
    quiet_ns: int
    crossed: int
    crossed_ns: int
    crossed_long: int
    negative: int
    off_grid: int | None
    duplicate_trades: int
    trades: TradeMatch | None
    spans: tuple[Span, ...]


class Reconciliation(msgspec.Struct, frozen=True):
    """Trades against the venue's list. `is_run` False = `why_not` says why; `tickers`: how many were asked for."""

    is_run: bool
    why_not: str
    tickers: int
    held: int
    told: int
    matched: int
    differing: int
    missing: int
    missing_in_gaps: int
    at_edges: int
    extra: int
    match_rate_ppm: int | None


class QualityReport(msgspec.Struct, frozen=True):
    """A day's quality. Times are UTC nanoseconds of receiving; `first_ns`..`last_ns` is what was assessed.

    Attributes:
        score_ppm: in millionths; parts, formula: how it came about.
        reasons: why it is not better, in words, the heaviest first.
        sequences: every count of the venue's; tickers: by name.
    """

    feed: str
    date: str
    rules: int
    connections: tuple[str, ...]
    first_ns: int
    last_ns: int
    score_ppm: int
    formula: str
    parts: tuple[Part, ...]
    measures: tuple[Measure, ...]
    reasons: tuple[str, ...]
    reconciliation: Reconciliation
    sequences: tuple[SequenceProof, ...]
    tickers: tuple[TickerQuality, ...]
    verified_ns: int
    unverifiable_ns: int
    missing_ns: int
    repaired_ns: int


class Told(msgspec.Struct, frozen=True):
    """What others told: the venue's trades against ours by (connection, ticker), and grids the archive lacks.

    `matches` None = not run, `why_not`.
    """

    matches: Mapping[tuple[str, str], TradeMatch] | None
    why_not: str = ""
    grids: Mapping[str, tuple[GridRange, ...]] = {}


def assemble(
    feed: str, date: str, measures: Sequence[ConnectionMeasure], told: Told, repairs: Sequence[Repair] = ()
) -> QualityReport:
    """The report on all connections of a day, whose entries have all been taken."""
    tickers: list[TickerQuality] = []
    for measure in measures:
        grids = {**told.grids, **measure.grids}
        for ticker, spans in measure.spans(repairs=repairs).items():
            match = None if told.matches is None else told.matches.get((measure.connection, ticker))
            channel = measure.account.channel_of(ticker)
            watch = measure.tickers[ticker]
            tickers.append(_ticker(measure.connection, ticker, channel, watch, spans, grids.get(ticker), match))
    tickers.sort(key=lambda one: (one.ticker, one.connection))
    return _report(feed, date, measures, tickers, _reconciliation(told, {measure.connection for measure in measures}))


def _ticker(
    connection: str,
    ticker: str,
    channel: str,
    watch: TickerWatch,
    spans: tuple[Span, ...],
    grid: tuple[GridRange, ...] | None,
    match: TradeMatch | None,
) -> TickerQuality:
    total: dict[Verdict, int] = sums(spans)
    book = watch.book
    return TickerQuality(
        ticker=ticker,
        connection=connection,
        channel=channel,
        records=watch.records,
        verified_ns=total["verified"],
        unverifiable_ns=total["unverifiable"],
        missing_ns=total["missing"],
        repaired_ns=total["repaired"],
        quiet_ns=watch.quiet_ns,
        crossed=book.crossed,
        crossed_ns=book.crossed_ns,
        crossed_long=book.crossed_long,
        negative=book.negative,
        off_grid=sum(watch.prices.off_grid(grid).values()) if grid else None,
        duplicate_trades=watch.trades.duplicates,
        trades=match,
        spans=spans,
    )


def _reconciliation(told: Told, connections: AbstractSet[str]) -> Reconciliation:
    matches = [match for (connection, _), match in (told.matches or {}).items() if connection in connections]
    names = ("held", "told", "matched", "differing", "missing", "missing_in_gaps", "at_edges", "extra")
    total = {name: sum(getattr(match, name) for match in matches) for name in names}
    part = trades_part(total["matched"], total["differing"], total["missing"], total["extra"], is_run=told.matches is not None)
    return Reconciliation(
        is_run=told.matches is not None, why_not=told.why_not, tickers=len(matches), match_rate_ppm=part.ppm, **total
    )


def _report(
    feed: str,
    date: str,
    measures: Sequence[ConnectionMeasure],
    tickers: Sequence[TickerQuality],
    trades: Reconciliation,
) -> QualityReport:
    def total(name: str) -> int:
        return sum(getattr(one, name) or 0 for one in tickers)

    counts = [measure.counts for measure in measures]
    proofs = [proof for measure in measures for proof in measure.proofs()]
    durations = [total(f"{verdict}_ns") for verdict in ("verified", "unverifiable", "missing", "repaired")]
    records = sum(sum(one.records.values()) for one in counts)
    books_ns = sum(one.verified_ns + one.unverifiable_ns for one in tickers if one.channel == BOOK)
    parts = (
        coverage_part(*durations),
        sequence_part(*(sum(getattr(proof, name) for proof in proofs) for name in ("frames", "missing", "duplicates", "late"))),
        records_part(
            records, sum(one.unmapped for one in counts), total("negative"), total("off_grid"), total("duplicate_trades")
        ),
        books_part(books_ns, total("crossed_ns")),
        trades_part(
            trades.matched, trades.differing, trades.missing, trades.extra, is_run=trades.is_run, why_not=trades.why_not
        ),
    )
    told = _measures(counts, proofs, tickers, trades)
    return QualityReport(
        feed=feed,
        date=date,
        rules=RULES,
        connections=tuple(measure.connection for measure in measures),
        first_ns=min((one.first_ns for one in counts if one.first_ns), default=0),
        last_ns=max((one.last_ns for one in counts), default=0),
        score_ppm=score_of(parts),
        formula=FORMULA,
        parts=parts,
        measures=told,
        reasons=_reasons(parts, told, durations),
        reconciliation=trades,
        sequences=tuple(proofs),
        tickers=tuple(tickers),
        verified_ns=durations[0],
        unverifiable_ns=durations[1],
        missing_ns=durations[2],
        repaired_ns=durations[3],
    )


def seconds(nanoseconds: int) -> str:
    """Exact to the millisecond, rounded down: "12.345 s"."""
    return f"{nanoseconds // _NS:,}.{nanoseconds // 10**6 % 1000:03} s"


def percent(ppm: int | None) -> str:
    """Millionths as a percentage, rounded down to four digits; "not run" for None."""
    return "not run" if ppm is None else f"{ppm // 10_000}.{ppm % 10_000:04} %"


def _judged(name: str, count: int, value: str, method: str, threshold: str = "0") -> Measure:
    return Measure(name, value, "attention" if count else "ok", method, threshold)


def _measures(
    counts: Sequence[Counts], proofs: Sequence[SequenceProof], tickers: Sequence[TickerQuality], trades: Reconciliation
) -> tuple[Measure, ...]:
    return (*_covered(tickers), *_counted(counts, proofs), *_sound(counts, tickers), *_quiet(counts, tickers), _traded(trades))


def _covered(tickers: Sequence[TickerQuality]) -> tuple[Measure, ...]:
    def total(name: str) -> int:
        return sum(getattr(one, name) for one in tickers)

    missing = total("missing_ns")
    how = "covered time of a ticker whose subscription the venue counts, from its acknowledgement on, with no number absent"
    return (
        Measure("verified", f"{seconds(total('verified_ns'))} over {len(tickers)} tickers", "ok", how, ""),
        _judged(
            "unverifiable",
            total("unverifiable_ns"),
            seconds(total("unverifiable_ns")),
            "covered time of subscriptions that the venue does not count, or whose beginning is not archived",
            "0 s",
        ),
        _judged("missing", missing, seconds(missing), "from a hole's last proven moment until its end, for each ticker", "0 s"),
        Measure("repaired", seconds(total("repaired_ns")), "ok", "parts of holes that the journal says were filled", ""),
    )


def _counted(counts: Sequence[Counts], proofs: Sequence[SequenceProof]) -> tuple[Measure, ...]:
    frames = sum(proof.frames for proof in proofs)
    counted = [proof for proof in proofs if proof.frames]
    proven = sum(proof.is_proven for proof in counted)
    missing, duplicates, late = (sum(getattr(proof, name) for proof in proofs) for name in ("missing", "duplicates", "late"))
    drifts = sum(one.drifts for one in counts)
    names = sorted({name for one in counts for name in one.drift_names})
    shown = f" ({', '.join(names[:5])})" if names else ""
    lost = sum(one.entries_missing for one in counts)
    return (
        Measure(
            "sequence proof",
            f"{proven} of {len(counted)} counts proven, {frames:,} frames in order, {missing:,} missing;"
            f" {len(proofs) - len(counted)} subscriptions without a counted frame",
            "not run" if not counted else "ok" if proven == len(counted) and not missing else "attention",
            "the numbers of each subscription's frames, read from the raw lines, acknowledgements included",
            "all proven, 0 missing",
        ),
        _judged("duplicates", duplicates, f"{duplicates:,} frames", "a number of the same count that came before"),
        _judged("out of order", late, f"{late:,} frames", "a number below the highest of its count, not seen before"),
        _judged(
            "drift",
            drifts,
            f"{drifts:,} findings{shown}",
            "what the mapper could not fit: type, field or value unknown; told once a session each",
        ),
        _judged(
            "unmapped frames",
            sum(one.unmapped + one.unreadable for one in counts),
            f"{sum(one.unmapped for one in counts):,} counted frames, {sum(one.unreadable for one in counts):,} unreadable",
            "counted frames that became no record: each is a hole of its ticker",
        ),
        _judged("raw entries missing", lost, f"{lost:,} entries", "numbers of tape entries that the raw archive lacks"),
    )


def _sound(counts: Sequence[Counts], tickers: Sequence[TickerQuality]) -> tuple[Measure, ...]:
    crossed, length = sum(one.crossed for one in tickers), sum(one.crossed_ns for one in tickers)
    long = sum(one.crossed_long for one in tickers)
    negative = sum(one.negative for one in tickers)
    asked = [one for one in tickers if one.off_grid is not None]
    off = sum(one.off_grid or 0 for one in asked)
    twice = sum(one.duplicate_trades for one in tickers)
    steps = sum(one.clock_steps + one.time_backwards for one in counts)
    grid = Measure(
        "price grid",
        f"{off:,} prices off the grid, {len(asked)} of {len(tickers)} tickers have a known grid",
        "not run" if not asked else "attention" if off else "ok",
        "every price of trades, book changes and snapshots against the grids the venue told for the market",
        "0",
    )
    return (
        _judged(
            "crossed books",
            long,
            f"{crossed:,} times, {seconds(length)} in all, {long:,} times too long",
            "best bid not below best ask, book folded change by change; receive times",
            f"longer than {seconds(CROSSED_NS_MAX)}: 0 times",
        ),
        _judged("negative levels", negative, f"{negative:,} changes", "changes that left a level of the book below zero"),
        grid,
        _judged("trades twice", twice, f"{twice:,} trades", "a trade id of the ticker that came before"),
        _judged("clock", steps, f"{steps:,} steps", "clock-stepped facts, and entries received before the one before them"),
    )


def _quiet(counts: Sequence[Counts], tickers: Sequence[TickerQuality]) -> tuple[Measure, ...]:
    silences = sum(one.silences for one in counts)
    longest = max((one.longest_silence_ns for one in counts), default=0)
    quiet = max(tickers, key=lambda one: one.quiet_ns, default=None)
    return (
        _judged(
            "staleness",
            silences,
            f"{silences:,} silences, the longest {seconds(longest)}",
            "time between two frames of a connection while it was connected",
            f"{seconds(SILENCE_NS_MAX)}",
        ),
        Measure(
            "quietest ticker",
            "none" if quiet is None else f"{quiet.ticker}: {seconds(quiet.quiet_ns)}",
            "ok",
            "the longest time between two records of one ticker within a session; markets may be quiet",
            "",
        ),
    )


def _traded(trades: Reconciliation) -> Measure:
    method = f"the venue's own list of trades of each ticker, by trade id, price, size and side; channel {TRADE}"
    threshold = "match rate 100 %, 0 missing, 0 extra"
    if not trades.is_run:
        return Measure("trade reconciliation", f"not run: {trades.why_not}", "not run", method, threshold)
    bad = trades.differing + trades.missing + trades.extra
    value = (
        f"{percent(trades.match_rate_ppm)} of {trades.tickers} tickers' trades: {trades.matched:,} matched,"
        f" {trades.differing:,} differ, {trades.missing:,} missing, {trades.extra:,} extra;"
        f" {trades.missing_in_gaps:,} missing in known holes, {trades.at_edges:,} at their edges"
    )
    return _judged("trade reconciliation", bad, value, method, threshold)


def _reasons(parts: Sequence[Part], measures: Sequence[Measure], durations: Sequence[int]) -> tuple[str, ...]:
    weighed = [(part.weight * (1_000_000 - part.ppm), part) for part in parts if part.ppm is not None and part.ppm < 1_000_000]
    weighed.sort(key=lambda pair: (-pair[0], pair[1].name))
    reasons = [f"{part.name} {percent(part.ppm)}: {part.how}" for _, part in weighed]
    reasons += [f"{part.name} not run: {part.how}" for part in parts if part.ppm is None]
    reasons += [f"{one.name}: {one.value}" for one in measures if one.standing == "attention"]
    if not sum(durations):
        reasons.insert(0, "nothing was captured for any ticker")
    return tuple(reasons)
