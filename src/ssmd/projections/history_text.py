"""Events in words, for the history of a day. One line each, deterministic, names and figures included."""

from __future__ import annotations

import msgspec

from ssmd.domain import archive, capture, trading_day
from ssmd.projections.history_text_control import because, describe_control
from ssmd.projections.projection import utc_text

_TICKERS_NAMED_MAX = 3


def describe(event: msgspec.Struct) -> str:
    """What happened, as one line; an event nobody taught it is named by its fields."""
    # The two of which there are by far the most: everything else is told apart by asking one type after the other.
    if isinstance(event, capture.GapOpened):
        return _gap_opened(event)
    if isinstance(event, capture.GapClosed):
        return _gap_closed(event)
    if isinstance(event, capture.CaptureEvent):
        return _capture(event)
    if isinstance(event, archive.EVENTS):
        return _archive(event)
    if isinstance(event, trading_day.EVENTS):
        return _trading_day(event)
    return describe_control(event) or _fields(event)


def _gap_opened(event: capture.GapOpened) -> str:
    sequence = f", expected {event.seq_expected}, found {event.seq_found}" if event.seq_expected else ""
    where = f" on {event.channel}" if event.channel else ""
    return (
        f"gap {event.gap_id} opened{where} for {_tickers(event.tickers)} from {utc_text(event.start_ns)}:"
        f" {event.cause}{sequence}{because(event.evidence)}"
    )


def _gap_closed(event: capture.GapClosed) -> str:
    end_ns = event.end_ns
    seconds, rest = divmod(max(0, end_ns - event.start_ns), 1_000_000_000)
    return (
        f"gap {event.gap_id} closed for {_tickers(event.tickers)} at {utc_text(end_ns)}"
        f" after {seconds}.{rest // 1_000_000:03} s"
    )


def _capture(event: capture.CaptureEvent) -> str:
    match event:
        case capture.Connected(url=url, instance=instance, epoch=epoch):
            return f"connected to {url} as session {event.session} ({instance}, epoch {epoch})"
        case capture.Subscribed(channel=channel, tickers=tickers, sid=sid):
            return f"subscribed to {channel} for {_tickers(tickers)} (sid {sid})"
        case capture.Disconnected(cause=cause, evidence=evidence, code=code):
            closed = f", close code {code}" if code else ""
            return f"disconnected: {cause}{closed}{because(evidence)}"
        case capture.DriftDetected():
            return f"drift: {event.what} in {event.frame_type}.{event.field}{because(event.detail)}"
        case capture.ClockStepped(step_ns=step_ns):
            return f"the wall clock stepped by {step_ns} ns"
        case capture.ClockOffset(offset_ns=offset_ns, before_ns=before_ns):
            return f"our clock is {offset_ns / 1e9:+.3f} s off the venue's times, it was {before_ns / 1e9:+.3f} s"
        case capture.TailCut(size_bytes=size_bytes):
            return f"{size_bytes} bytes that were no whole block were cut off the tape"
        case capture.DayMarked(date=date):
            return f"no further entry of {date} will come"
        case _:
            return _capture_care(event)


def _capture_care(event: capture.CaptureEvent) -> str:
    match event:
        case capture.Started(instance=instance, epoch=epoch, version=version):
            return f"capture started by {instance}, epoch {epoch}, version {version}"
        case capture.Stopped(instance=instance, cause=cause, detail=detail):
            return f"capture stopped by {instance}: {cause}{because(detail)}"
        case capture.GapRepaired(gap_id=gap_id, source=source, records=records, tickers=tickers):
            return f"gap {gap_id} repaired for {_tickers(tickers)}: {records} records from {source}"
        case capture.IntervalAssessed(verdict=verdict, channel=channel, start_ns=start_ns, end_ns=end_ns):
            what = channel or "every channel"
            return f"{what} is {verdict} from {utc_text(start_ns)} to {utc_text(end_ns)}{because(event.evidence)}"
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
            return _archive_care(event)


def _archive_care(event: msgspec.Struct) -> str:
    match event:
        case archive.Verified(objects=objects, size_bytes=size):
            return f"verified: {objects} objects, {size} bytes are as they were sealed"
        case archive.Damaged(key=key, problem=problem):
            return f"damaged: {key}: {problem}"
        case archive.Repaired(key=key, source=source):
            return f"repaired: {key} from {source}"
        case archive.Renormalized(mapper=mapper, files=files, differing=differing):
            return f"renormalized by mapper {mapper}: {len(files)} files, {differing} records differ"
        case archive.StreamRegressed(position=position, found_last=last, action=action):
            return f"the stream ends at message {last}, archived up to {position}: {action}"
        case archive.StreamTruncated(position=position, first_available=first, action=action):
            return f"the stream begins at message {first}, archived up to {position}: {action}"
        case archive.QualityAssessed(score_ppm=score, rules=rules, reasons=reasons):
            return f"quality {score // 10_000}.{score // 100 % 100:02} % by rules {rules}{because('; '.join(reasons))}"
        case _:
            return _archive_retention(event)


def _archive_retention(event: msgspec.Struct) -> str:
    match event:
        case archive.Held(name=name, reason=reason):
            return f'hold "{name}": {reason}'
        case archive.HoldReleased(name=name):
            return f'hold "{name}" released'
        case archive.Pruned(keys=keys, size_bytes=size, reason=reason):
            return f"pruned: {len(keys)} objects, {size} bytes{because(reason)}"
        case _:
            return _fields(event)


def _trading_day(event: msgspec.Struct) -> str:
    match event:
        case trading_day.StartRequested(reason=reason):
            return f"start requested{because(reason)}"
        case trading_day.StepCompleted(phase=phase, step=step, detail=detail):
            return f"{phase}: {step} done{because(detail)}"
        case trading_day.Activated():
            return "active: the day takes data"
        case trading_day.EndRequested(reason=reason):
            return f"end requested{because(reason)}"
        case trading_day.Completed(totals=totals):
            records = sum(totals.records.values())
            return (
                f"complete: {totals.messages} messages, {records} records, {totals.segments} segments,"
                f" {totals.size_bytes} bytes, {totals.gaps} gaps"
            )
        case trading_day.Errored(status=status, error=error):
            return f"error while {status}: {error}"
        case _:
            return _schedule(event)


def _schedule(event: msgspec.Struct) -> str:
    match event:
        case trading_day.Opened(start_due_ns=start_ns, end_due_ns=end_ns):
            until = f", to {utc_text(end_ns)}" if end_ns else ""
            return f"opened: due from {utc_text(start_ns)}{until}"
        case trading_day.Missed(due_ns=due_ns, reason=reason):
            return f"missed: nothing started it at {utc_text(due_ns)}{because(reason)}"
        case trading_day.Late(phase=phase, due_ns=due_ns):
            return f"late: its {phase} was due at {utc_text(due_ns)}"
        case trading_day.Failed(status=status, error=error, attempts=attempts):
            return f"failed while {status} after {attempts} attempts: {error}"
        case trading_day.Recovered(status=status, detail=detail):
            return f"recovered: {status} again{because(detail)}"
        case trading_day.ForceEnded(status=status, reason=reason):
            return f"ended by force while {status}{because(reason)}"
        case _:
            return _fields(event)


def _tickers(tickers: tuple[str, ...]) -> str:
    if len(tickers) == 1:
        return tickers[0]
    if not tickers:
        return "all tickers"
    named = ", ".join(tickers[:_TICKERS_NAMED_MAX])
    more = len(tickers) - _TICKERS_NAMED_MAX
    return f"{named} and {more} more" if more > 0 else named


def _fields(event: msgspec.Struct) -> str:
    return ", ".join(f"{name} {value}" for name, value in msgspec.structs.asdict(event).items())
