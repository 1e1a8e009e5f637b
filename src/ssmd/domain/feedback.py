"""Aggregate `feedback . {id}`: a user's complaint about data, until it is resolved or found to be none.

reported -> triaged -> investigating -> resolved | invalidated      (stages may be skipped; an end is the end)
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ssmd.domain.decider import Decider
from ssmd.errors import Rejected

AGGREGATE: Final = "feedback"

Severity = Literal["low", "medium", "high", "critical"]
Status = Literal["none", "reported", "triaged", "investigating", "resolved", "invalidated"]


# Commands


class Report(msgspec.Struct, frozen=True):
    """`kind`: missing-data | wrong-data | late-data | question; `ticker`, `date` "" = of no one in particular."""

    feed: str
    date: str
    ticker: str
    kind: str
    text: str


class Triage(msgspec.Struct, frozen=True):
    severity: Severity
    assignee: str = ""
    note: str = ""


class Investigate(msgspec.Struct, frozen=True):
    note: str


class Resolve(msgspec.Struct, frozen=True):
    resolution: str


class Invalidate(msgspec.Struct, frozen=True):
    """The data is right."""

    reason: str


# Events


class Reported(msgspec.Struct, frozen=True, tag_field="type", tag="feedback.reported.v1"):
    feed: str
    date: str
    ticker: str
    kind: str
    text: str


class Triaged(msgspec.Struct, frozen=True, tag_field="type", tag="feedback.triaged.v1"):
    severity: Severity
    assignee: str
    note: str


class Investigating(msgspec.Struct, frozen=True, tag_field="type", tag="feedback.investigating.v1"):
    note: str


class Resolved(msgspec.Struct, frozen=True, tag_field="type", tag="feedback.resolved.v1"):
    resolution: str


class Invalidated(msgspec.Struct, frozen=True, tag_field="type", tag="feedback.invalidated.v1"):
    reason: str


FeedbackCommand = Report | Triage | Investigate | Resolve | Invalidate
FeedbackEvent = Reported | Triaged | Investigating | Resolved | Invalidated
EVENTS = (Reported, Triaged, Investigating, Resolved, Invalidated)


# State


class State(msgspec.Struct, frozen=True):
    """`latest` is the event that led to `status`."""

    status: Status = "none"
    reported: Reported | None = None
    triaged: Triaged | None = None
    latest: FeedbackEvent | None = None


def decide(state: State, command: FeedbackCommand) -> tuple[FeedbackEvent, ...]:
    if isinstance(command, Report):
        wanted = Reported(command.feed, command.date, command.ticker, command.kind, command.text)
        if state.reported is None:
            return (wanted,)
        if state.reported == wanted:
            return ()
        raise Rejected("feedback-exists", "there is other feedback with this id")
    if state.reported is None:
        raise Rejected("no-such-feedback", "there is no feedback with this id")
    event = _event_of(command)
    if event in (state.latest, state.triaged):
        return ()
    if state.status in ("resolved", "invalidated"):
        raise Rejected("feedback-closed", f"this feedback is {state.status}")
    return (event,)


def _event_of(command: Triage | Investigate | Resolve | Invalidate) -> FeedbackEvent:
    match command:
        case Triage(severity=severity, assignee=assignee, note=note):
            return Triaged(severity, assignee, note)
        case Investigate(note=note):
            return Investigating(note)
        case Resolve(resolution=resolution):
            return Resolved(resolution)
        case Invalidate(reason=reason):
            return Invalidated(reason)


def evolve(state: State, event: FeedbackEvent) -> State:
    replace = msgspec.structs.replace
    match event:
        case Reported():
            return State("reported", event, None, event)
        case Triaged():
            # Found to be more or less urgent while somebody looks into it.
            status: Status = state.status if state.status == "investigating" else "triaged"
            return replace(state, status=status, triaged=event, latest=event)
        case Investigating():
            return replace(state, status="investigating", latest=event)
        case Resolved():
            return replace(state, status="resolved", latest=event)
        case Invalidated():
            return replace(state, status="invalidated", latest=event)


DECIDER: Decider[FeedbackCommand, FeedbackEvent, State] = Decider(AGGREGATE, ("id",), State(), decide, evolve, EVENTS)
