"""What every journal backend checks alike: what may be appended, what a filter means, what a stored message is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ssmd.domain.envelope import AggregateId, decode_envelope, decode_plain
from ssmd.errors import Conflict, Malformed, Rejected
from ssmd.identifiers import encode_token
from ssmd.streams.journal import EVENTS_PER_APPEND_MAX, AppendGroup, PoisonEvent, RecordedEvent

DAMAGED: Final = "run `ssmd journal verify`; restore the journal from its second copy"


def check_append(groups: Sequence[AppendGroup]) -> int:
    """Number of events in `groups`.

    Raises:
        Rejected: nothing to append, too much, or events that do not follow `expected_version` of their aggregate.
    """
    total = sum(len(group.events) for group in groups)
    if not total or not all(group.events for group in groups):
        raise Rejected("append-empty", f"an append of {len(groups)} groups has a group without events")
    if total > EVENTS_PER_APPEND_MAX:
        raise Rejected(
            "append-too-large", f"{total} events in one append; at most {EVENTS_PER_APPEND_MAX} are atomic, none was written"
        )
    if len({group.aggregate for group in groups}) != len(groups):
        raise Rejected("append-aggregate-twice", "an aggregate stands in two groups of one append")
    for group in groups:
        if not group.aggregate.parts:
            raise Rejected("append-no-id", f"aggregate {group.aggregate.aggregate!r} has an id without parts")
        _check_group(group)
    return total


def _check_group(group: AppendGroup) -> None:
    kind, key = group.aggregate.aggregate, group.aggregate.key
    for version, envelope in enumerate(group.events, group.expected_version + 1):
        if envelope.version != version or envelope.aggregate != kind or envelope.aggregate_id != key:
            raise Rejected(
                "append-out-of-order",
                f"event {envelope.id} is {envelope.aggregate}/{envelope.aggregate_id} version {envelope.version}, "
                f"expected {group.aggregate} version {version}",
            )


def conflict(group: AppendGroup, found_version: int | None) -> Conflict:
    """The error for an aggregate that is not at its expected version; `found_version` None = not known."""
    found = "it has moved on" if found_version is None else f"it is at version {found_version}"
    return Conflict(f"{group.aggregate} is not at version {group.expected_version}: {found}; nothing was written")


def command_id_reused(command_id: str) -> Rejected:
    """The error for a command id under which other events were written."""
    return Rejected("command-id-reused", f"command id {command_id!r} has already written other events; these were not written")


def is_written(group: AppendGroup, stored: Sequence[RecordedEvent]) -> bool:
    """Whether `stored`, read behind the group's expected version, begins with exactly the group's events."""
    return len(stored) >= len(group.events) and all(
        event.envelope.id == wanted.id for event, wanted in zip(stored, group.events, strict=False)
    )


class Filter(NamedTuple):
    """A taken-apart filter: one kind of aggregate, or with a `key` one aggregate."""

    kind: str
    key: str = ""

    def matches(self, tail: str) -> bool:
        """Whether the message at subject tail `tail` ("kind.key") is wanted."""
        wanted = encode_token(self.kind)
        return tail == f"{wanted}.{self.key}" if self.key else tail.startswith(wanted + ".")


def parse_filters(filters: Sequence[str]) -> list[Filter]:
    """`filters` of the port without those another one covers; [] = all.

    Raises:
        Malformed: for a filter that names no aggregate.
    """
    parsed: list[Filter] = []
    for text in filters:
        kind, slash, key = text.partition("/")
        if not kind or (slash and not key):
            raise Malformed(f"not a journal filter: {text!r}; expected KIND or KIND/KEY")
        if key:
            AggregateId.parse(kind, key)
        parsed.append(Filter(kind, key))
    whole = {one.kind for one in parsed if not one.key}
    return list(dict.fromkeys(one for one in parsed if not one.key or one.kind not in whole))


class Reader:
    """Makes events of stored messages. `prefix` is what stands before "kind.key" in a subject ("dev.journal.")."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._kinds: dict[str, str] = {}

    def read_all(self, messages: Iterable[tuple[int, str, bytes, object, object]]) -> list[RecordedEvent | PoisonEvent]:
        """As `read` for messages that begin with (position, subject, payload); most of a replay's time is spent here."""
        events: list[RecordedEvent | PoisonEvent] = []
        append, new, kinds, decode = events.append, tuple.__new__, self._kinds, decode_plain
        for position, subject, payload, _, _ in messages:
            try:
                envelope = decode(payload)
                is_own = subject == kinds[envelope.aggregate] + envelope.aggregate_id
            except (ValueError, KeyError, RecursionError):
                is_own = False
            # What is not plainly right is looked at closely.
            append(new(RecordedEvent, (position, envelope, payload)) if is_own else self.read(position, subject, payload))
        return events

    def read(self, position: int, subject: str, payload: bytes) -> RecordedEvent | PoisonEvent:
        """The event, or the poison, at `position`: an envelope that is not of the aggregate of its subject is poison."""
        try:
            envelope = decode_envelope(payload)
        except Malformed as error:
            return PoisonEvent(position, subject, payload, error.message)
        aggregate = envelope.aggregate
        kind = self._kinds.get(aggregate)
        if kind is None:
            kind = self._kinds[aggregate] = self.prefix + (encode_token(aggregate or "-")) + "."
        if subject != kind + envelope.aggregate_id:
            reason = f"an event of {envelope.aggregate}/{envelope.aggregate_id} on the subject of another aggregate"
            return PoisonEvent(position, subject, payload, reason)
        return RecordedEvent(position, envelope, payload)


def contiguous(
    aggregate: AggregateId, after_version: int, messages: Iterable[RecordedEvent | PoisonEvent]
) -> list[RecordedEvent]:
    """The events of one aggregate behind `after_version`. Foreign messages between them are no events and left out.

    Raises:
        Malformed: a version is missing or twice there: the journal is damaged.
    """
    events: list[RecordedEvent] = []
    expected = after_version + 1
    for message in messages:
        if isinstance(message, PoisonEvent):
            continue
        version = message.envelope.version
        if version <= after_version and not events:
            continue
        if version != expected:
            raise Malformed(
                f"{aggregate}: position {message.position} holds version {version}, expected {expected}", mend=DAMAGED
            )
        events.append(message)
        expected += 1
    return events
