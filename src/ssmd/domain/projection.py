"""Aggregate `projection . {name}`: how a view of the journal was made, checked, put in place and taken back.

Digests are 64 hex digits; a generation is one keyspace of the row store.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.domain.decider import Decider

AGGREGATE: Final = "projection"


class Made(msgspec.Struct, frozen=True):
    """One state of a generation: equal version, position and digest mean equal rows."""

    generation: str
    version: int
    position: int
    digest: str
    rows: int
    skipped: int


# Commands


class RecordRebuild(msgspec.Struct, frozen=True):
    """A shadow generation was folded and compared at the position of the view there was (`before`, None = none)."""

    made: Made
    before: Made | None


class RecordDivergence(msgspec.Struct, frozen=True):
    """The same version gave another digest at the same position: `made` was not put in place."""

    made: Made
    before: Made


class RecordSwap(msgspec.Struct, frozen=True):
    """`generation` is what readers see."""

    generation: str
    version: int
    position: int


class RecordRollback(msgspec.Struct, frozen=True):
    """Readers see `generation` again in place of `replaced`."""

    generation: str
    version: int
    position: int
    replaced: str
    reason: str


# Events


class Rebuilt(msgspec.Struct, frozen=True, tag_field="type", tag="projection.rebuilt.v1"):
    """`is_different`: at the same position the rows differ from those of `before`, which another version folded."""

    made: Made
    before: Made | None
    is_different: bool


class Diverged(msgspec.Struct, frozen=True, tag_field="type", tag="projection.diverged.v1"):
    made: Made
    before: Made


class Swapped(msgspec.Struct, frozen=True, tag_field="type", tag="projection.swapped.v1"):
    """`previous` is the generation kept for a rollback, "" = none."""

    generation: str
    version: int
    position: int
    previous: str


class RolledBack(msgspec.Struct, frozen=True, tag_field="type", tag="projection.rolled-back.v1"):
    generation: str
    version: int
    position: int
    replaced: str
    reason: str


ProjectionCommand = RecordRebuild | RecordDivergence | RecordSwap | RecordRollback
ProjectionEvent = Rebuilt | Diverged | Swapped | RolledBack
EVENTS = (Rebuilt, Diverged, Swapped, RolledBack)


# State


class State(msgspec.Struct, frozen=True):
    """`current`: generation that readers see, "" = not known; `rebuilt`, `diverged`: the latest."""

    current: str = ""
    rebuilt: Made | None = None
    diverged: Made | None = None


def decide(state: State, command: ProjectionCommand) -> tuple[ProjectionEvent, ...]:
    match command:
        case RecordRebuild(made=made, before=before):
            if made == state.rebuilt or (before is None and _is_first_and_empty(state, made)):
                return ()
            is_same_place = before is not None and before.position == made.position
            is_different = before is not None and is_same_place and before.digest != made.digest
            return (Rebuilt(made, before, is_different),)
        case RecordDivergence(made=made, before=before):
            return () if made == state.diverged else (Diverged(made, before),)
        case RecordSwap() if state == State():
            # Of what was swapped nothing was told, so it was the first generation, and empty: a fresh environment.
            return ()
        case RecordSwap(generation=generation, version=version, position=position):
            return () if generation == state.current else (Swapped(generation, version, position, state.current),)
        case RecordRollback():
            if command.generation == state.current:
                return ()
            return (RolledBack(command.generation, command.version, command.position, command.replaced, command.reason),)


def _is_first_and_empty(state: State, made: Made) -> bool:
    """Whether a view is only now beginning to exist: nobody will ever ask when that was."""
    return state == State() and not made.rows and not made.skipped


def evolve(state: State, event: ProjectionEvent) -> State:
    replace = msgspec.structs.replace
    match event:
        case Rebuilt(made=made, before=before):
            # A first generation that began empty was not told of.
            current = state.current or ("" if before is None else before.generation)
            return replace(state, rebuilt=made, current=current)
        case Diverged(made=made):
            return replace(state, diverged=made)
        case Swapped(generation=generation) | RolledBack(generation=generation):
            return replace(state, current=generation)


DECIDER: Decider[ProjectionCommand, ProjectionEvent, State] = Decider(AGGREGATE, ("name",), State(), decide, evolve, EVENTS)
