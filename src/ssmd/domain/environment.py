"""Aggregate `environment . {env}`: which configuration was put into force, by whom, and when it was taken away.

    absent -> applied -> torn-down -> applied ...

A tear-down removes what the environment keeps in servers; the journal stays, so the history goes on.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ssmd.domain.decider import Decider
from ssmd.errors import Rejected

AGGREGATE: Final = "environment"

Status = Literal["absent", "applied", "torn-down"]


# Commands


class RecordApply(msgspec.Struct, frozen=True):
    """An apply is done.

    Attributes:
        run_id: identifies it; recording it twice does nothing.
        config: git commit of the registry, "" = not under git.
        document_sha256: of the environment's document with all defaults, so that equal configurations are known as such.
        uncommitted: what the registry held beyond `config`, in words; () = nothing.
        changes: what was changed in the servers, in words; () = nothing had to be.
    """

    run_id: str
    config: str
    document_sha256: str
    uncommitted: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


class RecordTeardown(msgspec.Struct, frozen=True):
    """A tear-down is done. `date`: the one day whose data was removed, "" = the environment; `removed`: in words."""

    run_id: str
    date: str = ""
    removed: tuple[str, ...] = ()


# Events


class Applied(msgspec.Struct, frozen=True, tag_field="type", tag="environment.applied.v1"):
    """Fields as in `RecordApply`."""

    run_id: str
    config: str
    document_sha256: str
    uncommitted: tuple[str, ...]
    changes: tuple[str, ...]


class TornDown(msgspec.Struct, frozen=True, tag_field="type", tag="environment.torn-down.v1"):
    """Fields as in `RecordTeardown`."""

    run_id: str
    date: str
    removed: tuple[str, ...]


EnvironmentCommand = RecordApply | RecordTeardown
EnvironmentEvent = Applied | TornDown
EVENTS = (Applied, TornDown)


# State


class State(msgspec.Struct, frozen=True):
    """`run_id` is of the last act; `config`, `document_sha256` and `uncommitted` are those last applied."""

    status: Status = "absent"
    run_id: str = ""
    config: str = ""
    document_sha256: str = ""
    uncommitted: tuple[str, ...] = ()


def decide(state: State, command: EnvironmentCommand) -> tuple[EnvironmentEvent, ...]:
    if not command.run_id:
        raise Rejected("no-run-id", "what is recorded must be identified")
    if command.run_id == state.run_id:
        return ()
    match command:
        case RecordApply():
            is_same = (command.config, command.document_sha256, command.uncommitted) == (
                state.config,
                state.document_sha256,
                state.uncommitted,
            )
            if state.status == "applied" and is_same and not command.changes:
                return ()
            return (Applied(command.run_id, command.config, command.document_sha256, command.uncommitted, command.changes),)
        case RecordTeardown():
            if state.status == "torn-down" and not command.removed:
                return ()
            return (TornDown(command.run_id, command.date, command.removed),)


def evolve(state: State, event: EnvironmentEvent) -> State:
    match event:
        case Applied(run_id=run_id, config=config, document_sha256=sha256, uncommitted=uncommitted):
            return State("applied", run_id, config, sha256, uncommitted)
        case TornDown(run_id=run_id, date=date):
            status: Status = state.status if date else "torn-down"
            return msgspec.structs.replace(state, status=status, run_id=run_id)


DECIDER: Decider[EnvironmentCommand, EnvironmentEvent, State] = Decider(AGGREGATE, ("env",), State(), decide, evolve, EVENTS)
