"""Deletes what is old, by the journal's word: first the fact, then the objects.

Killed between the two, nothing is missed and nothing called damaged: the journal says pruned already, and the next run
deletes what is left. Where the environment names a replica, an object is pruned only once its copy there has been read
and is what was sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import NamedTuple

import msgspec

from ssmd.application.handler import Application
from ssmd.archive.retention import KEYS_PER_EVENT, PartitionFiles, Pruning, last_date, plan, with_event
from ssmd.archive.segment_index import index_key, segment_key_of
from ssmd.archive.storage import Storage
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Malformed, Rejected
from ssmd.identifiers import encode_token
from ssmd.streams.journal import Journal, PoisonEvent

TYPES = ("raw", "normalized")


class Pruned(msgspec.Struct, frozen=True):
    """What a run did, or would do. `leftovers`: objects of an earlier run that was killed, now deleted."""

    partitions: tuple[Pruning, ...]
    deleted: int
    size_bytes: int
    leftovers: int


class HeldPartition(msgspec.Struct, frozen=True):
    """A hold on a partition."""

    name: str
    reason: str
    date: str
    type: str
    partition: str


async def partitions_of(journal: Journal, feed: str) -> list[PartitionFiles]:
    """Every partition of a feed, by date, type and connection.

    Raises:
        Malformed: the journal holds what cannot be read: nothing may be deleted on its word.
    """
    found: dict[tuple[str, ...], PartitionFiles] = {}
    async for batch in journal.replay(filters=[archive.AGGREGATE]):
        for recorded in batch:
            if isinstance(recorded, PoisonEvent):
                raise Malformed(
                    f"journal position {recorded.position} cannot be read: {recorded.reason}", mend="ssmd journal verify"
                )
            parts = recorded.envelope.aggregate_key.parts
            of_feed, date, type_, partition = parts
            if of_feed == feed:
                before = found.get(parts) or PartitionFiles(feed, date, type_, partition)
                found[parts] = with_event(before, CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data))
    return [found[parts] for parts in sorted(found)]


class Pruner(NamedTuple):
    """What pruning needs. `replica` None = the environment names none."""

    env: str
    feed: str
    storage: Storage
    replica: Storage | None
    journal: Journal
    application: Application
    actor: str

    async def prune(
        self, days: Mapping[str, int], today: str, *, is_dry: bool, progress: Callable[[str, int, int], None]
    ) -> Pruned:
        """Delete the partitions that are at least so many days old.

        Args:
            days: by type; a type that is absent is kept.
            is_dry: delete and journal nothing.

        Raises:
            Unavailable: journal, storage or replica are away; what was journaled is completed by the next run.
            Malformed: as `partitions_of`.
        """
        every = await partitions_of(self.journal, self.feed)
        old = [one for one in every if one.type in days and one.date <= last_date(today, days[one.type]) and one.files]
        leftovers = 0 if is_dry else await self._delete_leftovers(every)
        told: list[Pruning] = []
        deleted = size_bytes = 0
        for number, held in enumerate(old, 1):
            pruning = plan(held)
            if not pruning.why_not:
                pruning = msgspec.structs.replace(pruning, why_not=await self._why_not(held))
            if not pruning.why_not and not is_dry:
                pruning = msgspec.structs.replace(pruning, why_not=await self._delete(held, days[held.type]))
            told.append(pruning)
            if not pruning.why_not:
                deleted += pruning.segments
                size_bytes += pruning.size_bytes
            progress("old partitions", number, len(old))
        return Pruned(tuple(told), deleted, size_bytes, leftovers)

    async def _why_not(self, held: PartitionFiles) -> str:
        if self.replica is None:
            return ""
        for key, file in sorted(held.files.items()):
            stat = await self.replica.stat(key)
            if stat is None:
                return f"the replica does not have {key}"
            if stat != (file.sha256, file.size_bytes):
                return f"{key} of the replica is not what was sealed"
        return ""

    async def _delete(self, held: PartitionFiles, days: int) -> str:
        """Why it was not deleted after all: somebody put a hold on it meanwhile."""
        keys = iter(sorted(held.files))
        while chunk := tuple(islice(keys, KEYS_PER_EVENT)):
            size_bytes = sum(held.files[key].size_bytes for key in chunk)
            try:
                await self.application.handle(
                    archive.DECIDER,
                    held.parts,
                    archive.RecordPruning(chunk, size_bytes, f"older than {days} days"),
                    actor=self.actor,
                )
            except Rejected as error:
                return error.message
            for key in chunk:
                await self._remove(key)
        return ""

    async def _delete_leftovers(self, every: list[PartitionFiles]) -> int:
        pruned = {key for held in every for key in held.pruned}
        if not pruned:
            return 0
        env, feed = encode_token(self.env), encode_token(self.feed)
        prefixes = [f"{type_}/{env}/{feed}/" for type_ in TYPES]
        left = [key for prefix in prefixes async for key in self.storage.list(prefix) if (segment_key_of(key) or key) in pruned]
        for key in left:
            await self.storage.delete(key)
        return len(left)

    async def _remove(self, key: str) -> None:
        """A segment and the sidecar that lies beside some."""
        await self.storage.delete(key)
        await self.storage.delete(index_key(key))

    # Holds

    async def hold(self, name: str, reason: str, date_from: str, date_to: str) -> list[HeldPartition]:
        """Put a hold on what is archived of the dates (both inclusive); the partitions it lies on.

        Raises:
            Rejected: "nothing-archived".
        """
        chosen = [one for one in await partitions_of(self.journal, self.feed) if date_from <= one.date <= date_to and one.files]
        if not chosen:
            raise Rejected(
                "nothing-archived",
                f"nothing of {self.feed} is archived from {date_from} to {date_to}",
                mend="ssmd data inventory",
            )
        for one in chosen:
            await self.application.handle(archive.DECIDER, one.parts, archive.HoldPartition(name, reason), actor=self.actor)
        return [HeldPartition(name, one.holds.get(name, reason), one.date, one.type, one.partition) for one in chosen]

    async def release(self, name: str) -> list[HeldPartition]:
        """Take a hold off everything; where it lay.

        Raises:
            Rejected: "no-such-hold".
        """
        held = [one for one in await self.holds() if one.name == name]
        if not held:
            raise Rejected("no-such-hold", f'there is no hold "{name}" on {self.feed}', mend="ssmd data hold list")
        for one in held:
            parts = (self.feed, one.date, one.type, one.partition)
            await self.application.handle(archive.DECIDER, parts, archive.ReleaseHold(name), actor=self.actor)
        return held

    async def holds(self) -> list[HeldPartition]:
        """Every hold on every partition, by name and date."""
        return sorted(
            (
                HeldPartition(name, reason, one.date, one.type, one.partition)
                for one in await partitions_of(self.journal, self.feed)
                for name, reason in one.holds.items()
            ),
            key=lambda one: (one.name, one.date, one.type, one.partition),
        )
