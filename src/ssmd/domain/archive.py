"""Aggregate `archive . {feed} . {date} . {type} . {partition}`: what of a day's data is stored for good, and how sure.

`type` is raw | normalized; `partition` is the connection. A seal lists the files of all kinds made from one range of
stream messages; the last seal IS the archiver's position.
"""

from __future__ import annotations

import msgspec

from ssmd.domain.archive_events import (
    EVENTS,
    ArchiveCommand,
    ArchiveEvent,
    AssessQuality,
    Completed,
    CompletePartition,
    Damaged,
    Held,
    HoldPartition,
    HoldReleased,
    Opened,
    OpenPartition,
    PlanSegment,
    Pruned,
    QualityAssessed,
    RecordDamage,
    RecordPruning,
    RecordRenormalization,
    RecordRepair,
    RecordStreamRegressed,
    RecordStreamTruncated,
    RecordVerification,
    ReleaseHold,
    Renormalized,
    Reopened,
    Repaired,
    SealSegment,
    SegmentFile,
    SegmentPlanned,
    SegmentSealed,
    SessionReached,
    StreamRegressed,
    StreamTruncated,
    Verified,
)
from ssmd.domain.decider import Decider
from ssmd.errors import Rejected

__all__ = [
    "AGGREGATE",
    "DECIDER",
    "EVENTS",
    "ArchiveCommand",
    "ArchiveEvent",
    "AssessQuality",
    "CompletePartition",
    "Completed",
    "Damaged",
    "Held",
    "HoldPartition",
    "HoldReleased",
    "OpenPartition",
    "Opened",
    "PlanSegment",
    "Pruned",
    "QualityAssessed",
    "RecordDamage",
    "RecordPruning",
    "RecordRenormalization",
    "RecordRepair",
    "RecordStreamRegressed",
    "RecordStreamTruncated",
    "RecordVerification",
    "ReleaseHold",
    "Renormalized",
    "Reopened",
    "Repaired",
    "SealSegment",
    "SegmentFile",
    "SegmentPlanned",
    "SegmentSealed",
    "SessionReached",
    "State",
    "StreamRegressed",
    "StreamTruncated",
    "Verified",
    "decide",
    "evolve",
]

AGGREGATE = "archive"

# State


class State(msgspec.Struct, frozen=True):
    """`damaged`: (key, problem) of objects not repaired yet; `pruned`: keys; `stream`: the latest trouble with it.

    `holds`: (name, reason) of what keeps it from being pruned. `mapper`, `renormalized_at`: of the latest renormalization,
    the version it is of and how many files (`segments`) were sealed before it.
    """

    epoch: int = 0
    instance: str = ""
    incarnation: str = ""
    last_seq: int = 0
    planned: SegmentPlanned | None = None
    is_complete: bool = False
    segments: int = 0
    records: int = 0
    size_bytes: int = 0
    check: str = ""
    damaged: tuple[tuple[str, str], ...] = ()
    mapper: int = 0
    renormalized_at: int = 0
    pruned: frozenset[str] = frozenset()
    holds: tuple[tuple[str, str], ...] = ()
    stream: StreamRegressed | StreamTruncated | None = None
    quality: QualityAssessed | None = None


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
        case _:
            return _decide_care(state, command)


def _stream(state: State, event: StreamRegressed | StreamTruncated) -> tuple[ArchiveEvent, ...]:
    return () if event == state.stream else (event,)


def _verify(state: State, command: RecordVerification) -> tuple[ArchiveEvent, ...]:
    if command.check == state.check:
        return ()
    if state.damaged:
        raise Rejected("archive-damaged", f"{len(state.damaged)} objects are damaged, {state.damaged[0][0]} is one")
    return (Verified(command.check, command.objects, command.size_bytes),)


def _decide_care(state: State, command: ArchiveCommand) -> tuple[ArchiveEvent, ...]:
    """What happens to stored objects after their seal."""
    match command:
        case RecordStreamRegressed():
            _fence(state, command.epoch)
            return _stream(
                state,
                StreamRegressed(
                    command.incarnation, command.position, command.found_last, command.found_message_id, command.action
                ),
            )
        case RecordStreamTruncated():
            _fence(state, command.epoch)
            return _stream(
                state, StreamTruncated(command.incarnation, command.position, command.first_available, command.action)
            )
        case RecordVerification():
            return _verify(state, command)
        case RecordDamage(key=key, problem=problem):
            if (key, problem) in state.damaged:
                return ()
            return (Damaged(key, problem, command.expected_sha256, command.found_sha256),)
        case RecordRepair(key=key, source=source, sha256=sha256, file=file):
            return (Repaired(key, source, sha256, file),) if any(key == one for one, _ in state.damaged) else ()
        case _:
            return _decide_content(state, command)


def _decide_content(state: State, command: ArchiveCommand) -> tuple[ArchiveEvent, ...]:
    """What is made of stored objects."""
    match command:
        case RecordRenormalization():
            return _renormalize(state, command)
        case RecordPruning(keys=keys, size_bytes=size_bytes, reason=reason):
            fresh = tuple(key for key in dict.fromkeys(keys) if key not in state.pruned)
            if fresh and state.holds:
                name, why = state.holds[0]
                raise Rejected("archive-held", f'hold "{name}" lies on it: {why}', mend=f"ssmd data hold remove {name}")
            return (Pruned(fresh, size_bytes, reason),) if fresh else ()
        case HoldPartition(name=name, reason=reason):
            return () if any(name == one for one, _ in state.holds) else (Held(name, reason),)
        case ReleaseHold(name=name):
            return (HoldReleased(name),) if any(name == one for one, _ in state.holds) else ()
        case AssessQuality(assessment=assessment):
            return () if assessment == state.quality else (assessment,)
        case _:
            return ()


def _renormalize(state: State, command: RecordRenormalization) -> tuple[ArchiveEvent, ...]:
    if command.mapper < state.mapper:
        raise Rejected("older-mapper", f"mapper {command.mapper} is older than mapper {state.mapper}, which made the records")
    if not state.is_complete or command.sealed != state.segments:
        raise Rejected(
            "archive-moved",
            f"the records were made anew when {command.sealed} files were sealed; now {state.segments} are, "
            f"and the day is {'complete' if state.is_complete else 'open'}",
            mend="end the day (ssmd day end), then do it again",
        )
    if (command.mapper, command.sealed) == (state.mapper, state.renormalized_at):
        return ()
    return (Renormalized(command.mapper, command.files, command.differing),)


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
        case _:
            return _evolve_care(state, event)


def _evolve_care(state: State, event: ArchiveEvent) -> State:
    replace = msgspec.structs.replace
    match event:
        case Verified(check=check):
            return replace(state, check=check)
        case Damaged(key=key, problem=problem):
            others = tuple(one for one in state.damaged if one[0] != key)
            return replace(state, check="", damaged=(*others, (key, problem)))
        case Repaired(key=key):
            return replace(state, damaged=tuple(one for one in state.damaged if one[0] != key))
        case Renormalized(mapper=mapper):
            return replace(state, mapper=mapper, renormalized_at=state.segments)
        case StreamRegressed(incarnation=incarnation):
            return replace(state, stream=event, incarnation=incarnation, last_seq=0, planned=None)
        case StreamTruncated():
            return replace(state, stream=event)
        case QualityAssessed():
            return replace(state, quality=event)
        case _:
            return _evolve_retention(state, event)


def _evolve_retention(state: State, event: ArchiveEvent) -> State:
    replace = msgspec.structs.replace
    match event:
        case Pruned(keys=keys):
            gone = frozenset(keys)
            return replace(state, pruned=state.pruned | gone, damaged=tuple(one for one in state.damaged if one[0] not in gone))
        case Held(name=name, reason=reason):
            return replace(state, holds=(*state.holds, (name, reason)))
        case HoldReleased(name=name):
            return replace(state, holds=tuple(one for one in state.holds if one[0] != name))
        case _:
            return state


DECIDER: Decider[ArchiveCommand, ArchiveEvent, State] = Decider(
    AGGREGATE, ("feed", "date", "type", "partition"), State(), decide, evolve, EVENTS
)
