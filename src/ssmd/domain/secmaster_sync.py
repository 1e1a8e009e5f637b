"""Aggregate `secmaster-sync . {feed}`: the runs that compare the venue's list of markets with ours.

One run at a time; a run that died is superseded by the next one that starts.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.domain.decider import Decider
from ssmd.errors import Rejected

AGGREGATE: Final = "secmaster-sync"


class Counts(msgspec.Struct, frozen=True):
    """What a run came to: markets by what happened to them, and requests made to the venue."""

    events: int = 0
    markets: int = 0
    listed: int = 0
    changed: int = 0
    closed: int = 0
    delisted: int = 0
    requests: int = 0


# Commands


class StartSync(msgspec.Struct, frozen=True):
    """`sync_id` identifies the run; `scope`: what of the venue it covers, "" = everything."""

    sync_id: str
    scope: str = ""


class CompleteSync(msgspec.Struct, frozen=True):
    sync_id: str
    counts: Counts


class FailSync(msgspec.Struct, frozen=True):
    """The run ended early; what it had recorded until then stands."""

    sync_id: str
    error: str


# Events


class Started(msgspec.Struct, frozen=True, tag_field="type", tag="secmaster-sync.started.v1"):
    sync_id: str
    scope: str


class Completed(msgspec.Struct, frozen=True, tag_field="type", tag="secmaster-sync.completed.v1"):
    sync_id: str
    counts: Counts


class Failed(msgspec.Struct, frozen=True, tag_field="type", tag="secmaster-sync.failed.v1"):
    sync_id: str
    error: str


SyncCommand = StartSync | CompleteSync | FailSync
SyncEvent = Started | Completed | Failed
EVENTS = (Started, Completed, Failed)


# State


class State(msgspec.Struct, frozen=True):
    """`running`: id of the run under way, "" = none; `ended`: id of the latest that ended."""

    running: str = ""
    ended: str = ""


def decide(state: State, command: SyncCommand) -> tuple[SyncEvent, ...]:
    if not command.sync_id:
        raise Rejected("no-sync-id", "a sync run needs an id")
    match command:
        case StartSync(sync_id=sync_id, scope=scope):
            return () if sync_id in (state.running, state.ended) else (Started(sync_id, scope),)
        case CompleteSync(sync_id=sync_id, counts=counts):
            return _end(state, Completed(sync_id, counts))
        case FailSync(sync_id=sync_id, error=error):
            return _end(state, Failed(sync_id, error))


def _end(state: State, event: Completed | Failed) -> tuple[SyncEvent, ...]:
    if event.sync_id == state.ended:
        return ()
    if event.sync_id != state.running:
        running = f"run {state.running} is" if state.running else "none is"
        raise Rejected("sync-not-running", f"sync run {event.sync_id} is not under way: {running}")
    return (event,)


def evolve(state: State, event: SyncEvent) -> State:
    match event:
        case Started(sync_id=sync_id):
            return State(sync_id, state.ended)
        case Completed(sync_id=sync_id) | Failed(sync_id=sync_id):
            return State("", sync_id)


DECIDER: Decider[SyncCommand, SyncEvent, State] = Decider(AGGREGATE, ("feed",), State(), decide, evolve, EVENTS)
