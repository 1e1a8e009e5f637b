"""Aggregate `capture . {feed} . {connection}`: what a connection to a venue lived through.

Every fact comes from the connection's tape and is identified by its place (session, n, index); places rise along the
tape, so a fact at or below the last recorded place has been recorded already and yields nothing.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ssmd.domain.decider import Decider
from ssmd.domain.fact_parts import ticker_parts
from ssmd.errors import Rejected

AGGREGATE = "capture"


class TapePlace(msgspec.Struct, frozen=True, order=True):
    """Where on the tape a fact was found; (0, 0, 0) before all."""

    session: int = 0
    n: int = 0
    index: int = 0


# Commands


class RecordFact(msgspec.Struct, frozen=True):
    """The tape says so: `event` was found at `place`."""

    place: TapePlace
    event: CaptureEvent


# Events. All times are UTC nanoseconds; `ts_recv_ns` is the receive time of the tape entry the fact was found at.


class CaptureEvent(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """What every capture event says: its place on the tape and the receive time there."""

    session: int
    n: int
    index: int
    ts_recv_ns: int


class Connected(CaptureEvent, frozen=True, tag="capture.connected.v1"):
    url: str
    wire: str
    instance: str
    epoch: int
    version: str
    previous_session: int


class Subscribed(CaptureEvent, frozen=True, tag="capture.subscribed.v1"):
    """The venue acknowledged a subscription. `tickers` empty = no ticker filter."""

    sid: int
    channel: str
    tickers: tuple[str, ...]


class Disconnected(CaptureEvent, frozen=True, tag="capture.disconnected.v1"):
    cause: str
    code: int
    reason: str
    last_recv_ns: int
    evidence: str


class GapOpened(CaptureEvent, frozen=True, tag="capture.gap-opened.v1"):
    """A hole begins; several events of one `gap_id` and place name its tickers together. `tickers` empty with a channel = the
    whole channel; `start_ns` = last moment proven good.
    """

    gap_id: str
    cause: str
    start_ns: int
    channel: str
    sid: int
    seq_expected: int
    seq_found: int
    tickers: tuple[str, ...]
    evidence: str


class GapClosed(CaptureEvent, frozen=True, tag="capture.gap-closed.v1"):
    """The hole is over for `tickers` (empty = for all it concerned)."""

    gap_id: str
    start_ns: int
    end_ns: int
    tickers: tuple[str, ...]


class DriftDetected(CaptureEvent, frozen=True, tag="capture.drift-detected.v1"):
    """A frame did not fit the mapper: `what` is unknown-type, unknown-field, missing-field, wrong-type, unknown-value,
    malformed, duplicate-sequence, duplicate-quote, null-rate (a field is gone from most frames), off-grid (a price
    between the ticks).
    """

    what: str
    frame_type: str
    field: str
    detail: str


class ClockStepped(CaptureEvent, frozen=True, tag="capture.clock-stepped.v1"):
    step_ns: int


class ClockOffset(CaptureEvent, frozen=True, tag="capture.clock-offset.v1"):
    """Our clock is `offset_ns` ahead of the venue's times (less the way of a frame); it was `before_ns` when last told."""

    offset_ns: int
    before_ns: int


class TailCut(CaptureEvent, frozen=True, tag="capture.tail-cut.v1"):
    size_bytes: int


class DayMarked(CaptureEvent, frozen=True, tag="capture.day-marked.v1"):
    """No further entry of `date` will come from this connection."""

    date: str


class Started(CaptureEvent, frozen=True, tag="capture.started.v1"):
    """A connector took the connection's tape: `instance` with `epoch`; one of a lower epoch has to stop."""

    instance: str
    epoch: int
    version: str


class Stopped(CaptureEvent, frozen=True, tag="capture.stopped.v1"):
    """The connector let go of the tape. `cause`: stop | fenced | tape-full | error."""

    instance: str
    epoch: int
    cause: str
    detail: str


class GapRepaired(CaptureEvent, frozen=True, tag="capture.gap-repaired.v1"):
    """What was missing came from elsewhere. `source`: where from; `records`: how many; `tickers` empty = for all."""

    gap_id: str
    source: str
    start_ns: int
    end_ns: int
    records: int
    tickers: tuple[str, ...]
    evidence: str


Verdict = Literal["verified", "unverifiable", "missing", "repaired"]


class IntervalAssessed(CaptureEvent, frozen=True, tag="capture.interval-assessed.v1"):
    """What can be said of [start_ns, end_ns) of a subscription, for all tickers of a set at once.

    Where intervals of a ticker and channel overlap, missing holds before unverifiable before verified: what is found later
    to be wrong counts. `repaired` holds where its gap is missing, and nowhere else.

    The set is that of `base` with `tickers` and without `dropped`; `base` "" = of nobody, else a set that this connection
    named before (itself: just the same). `ticker_set` is the SHA-256 (hex) of its sorted tickers, each followed by a line
    feed; "*" in it stands for all of a channel without a ticker filter. In a `repaired` one nobody = all of its gap.

    Fields:
        sid: 0 = of no one subscription; `channel` "" = of every channel.
        cause: why it is not verified: that of the gap `gap_id` (missing, repaired); tail (nothing counted came since);
            no-sequence (the venue does not count this channel); no-beginning (the acknowledgement was not seen).
        first_n: the evidence is in the session's entries from here to the event's own `n`; 0 = before the session.
        first_seq, last_seq: the venue's counts at its ends, all between them received unless missing; 0 = none.
    """

    sid: int
    channel: str
    verdict: Verdict
    cause: str
    gap_id: str
    start_ns: int
    end_ns: int
    first_n: int
    first_seq: int
    last_seq: int
    ticker_set: str
    base: str
    tickers: tuple[str, ...]
    dropped: tuple[str, ...]
    evidence: str


EVENTS = (
    Connected,
    Subscribed,
    Disconnected,
    GapOpened,
    GapClosed,
    DriftDetected,
    ClockStepped,
    ClockOffset,
    TailCut,
    DayMarked,
    Started,
    Stopped,
    GapRepaired,
    IntervalAssessed,
)


_NAMING: Final = (Subscribed, GapOpened, GapClosed, GapRepaired)
"""Events of which several may stand for one fact. An `IntervalAssessed` is one: whoever makes it keeps its set small enough."""


# State


class State(msgspec.Struct, frozen=True):
    last: TapePlace = TapePlace()
    epoch: int = 0


def place_of(event: CaptureEvent) -> TapePlace:
    """Where on the tape `event` was found."""
    return TapePlace(event.session, event.n, event.index)


def decide(state: State, command: RecordFact) -> tuple[CaptureEvent, ...]:
    """Record a fact once; refuse facts of a fenced (lower) epoch."""
    if command.place <= state.last:
        return ()
    event = command.event
    if place_of(event) != command.place:
        raise Rejected("capture-place-mismatch", f"the event says {place_of(event)}, the command {command.place}")
    if isinstance(event, Connected | Started) and event.epoch < state.epoch:
        raise Rejected(
            "capture-fenced",
            f"connection epoch {event.epoch} is behind epoch {state.epoch}: another connector took over",
        )
    if isinstance(event, _NAMING):
        # More tickers than one message holds: several events of the same place, recorded together or not at all.
        parts = ticker_parts(event.tickers)
        if len(parts) > 1:
            return tuple(msgspec.structs.replace(event, tickers=part) for part in parts)
    return (event,)


def evolve(state: State, event: CaptureEvent) -> State:
    place = place_of(event)
    epoch = max(state.epoch, event.epoch) if isinstance(event, Connected | Started) else state.epoch
    return State(last=max(place, state.last), epoch=epoch)


DECIDER: Decider[RecordFact, CaptureEvent, State] = Decider(AGGREGATE, ("feed", "connection"), State(), decide, evolve, EVENTS)
