"""Reading a journal from its start and telling what is wrong with it, with position and reason.

What a journal can prove by itself: positions without a hole, envelopes that fit their subjects, known types whose data
fit, versions without gap or repetition, ids that stand once. What it cannot (a changed byte that still reads well, events
cut off its end) its anchors show: `streams.journal_anchor`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from ssmd.domain.decider import Catalogue
from ssmd.errors import Conflict, Malformed
from ssmd.streams.journal import Journal, PoisonEvent, RecordedEvent
from ssmd.streams.journal_anchor import Anchor, RollingDigest

FINDINGS_MAX: Final = 1000
"""Findings kept; more are counted only."""

Problem = Literal[
    "missing", "no-event", "unknown-type", "newer-version", "data", "version", "truncated", "changed", "anchor", "unreadable"
]

_VERSIONED: Final = re.compile(r"(.+)\.v(\d+)")


class Finding(NamedTuple):
    """What is wrong at `position`; `subject` is the aggregate ("trading-day/2026-05-14"), "" where it concerns none."""

    position: int
    problem: Problem
    subject: str
    reason: str


class Verification(NamedTuple):
    """What a journal was found to be. `anchors` were compared; `sha256` is the digest at `head`, "" behind a hole."""

    head: int
    messages: int
    aggregates: int
    anchors: int
    sha256: str
    findings: tuple[Finding, ...]
    findings_total: int


async def verify(journal: Journal, env: str, catalogue: Catalogue, anchors: Sequence[Anchor]) -> Verification:
    """Read everything once and compare it with `anchors`, in any order.

    Raises:
        Unavailable: the journal does not answer.
    """
    return await _Verifier(env, catalogue, anchors).run(journal)


class _Verifier:
    def __init__(self, env: str, catalogue: Catalogue, anchors: Sequence[Anchor]) -> None:
        self._env = env
        self._catalogue = catalogue
        self._anchors = sorted(anchors, key=lambda one: one.position, reverse=True)  # the next one is the last
        self._tags = frozenset(catalogue.tags)
        self._newest = _newest(catalogue.tags)
        self._digest = RollingDigest(env)
        self._is_digest_good = True
        self._since = 0
        self._compared = 0
        self._expected = 1
        self._messages = 0
        self._versions: dict[str, int] = {}
        self._findings: list[Finding] = []
        self._total = 0

    def _find(self, position: int, problem: Problem, subject: str, reason: str) -> None:
        self._total += 1
        if len(self._findings) < FINDINGS_MAX:
            self._findings.append(Finding(position, problem, subject, reason))

    async def run(self, journal: Journal) -> Verification:
        head = await journal.head()
        self._compare_anchors(0)
        try:
            async for batch in journal.replay(until=head):
                for message in batch:
                    self._take(message)
        except (Malformed, Conflict) as error:
            self._find(self._expected, "unreadable", "", error.message)
        else:
            self._check_hole(head + 1)
        beyond = max((anchor.position for anchor in self._anchors), default=0)
        if beyond > head:
            reason = f"the journal ends at position {head}; an anchor says that it reached {beyond}"
            self._find(head + 1, "truncated", "", f"positions {head + 1} to {beyond} are lost: {reason}")
        return Verification(
            head,
            self._messages,
            len(self._versions),
            self._compared,
            self._digest.sha256 if self._is_digest_good else "",
            tuple(sorted(self._findings)),
            self._total,
        )

    def _take(self, message: RecordedEvent | PoisonEvent) -> None:
        self._check_hole(message.position)
        self._messages += 1
        self._expected = message.position + 1
        if isinstance(message, PoisonEvent):
            self._find(message.position, "no-event", message.subject, message.reason)
        else:
            self._check_event(message)
        if self._is_digest_good:
            self._digest.add(message)
        self._compare_anchors(message.position)

    def _check_hole(self, position: int) -> None:
        if position > self._expected:
            last = position - 1
            some = f"positions {self._expected} to {last}" if last > self._expected else f"position {last}"
            self._find(self._expected, "missing", "", f"{some} cannot be read: removed, or damaged on the server's disk")
            self._is_digest_good = False

    def _check_event(self, message: RecordedEvent) -> None:
        envelope, position = message.envelope, message.position
        subject = f"{envelope.aggregate}/{envelope.aggregate_id}"
        before = self._versions.get(subject, 0)
        if envelope.version != before + 1:
            self._find(position, "version", subject, f"version {envelope.version} follows version {before}")
        self._versions[subject] = max(before, envelope.version)
        if envelope.type in self._tags:
            try:
                self._catalogue.decode(envelope.type, envelope.data)
            except Malformed as error:
                self._find(position, "data", subject, error.message)
            return
        match = _VERSIONED.fullmatch(envelope.type)
        newest = self._newest.get(match.group(1), 0) if match else 0
        if match and 0 < newest < int(match.group(2)):
            reason = f"{envelope.type!r} was written by a newer ssmd; this one knows version {newest}"
            self._find(position, "newer-version", subject, reason)
        else:
            self._find(position, "unknown-type", subject, f"this ssmd knows no event type {envelope.type!r}")

    def _compare_anchors(self, position: int) -> None:
        while self._anchors and self._anchors[-1].position <= position:
            anchor = self._anchors.pop()
            self._compared += 1
            if self._is_digest_good and anchor.sha256 != self._digest.sha256:
                self._find(
                    self._since + 1,
                    "changed",
                    "",
                    f"positions {self._since + 1} to {anchor.position} hold other bytes than when the anchor at "
                    f"{anchor.position} was taken",
                )
            # What comes behind is judged by itself.
            self._digest = RollingDigest(self._env, anchor)
            self._is_digest_good = True
            self._since = anchor.position


def _newest(tags: Sequence[str]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for tag in tags:
        match = _VERSIONED.fullmatch(tag)
        if match:
            newest[match.group(1)] = max(newest.get(match.group(1), 0), int(match.group(2)))
    return newest
