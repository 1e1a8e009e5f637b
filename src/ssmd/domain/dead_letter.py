"""Aggregate `dead-letter . {id}`: something a component could not process, until it was processed or given up.

The bytes are not here: `source` and `position` say where they are.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.domain.decider import Decider
from ssmd.errors import Rejected

AGGREGATE: Final = "dead-letter"


# Commands


class RecordDeadLetter(msgspec.Struct, frozen=True):
    """`component` could not process the message at `position` of `source` (a stream, or "journal"); once per id.

    `subject`: what it is about ("capture/kalshi.main"); `what`: its type, "" = not known.
    """

    component: str
    source: str
    position: int
    subject: str
    what: str
    reason: str


class RecordReplay(msgspec.Struct, frozen=True):
    """It was processed after all. `detail`: by what."""

    detail: str = ""


class DiscardDeadLetter(msgspec.Struct, frozen=True):
    """It will not be processed."""

    reason: str


# Events


class Recorded(msgspec.Struct, frozen=True, tag_field="type", tag="dead-letter.recorded.v1"):
    component: str
    source: str
    position: int
    subject: str
    what: str
    reason: str


class Replayed(msgspec.Struct, frozen=True, tag_field="type", tag="dead-letter.replayed.v1"):
    detail: str


class Discarded(msgspec.Struct, frozen=True, tag_field="type", tag="dead-letter.discarded.v1"):
    reason: str


DeadLetterCommand = RecordDeadLetter | RecordReplay | DiscardDeadLetter
DeadLetterEvent = Recorded | Replayed | Discarded
EVENTS = (Recorded, Replayed, Discarded)


# State


class State(msgspec.Struct, frozen=True):
    is_recorded: bool = False
    is_replayed: bool = False
    is_discarded: bool = False


def decide(state: State, command: DeadLetterCommand) -> tuple[DeadLetterEvent, ...]:
    if isinstance(command, RecordDeadLetter):
        if state.is_recorded:
            return ()
        return (Recorded(command.component, command.source, command.position, command.subject, command.what, command.reason),)
    if not state.is_recorded:
        raise Rejected("no-such-dead-letter", "there is no such dead letter", mend="ssmd projection list")
    match command:
        case RecordReplay(detail=detail):
            if state.is_discarded:
                raise Rejected("dead-letter-discarded", "the dead letter was discarded")
            return () if state.is_replayed else (Replayed(detail),)
        case DiscardDeadLetter(reason=reason):
            if state.is_replayed:
                raise Rejected("dead-letter-replayed", "the dead letter was processed after all")
            return () if state.is_discarded else (Discarded(reason),)


def evolve(state: State, event: DeadLetterEvent) -> State:
    match event:
        case Recorded():
            return State(is_recorded=True)
        case Replayed():
            return msgspec.structs.replace(state, is_replayed=True)
        case Discarded():
            return msgspec.structs.replace(state, is_discarded=True)


DECIDER: Decider[DeadLetterCommand, DeadLetterEvent, State] = Decider(AGGREGATE, ("id",), State(), decide, evolve, EVENTS)
