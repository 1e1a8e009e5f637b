"""Commands and events of aggregate `archive . {feed} . {date} . {type} . {partition}`; their rules: `domain.archive`."""

from __future__ import annotations

import msgspec


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


class RecordVerification(msgspec.Struct, frozen=True):
    """Every stored object of the partition was read and is as its seal says. `check` identifies the reading."""

    check: str
    objects: int
    size_bytes: int


class RecordDamage(msgspec.Struct, frozen=True):
    """The object `key` is not as its seal says. `found_sha256` "" = it cannot be read or is absent."""

    key: str
    problem: str
    expected_sha256: str
    found_sha256: str


class RecordRepair(msgspec.Struct, frozen=True):
    """The object `key` is as its seal says again, or `file` took its place. `source`: where the bytes came from."""

    key: str
    source: str
    sha256: str
    file: SegmentFile | None = None


class RecordRenormalization(msgspec.Struct, frozen=True):
    """The records of the whole partition were made anew by `mapper`; `files` take the place of those before.

    `sealed`: files the partition had sealed when they were made; `differing`: as the event has it.
    """

    mapper: int
    files: tuple[SegmentFile, ...]
    sealed: int
    differing: int


class RecordPruning(msgspec.Struct, frozen=True):
    """Objects are deleted on purpose: from here on nobody may expect them."""

    keys: tuple[str, ...]
    size_bytes: int
    reason: str


class HoldPartition(msgspec.Struct, frozen=True):
    """Nothing of the partition may be pruned while the hold `name` lasts."""

    name: str
    reason: str


class ReleaseHold(msgspec.Struct, frozen=True):
    name: str


class RecordStreamRegressed(msgspec.Struct, frozen=True):
    """The stream is shorter than the position, or holds another message there. `action`: what is done about it."""

    epoch: int
    incarnation: str
    position: int
    found_last: int
    found_message_id: str
    action: str


class RecordStreamTruncated(msgspec.Struct, frozen=True):
    """Retention overtook the archiver: messages from behind `position` to before `first_available` are gone."""

    epoch: int
    incarnation: str
    position: int
    first_available: int
    action: str


class AssessQuality(msgspec.Struct, frozen=True):
    """What the day's data is worth by the rules of version `rules`; `assessment` as the event has it."""

    assessment: QualityAssessed


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


class Verified(msgspec.Struct, frozen=True, tag_field="type", tag="archive.verified.v1"):
    """Every object was read and is as its seal says. `check` identifies the reading."""

    check: str
    objects: int
    size_bytes: int


class Damaged(msgspec.Struct, frozen=True, tag_field="type", tag="archive.damaged.v1"):
    """`found_sha256` "" = the object cannot be read or is absent."""

    key: str
    problem: str
    expected_sha256: str
    found_sha256: str


class Repaired(msgspec.Struct, frozen=True, tag_field="type", tag="archive.repaired.v1"):
    """`file` null = `key` holds the sealed bytes again; else it stands beside and takes the place of `key`.

    `source`: stream | tape | replica | raw.
    """

    key: str
    source: str
    sha256: str
    file: SegmentFile | None = None


class Renormalized(msgspec.Struct, frozen=True, tag_field="type", tag="archive.renormalized.v1"):
    """`files` are the records of all of the partition, and take the place of every file of it so far, which stay stored.

    `differing`: places where the records differ from those that were current before. What is sealed later is added.
    """

    mapper: int
    files: tuple[SegmentFile, ...]
    differing: int


class Pruned(msgspec.Struct, frozen=True, tag_field="type", tag="archive.pruned.v1"):
    keys: tuple[str, ...]
    size_bytes: int
    reason: str


class Held(msgspec.Struct, frozen=True, tag_field="type", tag="archive.held.v1"):
    """A hold lies on the partition: it is not pruned. `reason`: whoever asked for it said why."""

    name: str
    reason: str


class HoldReleased(msgspec.Struct, frozen=True, tag_field="type", tag="archive.hold-released.v1"):
    name: str


class StreamRegressed(msgspec.Struct, frozen=True, tag_field="type", tag="archive.stream-regressed.v1"):
    """`incarnation`: what the stream's messages are counted under from here on: old sequences mean nothing any more."""

    incarnation: str
    position: int
    found_last: int
    found_message_id: str
    action: str


class StreamTruncated(msgspec.Struct, frozen=True, tag_field="type", tag="archive.stream-truncated.v1"):
    """The connector that finds this newer than the last seal publishes again, from its tape, what is not sealed."""

    incarnation: str
    position: int
    first_available: int
    action: str


class QualityAssessed(msgspec.Struct, frozen=True, tag_field="type", tag="archive.quality-assessed.v1"):
    """Durations are sums over tickers; `score_ppm` is in millionths, 1,000,000 = nothing to complain of.

    `until_position`: journal position up to which events were considered; `reasons`: why it is not better, in words.
    """

    rules: int
    score_ppm: int
    tickers: int
    verified_ns: int
    unverifiable_ns: int
    missing_ns: int
    repaired_ns: int
    until_position: int
    reasons: tuple[str, ...]


ArchiveCommand = (
    OpenPartition
    | PlanSegment
    | SealSegment
    | CompletePartition
    | RecordVerification
    | RecordDamage
    | RecordRepair
    | RecordRenormalization
    | RecordPruning
    | HoldPartition
    | ReleaseHold
    | RecordStreamRegressed
    | RecordStreamTruncated
    | AssessQuality
)
ArchiveEvent = (
    Opened
    | SegmentPlanned
    | SegmentSealed
    | Completed
    | Reopened
    | Verified
    | Damaged
    | Repaired
    | Renormalized
    | Pruned
    | Held
    | HoldReleased
    | StreamRegressed
    | StreamTruncated
    | QualityAssessed
)
EVENTS = (
    Opened,
    SegmentPlanned,
    SegmentSealed,
    Completed,
    Reopened,
    Verified,
    Damaged,
    Repaired,
    Renormalized,
    Pruned,
    Held,
    HoldReleased,
    StreamRegressed,
    StreamTruncated,
    QualityAssessed,
)
