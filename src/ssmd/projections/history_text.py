"""Events in words, for the history of a day. One line each, deterministic, names and figures included."""

from __future__ import annotations

import msgspec

from ssmd.domain import archive, capture, trading_day
from ssmd.projections.projection import utc_text

_TICKERS_NAMED_MAX = 3


def describe(event: msgspec.Struct) -> str:
    """What happened, as one line; an event nobody taught it is named by its fields."""
    match event:
        case capture.CaptureEvent():
            return _capture(event)
        case archive.Opened() | archive.SegmentPlanned() | archive.SegmentSealed() | archive.Completed() | archive.Reopened():
            return _archive(event)
        case _:
            return _trading_day(event)


def _capture(event: capture.CaptureEvent) -> str:
    match event:
        case capture.Connected(url=url, instance=instance, epoch=epoch):
            return f"connected to {url} as session {event.session} ({instance}, epoch {epoch})"
        case capture.Subscribed(channel=channel, tickers=tickers, sid=sid):
            return f"subscribed to {channel} for {_tickers(tickers)} (sid {sid})"
        case capture.Disconnected(cause=cause, evidence=evidence, code=code):
            closed = f", close code {code}" if code else ""
            return f"disconnected: {cause}{closed}{_because(evidence)}"
        case capture.GapOpened():
            sequence = f", expected {event.seq_expected}, found {event.seq_found}" if event.seq_expected else ""
            where = f" on {event.channel}" if event.channel else ""
            return (
                f"gap {event.gap_id} opened{where} for {_tickers(event.tickers)} from {utc_text(event.start_ns)}:"
                f" {event.cause}{sequence}{_because(event.evidence)}"
            )
        case capture.GapClosed():
            end = utc_text(event.end_ns)
            return f"gap {event.gap_id} closed for {_tickers(event.tickers)} at {end} after {_seconds(event)} s"
        case capture.DriftDetected():
            return f"drift: {event.what} in {event.frame_type}.{event.field}{_because(event.detail)}"
        case capture.ClockStepped(step_ns=step_ns):
            return f"the wall clock stepped by {step_ns} ns"
        case capture.TailCut(size_bytes=size_bytes):
            return f"{size_bytes} bytes that were no whole block were cut off the tape"
        case capture.DayMarked(date=date):
            return f"no further entry of {date} will come"
        case _:
            return _fields(event)


def _archive(event: msgspec.Struct) -> str:
    match event:
        case archive.Opened(instance=instance, epoch=epoch):
            return f"archive opened by {instance}, epoch {epoch}"
        case archive.SegmentPlanned(first_seq=first, last_seq=last, reason=reason):
            return f"cut planned at messages {first}..{last}: {reason}"
        case archive.SegmentSealed(files=files, first_seq=first, last_seq=last):
            records = sum(file.records for file in files)
            size = sum(file.size_bytes for file in files)
            return f"sealed messages {first}..{last}: {len(files)} files, {records} records, {size} bytes"
        case archive.Completed(reason=reason, segments=segments, records=records, size_bytes=size):
            return f"complete ({reason}): {segments} segments, {records} records, {size} bytes"
        case archive.Reopened(reason=reason):
            return f"reopened: {reason}"
        case _:
            return _fields(event)


def _trading_day(event: msgspec.Struct) -> str:
    match event:
        case trading_day.StartRequested(reason=reason):
            return f"start requested{_because(reason)}"
        case trading_day.StepCompleted(phase=phase, step=step, detail=detail):
            return f"{phase}: {step} done{_because(detail)}"
        case trading_day.Activated():
            return "active: the day takes data"
        case trading_day.EndRequested(reason=reason):
            return f"end requested{_because(reason)}"
        case trading_day.Completed(totals=totals):
            records = sum(totals.records.values())
            return (
                f"complete: {totals.messages} messages, {records} records, {totals.segments} segments,"
                f" {totals.size_bytes} bytes, {totals.gaps} gaps"
            )
        case trading_day.Errored(status=status, error=error):
            return f"error while {status}: {error}"
        case _:
            return _fields(event)


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _tickers(tickers: tuple[str, ...]) -> str:
    if not tickers:
        return "all tickers"
    named = ", ".join(tickers[:_TICKERS_NAMED_MAX])
    more = len(tickers) - _TICKERS_NAMED_MAX
    return f"{named} and {more} more" if more > 0 else named


def _seconds(event: capture.GapClosed) -> str:
    seconds, rest = divmod(max(0, event.end_ns - event.start_ns), 1_000_000_000)
    return f"{seconds}.{rest // 1_000_000:03}"


def _fields(event: msgspec.Struct) -> str:
    return ", ".join(f"{name} {value}" for name, value in msgspec.structs.asdict(event).items())
