"""View `days`: where each trading day stands, and its history line by line.

    day/{date}               -> Day
    line/{date}/{position}   -> HistoryLine

A line belongs to the date it happened on in UTC: a trading-day or archive event to the date in its aggregate's id, a
capture event to the date of its receive time (a day-mark to the date it closes), any other to that of its envelope.
Single markets have a view of their own and no lines here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from ssmd.domain import (
    archive,
    capture,
    client,
    dead_letter,
    feedback,
    key,
    secmaster_sync,
    trading_day,
)
from ssmd.domain.trading_day import Phase, Status, Totals
from ssmd.projections.history_text import describe
from ssmd.projections.projection import Projection, Rows, id_parts, row_key, row_prefix, utc_date
from ssmd.streams.journal import RecordedEvent

NAME: Final = "days"
_DAY: Final = "day"
_LINE: Final = "line"


class DayStep(msgspec.Struct, frozen=True, gc=False):
    """A step done; `ts_ns` when."""

    phase: Phase
    step: str
    detail: str
    ts_ns: int


class Day(msgspec.Struct, frozen=True):
    """A trading day. A time of 0: it has not come to that (in the latest attempt).

    Attributes:
        steps: of the latest start and the latest end, in order.
        error: why it stopped, "" unless `status` is error.
        start_due_ns, end_due_ns: as the schedule has them; late: phases that began after that.
        started_by, ended_by: the actors who asked; with the reasons they gave.
        config: git commit of the registry at the latest event; position: journal position of that event.
    """

    date: str
    status: Status = "pending"
    error: str = ""
    start_requested_ns: int = 0
    started_by: str = ""
    start_reason: str = ""
    activated_ns: int = 0
    end_requested_ns: int = 0
    ended_by: str = ""
    end_reason: str = ""
    completed_ns: int = 0
    errored_ns: int = 0
    steps: tuple[DayStep, ...] = ()
    totals: Totals | None = None
    config: str = ""
    position: int = 0
    start_due_ns: int = 0
    end_due_ns: int = 0
    late: tuple[Phase, ...] = ()


class HistoryLine(msgspec.Struct, frozen=True, gc=False):
    """Who did what, when, why.

    Attributes:
        at_ns: when it happened (a capture event: the receive time on the tape); recorded_ns: when it was journaled.
        actor: who. what: in words. subject: the aggregate ("capture/kalshi.main").
        correlation_id, causation_id: why, see `domain.envelope.Envelope`; `event_id`: what others name as their cause.
    """

    position: int
    at_ns: int
    recorded_ns: int
    actor: str
    type: str
    subject: str
    what: str
    correlation_id: str
    causation_id: str
    config: str
    event_id: str = ""


def day_key(date: str) -> str:
    """Key of a `Day`."""
    return row_key(_DAY, date)


DAYS_PREFIX: Final = row_prefix(_DAY)


def lines_prefix(date: str) -> str:
    """Prefix of a date's `HistoryLine`s, in journal order."""
    return row_prefix(_LINE, date)


@lru_cache(1 << 10)
def _lines_prefix(date: str) -> str:
    return lines_prefix(date)


def _fold(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    if isinstance(event, capture.IntervalAssessed):
        return  # an account, nobody's deed; what happened has its own event
    position, envelope, _ = recorded
    ts_ns = at_ns = envelope.ts_ns
    aggregate = envelope.aggregate
    if isinstance(event, capture.CaptureEvent):
        at_ns = event.ts_recv_ns
        date = event.date if isinstance(event, capture.DayMarked) else utc_date(at_ns)
    else:
        date = _date_of(recorded)
    # By place and not by name, in the order of the fields: this is once per event of a rebuild.
    line = HistoryLine(
        position,
        at_ns,
        ts_ns,
        envelope.actor,
        envelope.type,
        f"{aggregate}/{envelope.aggregate_id}",
        describe(event),
        envelope.correlation_id,
        envelope.causation_id,
        envelope.config,
        envelope.id,
    )
    rows.add(f"{_lines_prefix(date)}{position:020}", line)
    if aggregate == trading_day.AGGREGATE:
        day = rows.get(day_key(date), Day) or Day(date)
        day = _evolve(day, event, ts_ns, envelope.actor)
        rows.put(day_key(date), msgspec.structs.replace(day, config=envelope.config, position=position))


def _date_of(recorded: RecordedEvent) -> str:
    envelope = recorded.envelope
    match envelope.aggregate:
        case trading_day.AGGREGATE:
            return id_parts(envelope)[0]
        case archive.AGGREGATE:
            return id_parts(envelope)[1]
        case _:
            return utc_date(envelope.ts_ns)


def _evolve(day: Day, event: msgspec.Struct, ts_ns: int, actor: str) -> Day:
    replace = msgspec.structs.replace
    match event:
        case trading_day.StartRequested(reason=reason):
            return Day(
                day.date,
                "starting",
                start_requested_ns=ts_ns,
                started_by=actor,
                start_reason=reason,
                start_due_ns=day.start_due_ns,
                end_due_ns=day.end_due_ns,
            )
        case trading_day.StepCompleted(phase=phase, step=step, detail=detail):
            return replace(day, steps=(*day.steps, DayStep(phase, step, detail, ts_ns)))
        case trading_day.Activated():
            return replace(day, status="active", activated_ns=ts_ns)
        case trading_day.EndRequested(reason=reason):
            return replace(
                day,
                status="ending",
                error="",
                errored_ns=0,
                end_requested_ns=ts_ns,
                ended_by=actor,
                end_reason=reason,
                steps=tuple(step for step in day.steps if step.phase == "start"),
            )
        case trading_day.Completed(totals=totals):
            return replace(day, status="complete", completed_ns=ts_ns, totals=totals)
        case trading_day.Errored(error=error):
            return replace(day, status="error", error=error, errored_ns=ts_ns)
        case _:
            return _evolve_by_schedule(day, event, ts_ns, actor)


def _evolve_by_schedule(day: Day, event: msgspec.Struct, ts_ns: int, actor: str) -> Day:
    replace = msgspec.structs.replace
    match event:
        case trading_day.Opened(start_due_ns=start_due_ns, end_due_ns=end_due_ns):
            return replace(day, start_due_ns=start_due_ns, end_due_ns=end_due_ns)
        case trading_day.Missed(reason=reason):
            return replace(day, status="missed", error=reason, errored_ns=ts_ns)
        case trading_day.Late(phase=phase):
            return replace(day, late=(*day.late, phase))
        case trading_day.Failed(error=error):
            return replace(day, status="failed", error=error, errored_ns=ts_ns)
        case trading_day.Recovered(status=status):
            return replace(day, status=status, error="", errored_ns=0)
        case trading_day.ForceEnded(reason=reason):
            return replace(day, status="force-ended", ended_by=actor, end_reason=reason, completed_ns=ts_ns)
        case _:
            return day


# Without the views' own events (`domain.projection`): a rebuild tells the journal about itself, and must not change the
# answer that it rebuilds.
DAYS: Final = Projection(
    NAME,
    3,
    frozenset(
        {
            trading_day.AGGREGATE,
            capture.AGGREGATE,
            archive.AGGREGATE,
            secmaster_sync.AGGREGATE,
            key.AGGREGATE,
            client.AGGREGATE,
            dead_letter.AGGREGATE,
            feedback.AGGREGATE,
            "environment",
        }
    ),
    _fold,
)
