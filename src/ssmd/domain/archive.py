"""Aggregate `archive . {feed} . {date} . {type} . {partition}`: what of a day's data is stored for good, and how sure.

`type` is raw | normalized; `partition` is the connection. A seal lists the files of all kinds made from one range of
stream messages; the last seal IS the archiver's position.
"""

from __future__ import annotations

import msgspec

from ssmd.domain.decider import Decider
from ssmd.errors import Rejected

AGGREGATE = "archive"


class SegmentFile(msgspec.Struct, frozen=True):
    """One object of a seal. `sha256` is of the stored (compressed) bytes; `content_sha256` of the decompressed ones."""

    key: str
    kind: str
    size_bytes: int
    sha256: str
    content_bytes: int
    content_sha256: str
    records: int
    ts_recv_first_ns: int
    ts_recv_last_ns: int


class SessionReached(msgspec.Struct, frozen=True):
    """How far a session is archived: entries up to and with `last_n`. `newline`: its frames end in one newline each."""

    session: int
    last_n: int
    newline: bool = False


# Commands


class OpenPartition(msgspec.Struct, frozen=True):
    epoch: int
    instance: str


class PlanSegment(msgspec.Struct, frozen=True):
    """Cut here although content did not ask for it (idle, stop): must be known before the upload."""

    epoch: int
    incarnation: str
    first_seq: int
    last_seq: int
    reason: str


class SealSegment(msgspec.Struct, frozen=True):
    epoch: int
    incarnation: str
    first_seq: int
    last_seq: int
    last_message_id: str
    files: tuple[SegmentFile, ...]
    sessions: tuple[SessionReached, ...]


class CompletePartition(msgspec.Struct, frozen=True):
    """The day is over for this partition and everything of it is sealed. `reason`: day-mark | day-end | declared-dead."""

    reason: str


# Events


class Opened(msgspec.Struct, frozen=True, tag_field="type", tag="archive.opened.v1"):
    epoch: int
    instance: str


class SegmentPlanned(msgspec.Struct, frozen=True, tag_field="type", tag="archive.segment-planned.v1"):
    incarnation: str
    first_seq: int
    last_seq: int
    reason: str


class SegmentSealed(msgspec.Struct, frozen=True, tag_field="type", tag="archive.segment-sealed.v1"):
    incarnation: str
    first_seq: int
    last_seq: int
    last_message_id: str
    files: tuple[SegmentFile, ...]
    sessions: tuple[SessionReached, ...]


class Completed(msgspec.Struct, frozen=True, tag_field="type", tag="archive.completed.v1"):
    reason: str
    segments: int
    records: int
    size_bytes: int


class Reopened(msgspec.Struct, frozen=True, tag_field="type", tag="archive.reopened.v1"):
    """Something of the day came after it was complete."""

    reason: str


ArchiveCommand = OpenPartition | PlanSegment | SealSegment | CompletePartition
ArchiveEvent = Opened | SegmentPlanned | SegmentSealed | Completed | Reopened
EVENTS = (Opened, SegmentPlanned, SegmentSealed, Completed, Reopened)


# State


class State(msgspec.Struct, frozen=True):
    epoch: int = 0
    instance: str = ""
    incarnation: str = ""
    last_seq: int = 0
    planned: SegmentPlanned | None = None
    is_complete: bool = False
    segments: int = 0
    records: int = 0
    size_bytes: int = 0


def _fence(state: State, epoch: int) -> None:
    if epoch < state.epoch:
        raise Rejected(
            "archive-fenced", f"archiver epoch {epoch} is behind epoch {state.epoch} of {state.instance}: it stands by"
        )


def decide(state: State, command: ArchiveCommand) -> tuple[ArchiveEvent, ...]:
    match command:
        case OpenPartition(epoch=epoch, instance=instance):
            _fence(state, epoch)
            if (epoch, instance) == (state.epoch, state.instance):
                return ()
            if epoch == state.epoch:
                raise Rejected("archive-fenced", f"epoch {epoch} belongs to {state.instance}")
            return (Opened(epoch, instance),)
        case PlanSegment():
            _fence(state, command.epoch)
            if command.incarnation == state.incarnation and command.last_seq <= state.last_seq:
                return ()
            planned = SegmentPlanned(command.incarnation, command.first_seq, command.last_seq, command.reason)
            if planned == state.planned:
                return ()
            return (planned,)
        case SealSegment():
            return _seal(state, command)
        case CompletePartition(reason=reason):
            if state.is_complete:
                return ()
            return (Completed(reason, state.segments, state.records, state.size_bytes),)


def _seal(state: State, command: SealSegment) -> tuple[ArchiveEvent, ...]:
    _fence(state, command.epoch)
    if not 0 < command.first_seq <= command.last_seq:
        raise Rejected("segment-range", f"messages {command.first_seq}..{command.last_seq} are no range")
    if command.incarnation == state.incarnation:
        if command.last_seq <= state.last_seq:
            return ()
        if command.first_seq <= state.last_seq:
            raise Rejected(
                "segment-overlaps",
                f"messages {command.first_seq}..{command.last_seq} overlap those sealed up to {state.last_seq}",
            )
    sealed = SegmentSealed(
        command.incarnation,
        command.first_seq,
        command.last_seq,
        command.last_message_id,
        command.files,
        command.sessions,
    )
    return (Reopened("late-data"), sealed) if state.is_complete else (sealed,)


def evolve(state: State, event: ArchiveEvent) -> State:
    match event:
        case Opened(epoch=epoch, instance=instance):
            return msgspec.structs.replace(state, epoch=epoch, instance=instance)
        case SegmentPlanned():
            return msgspec.structs.replace(state, planned=event)
        case SegmentSealed():
            return msgspec.structs.replace(
                state,
                incarnation=event.incarnation,
                last_seq=event.last_seq,
                planned=None,
                segments=state.segments + len(event.files),
                records=state.records + sum(file.records for file in event.files),
                size_bytes=state.size_bytes + sum(file.size_bytes for file in event.files),
            )
        case Completed():
            return msgspec.structs.replace(state, is_complete=True)
        case Reopened():
            return msgspec.structs.replace(state, is_complete=False)


DECIDER: Decider[ArchiveCommand, ArchiveEvent, State] = Decider(
    AGGREGATE, ("feed", "date", "type", "partition"), State(), decide, evolve, EVENTS
)
