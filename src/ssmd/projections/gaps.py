"""View `gaps`: every hole, with cause, evidence and what it concerned.

    day/{feed}/{date}/{connection}/{gap id}   -> GapRow   closed, and within one UTC date
    span/{feed}/{connection}/{gap id}         -> GapRow   open, or reaching over midnight

A gap belongs to every date it touches: a date's gaps are those under `day` and those of `span` that overlap it, so that
a hole of many days is one row and one that is open needs none for the days to come.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from ssmd.domain import capture
from ssmd.identifiers import encode_token
from ssmd.projections.projection import Projection, Rows, id_parts, row_prefix, utc_date
from ssmd.streams.journal import RecordedEvent

NAME: Final = "gaps"
_DAY: Final = "day"
_SPAN: Final = "span"


class GapFilling(msgspec.Struct, frozen=True, gc=False):
    """Part of a hole that was filled from elsewhere. `tickers` empty = for all it concerned."""

    source: str
    start_ns: int
    end_ns: int
    records: int
    tickers: tuple[str, ...]
    evidence: str


class GapRow(msgspec.Struct, frozen=True, gc=False):
    """One hole.

    Attributes:
        start_ns: receive time of the last entry before the hole that is proven good.
        end_ns: receive time of the entry that ended it for the last ticker, 0 = it is open for some.
        tickers: ticker -> when it ended for it, 0 = open. Without a ticker filter ("all of the channel", or of the
            session where `channel` is "") `is_whole` is set and `tickers` names only those it ended for by name.
        session: in which it was noticed.
        seq_expected, seq_found: 0 = the channel has no sequence.
        opened_position: 0 = only its end was recorded.
        repairs: what was filled since, in journal order.
    """

    gap_id: str
    feed: str
    connection: str
    session: int
    cause: str
    evidence: str
    channel: str
    sid: int
    seq_expected: int
    seq_found: int
    start_ns: int
    end_ns: int
    is_whole: bool
    tickers: dict[str, int]
    opened_position: int
    position: int
    repairs: tuple[GapFilling, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.end_ns == 0

    def touches(self, date: str) -> bool:
        """Whether any of it lies on the UTC `date` (an open one on every date from its start)."""
        return utc_date(self.start_ns) <= date and (self.is_open or date <= utc_date(self.end_ns))

    def concerns(self, ticker: str) -> bool:
        return self.is_whole or ticker in self.tickers

    def as_seen_by(self, ticker: str) -> GapRow:
        """The same hole with the end it had for one ticker it concerns."""
        end_ns = self.tickers.get(ticker) or (self.end_ns if self.is_whole else 0)
        mine = tuple(one for one in self.repairs if not one.tickers or ticker in one.tickers)
        return msgspec.structs.replace(self, end_ns=end_ns, is_whole=False, tickers={ticker: end_ns}, repairs=mine)


@lru_cache(1 << 10)
def _span_prefix(feed: str, connection: str) -> str:
    return row_prefix(_SPAN, feed, connection)


@lru_cache(1 << 10)
def _day_prefix(feed: str, connection: str, date: str) -> str:
    return row_prefix(_DAY, feed, date, connection)


def gaps_prefixes(feed: str, date: str) -> tuple[str, str]:
    """Prefixes under which all gaps that touch `date` are (and some that do not: ask `GapRow.touches`)."""
    return row_prefix(_DAY, feed, date), row_prefix(_SPAN, feed)


def all_gaps_prefixes(feed: str) -> tuple[str, str]:
    """Prefixes of all of a feed's gaps."""
    return row_prefix(_DAY, feed), row_prefix(_SPAN, feed)


def is_gap_key(key: str) -> bool:
    """Whether the row at `key` is a `GapRow`."""
    return key.startswith((f"{_DAY}/", f"{_SPAN}/"))


# A union would take three times as long.
_TELLING: Final = (capture.GapOpened, capture.GapClosed, capture.GapRepaired)


def fold_gap(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> tuple[GapRow | None, GapRow | None]:
    """Fold an event that opens, closes or fills a gap.

    Returns:
        the gap before and after the event; (None, None) for other events and for news of nothing.
    """
    if not isinstance(event, _TELLING):
        return None, None
    feed, connection = id_parts(recorded.envelope)
    token = encode_token(event.gap_id)
    span_key = _span_prefix(feed, connection) + token
    event_date = utc_date(event.start_ns)
    day_key = _day_prefix(feed, connection, event_date) + token
    in_span, in_day = rows.get(span_key, GapRow), rows.get(day_key, GapRow)
    before = in_span or in_day
    if isinstance(event, capture.GapOpened):
        if before is not None and before.opened_position and not _is_further_part(before, event):
            return None, None
        after = _opened(before, feed, connection, event, recorded.position)
    elif isinstance(event, capture.GapRepaired):
        if before is None:
            return None, None  # nobody knows what was filled
        after = _repaired(before, event, recorded.position)
    else:
        after = _closed(before, feed, connection, event, recorded.position)
    after_key = span_key
    if after.end_ns:
        date = utc_date(after.start_ns)
        if date == utc_date(after.end_ns):
            after_key = day_key if date == event_date else _day_prefix(feed, connection, date) + token
    if in_span is not None and after_key != span_key:
        rows.delete(span_key)
    if in_day is not None and after_key != day_key:
        rows.delete(day_key)
    rows.put(after_key, after)
    return before, after


def _is_further_part(before: GapRow, event: capture.GapOpened) -> bool:
    """Whether the event names more tickers of a gap that is open already (`domain.fact_parts`)."""
    return not before.is_whole and any(ticker not in before.tickers for ticker in event.tickers)


def _opened(before: GapRow | None, feed: str, connection: str, event: capture.GapOpened, position: int) -> GapRow:
    is_whole = not event.tickers
    if before is None:
        tickers = dict.fromkeys(sorted(event.tickers) if len(event.tickers) > 1 else event.tickers, 0)
    else:
        ended = before.tickers
        named = before.tickers.keys() | event.tickers if before.opened_position else event.tickers
        tickers = ended if is_whole else {ticker: ended.get(ticker, 0) for ticker in sorted(named)}
    is_over = before is not None and not before.is_open and (before.is_whole if is_whole else all(tickers.values()))
    # By place and not by name, in the order of the fields: this is once per gap of a rebuild.
    return GapRow(
        event.gap_id,
        feed,
        connection,
        event.session,
        event.cause,
        event.evidence,
        event.channel,
        event.sid,
        event.seq_expected,
        event.seq_found,
        event.start_ns,
        before.end_ns if before is not None and is_over else 0,
        is_whole,
        tickers,
        position if before is None else before.opened_position or position,
        position,
        () if before is None else before.repairs,
    )


def _repaired(before: GapRow, event: capture.GapRepaired, position: int) -> GapRow:
    filling = GapFilling(event.source, event.start_ns, event.end_ns, event.records, event.tickers, event.evidence)
    return msgspec.structs.replace(before, repairs=(*before.repairs, filling), position=position)


def _closed(before: GapRow | None, feed: str, connection: str, event: capture.GapClosed, position: int) -> GapRow:
    gap = before or GapRow(
        gap_id=event.gap_id,
        feed=feed,
        connection=connection,
        session=event.session,
        cause="",
        evidence="",
        channel="",
        sid=0,
        seq_expected=0,
        seq_found=0,
        start_ns=event.start_ns,
        end_ns=0,
        is_whole=not event.tickers,
        tickers={},
        opened_position=0,
        position=position,
    )
    if event.tickers:
        tickers = dict(gap.tickers)
        # A later session tells of everybody it has; the hole was for those it was opened for.
        is_named = gap.opened_position > 0 and not gap.is_whole
        for ticker in event.tickers:
            if not is_named or ticker in tickers:
                tickers[ticker] = max(tickers.get(ticker, 0), event.end_ns)
        is_over = not gap.is_open or (not gap.is_whole and all(tickers.values()))
        end_ns = max(gap.end_ns, *tickers.values()) if is_over else 0
    else:
        tickers = {ticker: end or event.end_ns for ticker, end in gap.tickers.items()}
        end_ns = max(gap.end_ns, event.end_ns, *tickers.values())
    return msgspec.structs.replace(gap, tickers=tickers, end_ns=end_ns, position=position)


GAPS: Final = Projection(NAME, 3, frozenset({capture.AGGREGATE}), fold_gap)
