"""Given events, when a command, then events: what of a day is stored for good."""

from __future__ import annotations

import pytest

from ssmd.domain.archive import (
    DECIDER,
    ArchiveCommand,
    ArchiveEvent,
    Completed,
    CompletePartition,
    Opened,
    OpenPartition,
    PlanSegment,
    Reopened,
    SealSegment,
    SegmentFile,
    SegmentPlanned,
    SegmentSealed,
    SessionReached,
)
from ssmd.errors import Rejected

FILE = SegmentFile("key", "raw", 10, "ab", 100, "cd", 5, 1, 2)
REACHED = (SessionReached(7, 42),)


def seal(first: int, last: int, *, epoch: int = 1, incarnation: str = "a") -> SealSegment:
    return SealSegment(epoch, incarnation, first, last, f"id-{last}", (FILE,), REACHED)


def sealed(first: int, last: int, *, incarnation: str = "a") -> SegmentSealed:
    return SegmentSealed(incarnation, first, last, f"id-{last}", (FILE,), REACHED)


OPEN: list[ArchiveEvent] = [Opened(1, "one")]
PLANNED: list[ArchiveEvent] = [*OPEN, SegmentPlanned("a", 1, 4, "idle")]
SEALED: list[ArchiveEvent] = [*OPEN, sealed(1, 4)]
COMPLETE: list[ArchiveEvent] = [*SEALED, Completed("day-mark", 1, 5, 10)]


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        ([], OpenPartition(1, "one"), [Opened(1, "one")]),
        (OPEN, OpenPartition(1, "one"), []),
        (OPEN, OpenPartition(2, "two"), [Opened(2, "two")]),
        (OPEN, PlanSegment(1, "a", 1, 4, "idle"), [SegmentPlanned("a", 1, 4, "idle")]),
        (PLANNED, PlanSegment(1, "a", 1, 4, "idle"), []),
        (SEALED, PlanSegment(1, "a", 1, 4, "idle"), []),
        (PLANNED, seal(1, 4), [sealed(1, 4)]),
        (SEALED, seal(1, 4), []),
        (SEALED, seal(5, 9), [sealed(5, 9)]),
        (SEALED, seal(1, 3, incarnation="b"), [sealed(1, 3, incarnation="b")]),
        (SEALED, CompletePartition("day-mark"), [Completed("day-mark", 1, 5, 10)]),
        (COMPLETE, CompletePartition("day-end"), []),
        (COMPLETE, seal(5, 6), [Reopened("late-data"), sealed(5, 6)]),
        ([*COMPLETE, Reopened("late-data"), sealed(5, 6)], CompletePartition("again"), [Completed("again", 2, 10, 20)]),
    ],
)
def test_decisions(given: list[ArchiveEvent], when: ArchiveCommand, then: list[ArchiveEvent]) -> None:
    assert list(DECIDER.decide(DECIDER.fold(given), when)) == then


@pytest.mark.parametrize(
    ("given", "when", "rule"),
    [
        (OPEN, OpenPartition(1, "two"), "archive-fenced"),
        (OPEN, OpenPartition(0, "one"), "archive-fenced"),
        ([Opened(2, "two")], PlanSegment(1, "a", 1, 4, "idle"), "archive-fenced"),
        ([Opened(2, "two")], seal(1, 4), "archive-fenced"),
        (SEALED, seal(4, 9), "segment-overlaps"),
        (OPEN, seal(5, 4), "segment-range"),
        (OPEN, seal(0, 4), "segment-range"),
    ],
)
def test_refusals(given: list[ArchiveEvent], when: ArchiveCommand, rule: str) -> None:
    with pytest.raises(Rejected) as raised:
        DECIDER.decide(DECIDER.fold(given), when)
    assert raised.value.rule == rule
