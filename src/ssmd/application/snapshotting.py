"""How the application keeps and trusts snapshots of aggregates."""

from __future__ import annotations

import hashlib
import inspect
import sys
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.domain.decider import Catalogue, Decider
from ssmd.domain.envelope import AggregateId
from ssmd.errors import Malformed, Unavailable
from ssmd.streams.journal import Journal
from ssmd.streams.journal_snapshots import Snapshot, Snapshots

SNAPSHOT_EVERY: Final = 200
"""Versions between two snapshots of an aggregate."""


class Folded(NamedTuple):
    """A state, the version and position it stands at, and the version of the snapshot there is (0 = none)."""

    version: int
    position: int
    state: Any
    snapshot_version: int


class Snapshotting:
    """Best effort: a store that is away, or a state that is not the same after being stored, costs time only."""

    def __init__(self, snapshots: Snapshots, journal: Journal, catalogue: Catalogue) -> None:
        self._snapshots = snapshots
        self._journal = journal
        self._catalogue = catalogue
        self._shapes: dict[str, str] = {}

    def _shape(self, decider: Decider[Any, Any, Any]) -> str:
        """The text of the aggregate's module: whatever is changed in its rules makes its snapshots worthless."""
        shape = self._shapes.get(decider.aggregate)
        if shape is None:
            module = sys.modules[decider.evolve.__module__]
            try:
                source = inspect.getsource(module)
            except OSError:
                source = ""  # an installation without sources keeps no snapshots
            shape = hashlib.sha256(source.encode()).hexdigest() if source else ""
            self._shapes[decider.aggregate] = shape
        return shape

    async def load(self, decider: Decider[Any, Any, Any], aggregate: AggregateId) -> Folded | None:
        """The aggregate as it is now, from its snapshot; None = there is none that fits this journal and these rules."""
        try:
            snapshot = await self._snapshots.get(aggregate)
        except Unavailable:
            return None
        if snapshot is None or not snapshot.shape or snapshot.shape != self._shape(decider):
            return None
        try:
            state = msgspec.json.decode(snapshot.state, type=type(decider.initial))
            recorded = await self._journal.load(
                aggregate, after_version=snapshot.version - 1, after_position=snapshot.position - 1
            )
        except (msgspec.DecodeError, Malformed):
            return None
        if not recorded or (recorded[0].position, recorded[0].envelope.id) != (snapshot.position, snapshot.event_id):
            return None
        events = [self._catalogue.decode(one.envelope.type, one.envelope.data) for one in recorded[1:]]
        last = recorded[-1]
        return Folded(last.envelope.version, last.position, decider.fold(events, state), snapshot.version)

    async def keep(self, decider: Decider[Any, Any, Any], aggregate: AggregateId, folded: Folded, event_id: str) -> int:
        """Store a snapshot when one is due; the version of the one there is."""
        if folded.version - folded.snapshot_version < SNAPSHOT_EVERY or not self._shape(decider):
            return folded.snapshot_version
        try:
            encoded = msgspec.json.encode(folded.state)
            if msgspec.json.decode(encoded, type=type(decider.initial)) != folded.state:
                return folded.version
            snapshot = Snapshot(folded.position, folded.version, event_id, self._shape(decider), encoded)
            await self._snapshots.put(aggregate, snapshot)
        except (TypeError, msgspec.MsgspecError, Unavailable):
            # A state that cannot be stored, or a store that is away: asked again after as many versions.
            return folded.version
        return folded.version
