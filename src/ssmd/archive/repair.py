"""What has to be made again, and whether what was made may take a damaged object's place.

A rebuilt file is held against its seal:

    same object    its stored bytes hash to the sealed sha256: it goes to the old key
    same content   its content hashes to the sealed one, other frames: it goes beside, as a revision
    same records   as many records of the same entries by the same mapper, in another order: it goes beside, as a revision
    anything else  it is worse than nothing, and is thrown away

Nothing ever replaces an object that is as it was sealed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

import msgspec

from ssmd.archive.continuity import Place
from ssmd.archive.keys import SegmentName, parse_segment
from ssmd.archive.segment import SegmentFacts
from ssmd.domain import archive
from ssmd.errors import Malformed

Fit = Literal["same object", "same content", "same records", ""]
REVISIONS_MAX: Final = 100


class Stretch(NamedTuple):
    """Entries of a session behind `after_n`, up to and with `last_n`."""

    session: int
    after_n: int
    last_n: int


class Target(NamedTuple):
    """A sealed file, where it came from in the stream, and the tape entries its seal covers, in order.

    Of a file that was made anew from raw lines nothing is known but the file: `stretches` is empty.
    `mapper`: version that made its records, 0 for raw.
    """

    file: archive.SegmentFile
    name: SegmentName
    incarnation: str
    first_seq: int
    last_seq: int
    stretches: tuple[Stretch, ...]

    @property
    def mapper(self) -> int:
        return self.name.shelf.mapper

    def wants(self, session: int, first_n: int, last_n: int) -> bool:
        """Whether the entries first_n..last_n are its."""
        return any(one.session == session and one.after_n < first_n and last_n <= one.last_n for one in self.stretches)

    def is_whole(self, places: Iterable[tuple[Place, int]]) -> str:
        """What is missing, in words, of blocks (their first place, their last n) in order; "" = nothing."""
        reached = {one.session: one.after_n for one in self.stretches}
        for place, last_n in places:
            if place.n != reached.get(place.session, -1) + 1:
                return f"entry {reached.get(place.session, 0) + 1} of session {place.session} is not there"
            reached[place.session] = last_n
        for one in self.stretches:
            if reached[one.session] != one.last_n:
                return f"entries {reached[one.session] + 1}..{one.last_n} of session {one.session} are not there"
        return ""


class Seals:
    """Every sealed file of a feed, from its events in journal order."""

    def __init__(self) -> None:
        self._reached: dict[tuple[str, str, int], int] = {}
        self._targets: dict[str, Target] = {}

    def apply(self, parts: tuple[str, ...], event: object) -> None:
        """Take an event of aggregate archive . `parts`."""
        if isinstance(event, archive.SegmentSealed):
            _, _, type_, connection = parts
            stretches = []
            for one in sorted(event.sessions, key=lambda reached: reached.session):
                key = type_, connection, one.session
                stretches.append(Stretch(one.session, self._reached.get(key, 0), one.last_n))
                self._reached[key] = max(self._reached.get(key, 0), one.last_n)
            for file in event.files:
                try:
                    name = parse_segment(file.key)
                except Malformed:
                    continue  # verify tells it
                self._targets[file.key] = Target(
                    file, name, event.incarnation, event.first_seq, event.last_seq, tuple(stretches)
                )
        elif isinstance(event, archive.Renormalized):
            for file in event.files:
                self._targets[file.key] = Target(file, parse_segment(file.key), "", 0, 0, ())
        elif isinstance(event, archive.Repaired) and event.file is not None:
            before = self._targets.pop(event.key, None)
            if before is not None:
                self._targets[event.file.key] = before._replace(file=event.file, name=parse_segment(event.file.key))

    def target(self, key: str) -> Target | None:
        """The sealed file at `key`; None = no seal names it."""
        return self._targets.get(key)


def fit_of(target: Target, made: SegmentFacts) -> Fit:
    """How what was made fits the seal."""
    file = target.file
    if made.sha256 == file.sha256:
        return "same object"
    if (made.content_sha256, made.content_bytes) == (file.content_sha256, file.content_bytes):
        return "same content"
    times = (file.ts_recv_first_ns, file.ts_recv_last_ns)
    is_alike = made.records == file.records and made.content_bytes == file.content_bytes
    # Lines of the raw archive have one order only: other bytes are other lines.
    if target.mapper and is_alike and (made.ts_recv_first_ns, made.ts_recv_last_ns) == times:
        return "same records"
    return ""


def misfit(target: Target, made: SegmentFacts) -> str:
    """Why what was made is of no use."""
    file = target.file
    return (
        f"it gives {made.records} records in {made.content_bytes} bytes, sealed were {file.records} in {file.content_bytes}"
        if (made.records, made.content_bytes) != (file.records, file.content_bytes)
        else f"it gives other content (sha256 {made.content_sha256[:16]}..., sealed was {file.content_sha256[:16]}...)"
    )


def revised(target: Target, made: SegmentFacts, revision: int) -> archive.SegmentFile:
    """The file that takes the place of the damaged one, under a key of its own."""
    return archive.SegmentFile(
        key=target.name._replace(revision=revision).key,
        kind=target.file.kind,
        size_bytes=made.size_bytes,
        sha256=made.sha256,
        content_bytes=made.content_bytes,
        content_sha256=made.content_sha256,
        records=made.records,
        ts_recv_first_ns=made.ts_recv_first_ns,
        ts_recv_last_ns=made.ts_recv_last_ns,
    )


class Repair(msgspec.Struct, frozen=True):
    """What became of one damaged object.

    Attributes:
        source: stream, tape, replica or raw; "" = none had it, `tried` says why of each.
        fit: how what the source gave fits the seal; key_now: where it stands (the old key, or a revision beside it).
    """

    key: str
    problem: str
    source: str
    fit: str
    key_now: str
    tried: Mapping[str, str]

    @property
    def is_done(self) -> bool:
        return self.source != ""
