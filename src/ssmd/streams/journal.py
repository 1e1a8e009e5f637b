"""The journal port: append-only, one exact subject per aggregate, optimistic concurrency. Backends: nats, sqlite, memory.

Positions are journal sequence numbers, from 1, strictly rising, not necessarily contiguous within a filter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from ssmd.domain.envelope import AggregateId, Envelope

EVENTS_PER_APPEND_MAX = 1000
"""An append of more events than this is refused, never split: an atomic batch of JetStream holds no more."""


class RecordedEvent(NamedTuple):
    """An event in the journal. `payload` is the stored bytes of `envelope`."""

    position: int
    envelope: Envelope
    payload: bytes


class PoisonEvent(NamedTuple):
    """A journal message that is no event envelope; readers decide what that means (never to skip it in silence)."""

    position: int
    subject: str
    payload: bytes
    reason: str


class AppendGroup(NamedTuple):
    """New events of one aggregate, to follow its version `expected_version` (0 = the aggregate is new)."""

    aggregate: AggregateId
    expected_version: int
    events: Sequence[Envelope]


class Journal(Protocol):
    """What every backend promises.

    - `append` is all or nothing over all groups; acknowledged means durable to the backend's setting.
    - After a raised Unavailable the append may or may not have happened; calling again with the same `command_id` and
      events finds out and never writes twice. It never happens later by itself.
    - Readers see events in position order, without holes among those that match.
    """

    async def append(self, groups: Sequence[AppendGroup], *, command_id: str) -> int:
        """Append atomically.

        Returns:
            position of the last event written (for a repeated command: written then).

        Raises:
            Conflict: an aggregate is not at its expected version.
            Rejected: no events, or more than EVENTS_PER_APPEND_MAX.
            Unavailable: no answer within the deadline.
        """
        ...

    async def load(self, aggregate: AggregateId, *, after_version: int = 0, after_position: int = 0) -> list[RecordedEvent]:
        """All events of one aggregate with a version above `after_version`, in order. Reads its own writes.

        Args:
            after_position: a position below that of the first event wanted, where it is known (a snapshot says it): the
                journal need not look for it. 0 = not known.

        Raises:
            Malformed: versions are missing or twice there, or `after_position` is not below them.
        """
        ...

    def replay(
        self, *, after: int = 0, until: int | None = None, filters: Sequence[str] = ()
    ) -> AsyncIterator[list[RecordedEvent | PoisonEvent]]:
        """Batches of the events at positions in (after, until], `until` None = the head when called; then ends.

        Args:
            filters: aggregate kinds ("capture"), or exact aggregates as "kind/key"; none = all.
        """
        ...

    def follow(self, *, after: int = 0, filters: Sequence[str] = ()) -> AsyncIterator[list[RecordedEvent | PoisonEvent]]:
        """As `replay`, then waits for new events; ends only when cancelled or closed. Survives a backend's restart."""
        ...

    async def restore(self, after: int, messages: Sequence[tuple[str, bytes]]) -> int:
        """Write messages as they stood in another journal, behind position `after`; for copies only.

        No rule is asked; all or nothing.

        Args:
            messages: (what stands behind "{env}.journal." in the subject, payload), 1 to EVENTS_PER_APPEND_MAX of them.

        Returns:
            position of the last one.

        Raises:
            Conflict: the journal does not end at `after`; nothing was written.
            Unavailable: no answer; the messages may have been written.
        """
        ...

    async def head(self) -> int:
        """Position of the last event, 0 = empty."""
        ...

    async def close(self) -> None:
        """Release the connection. Safe to call twice."""
        ...
