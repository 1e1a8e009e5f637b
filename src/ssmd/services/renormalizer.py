"""Makes a date's records anew from its raw lines, by today's mapper: a new version beside the old, and a diff.

Theory of operation. One pass over the raw lines gives the diff and, in a spool, the segments of the partitions whose
records an older mapper made. Then they are stored, and one event a partition says that they took the place of the others.
Killed before that event, the archive is what it was, with objects that nobody names; the next run makes the same and
adopts them. A partition that today's mapper made is left alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from ssmd.application.handler import Application
from ssmd.archive.record_segments import MadeSegment, Making, PartitionWriter, stored_pieces
from ssmd.archive.record_standing import RecordStanding, with_raw_event, with_record_event
from ssmd.archive.repair import REVISIONS_MAX
from ssmd.archive.segment_index import build, index_key
from ssmd.archive.storage import Storage
from ssmd.archive.versions import Wanted
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Conflict, Malformed, Rejected
from ssmd.schemas.records import Record
from ssmd.streams.journal import Journal, PoisonEvent
from ssmd.transforms.renormalize import Comparison, MakeMapper, MappedEntry, compared, flattened, mapped

FILES_MAX: Final = 1000
"""Of one event: about half of what a journal takes."""

State = Literal["current", "due", "written", "left"]
Progress = Callable[[str, int, int], None]


class PartitionOutcome(msgspec.Struct, frozen=True):
    """What became of one partition.

    Attributes:
        state: current = today's mapper made its records; due = it would be written; left = it should be and was not.
        mappers: versions that made its current records before.
        segments, records, size_bytes: what was written.
        differing: places where its records differ from those before.
    """

    partition: str
    state: State
    mappers: tuple[int, ...]
    why_not: str = ""
    segments: int = 0
    records: int = 0
    size_bytes: int = 0
    differing: int = 0


class Renormalization(msgspec.Struct, frozen=True):
    """The diff of the whole date, and what became of its partitions, by name."""

    comparison: Comparison
    partitions: tuple[PartitionOutcome, ...]

    @property
    def is_written(self) -> bool:
        return any(one.state == "written" for one in self.partitions)

    @property
    def is_well(self) -> bool:
        """Nothing is left to do that was not done, and what was to be equal is equal."""
        if any(one.state == "left" for one in self.partitions):
            return False
        return self.is_written or self.comparison.is_equal


class Renormalizer(NamedTuple):
    """What renormalizing needs.

    Attributes:
        day_of: the archive's date of an instant (UTC ns).
        level, segment_bytes: as archivers of the environment write; the spool holds the new segments of a whole date.
    """

    env: str
    feed: str
    storage: Storage
    journal: Journal
    application: Application
    make_mapper: MakeMapper
    day_of: Callable[[int], str]
    level: int
    segment_bytes: int
    spool: Path
    actor: str

    async def run(self, date: str, *, is_dry: bool, mapper: int = 0, progress: Progress) -> Renormalization:
        """Compare, and write what is due.

        Args:
            is_dry: write and journal nothing.
            mapper: version to compare with, 0 = the current records.

        Raises:
            Rejected: "nothing-archived", "no-such-version", "too-many-segments"; "archive-moved": something was sealed
                meanwhile.
            Malformed: the raw archive or the journal is damaged. Unavailable: journal or storage are away.
            Conflict: the storage holds others under all names there are.
            OSError: the spool cannot be written.
        """
        version = self.make_mapper(1).version
        standings = await self._standings(date)
        if not standings:
            raise Rejected("nothing-archived", f"nothing of {self.feed} is archived for {date}", mend="ssmd data inventory")
        outcomes = {one.partition: _planned(one, version, date) for one in standings}
        due = [name for name, one in outcomes.items() if one.state == "due"]
        wanted = Wanted(self.env, self.feed, date, mapper)
        making = Making(self.env, self.feed, date, version, self.level, self.segment_bytes)
        writers = {name: PartitionWriter(making, name, self.spool, _stem(date, name)) for name in due if not is_dry}
        sessions: dict[int, str] = {}
        try:
            entries = self._written(mapped(self.storage, wanted, self.make_mapper, self.day_of), writers, sessions, progress)
            comparison = await compared(self.storage, wanted, flattened(entries), version)
            differing: dict[str, int] = {}
            for session, count in comparison.by_session.items():
                name = sessions.get(session, "")
                differing[name] = differing.get(name, 0) + count
            for standing in standings:
                name = standing.partition
                if name in writers:
                    outcomes[name] = await self._store(standing, writers[name], version, date, differing.get(name, 0))
                else:
                    outcomes[name] = msgspec.structs.replace(outcomes[name], differing=differing.get(name, 0))
        finally:
            for writer in writers.values():
                writer.discard()
        return Renormalization(comparison, tuple(outcomes[name] for name in sorted(outcomes)))

    async def _standings(self, date: str) -> list[RecordStanding]:
        """Every partition that has records of the date, by name."""
        found: dict[str, RecordStanding] = {}
        with_records: set[str] = set()
        async for batch in self.journal.replay(filters=[archive.AGGREGATE]):
            for recorded in batch:
                if isinstance(recorded, PoisonEvent):
                    raise Malformed(
                        f"journal position {recorded.position} cannot be read: {recorded.reason}", mend="ssmd journal verify"
                    )
                feed, of_date, type_, partition = recorded.envelope.aggregate_key.parts
                if (feed, of_date) != (self.feed, date):
                    continue
                event = CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data)
                held = found.get(partition) or RecordStanding(partition)
                found[partition] = with_raw_event(held, event) if type_ == "raw" else with_record_event(held, event)
                if type_ != "raw":
                    with_records.add(partition)
        return [found[name] for name in sorted(with_records)]

    async def _written(
        self,
        batches: AsyncIterator[list[MappedEntry]],
        writers: dict[str, PartitionWriter],
        sessions: dict[int, str],
        progress: Progress,
    ) -> AsyncIterator[list[MappedEntry]]:
        """What comes, given on once it is in the spool."""
        done = 0
        async for batch in batches:
            of_partition: dict[str, list[tuple[int, Sequence[Record]]]] = {}
            for connection, session, ordinal, records in batch:
                sessions[session] = connection
                if connection in writers:
                    of_partition.setdefault(connection, []).append((ordinal, records))
            for name, entries in of_partition.items():
                await asyncio.to_thread(writers[name].take, entries)
            done += len(batch)
            progress("entries mapped", done, 0)
            yield batch

    async def _store(
        self, standing: RecordStanding, writer: PartitionWriter, version: int, date: str, differing: int
    ) -> PartitionOutcome:
        made = await asyncio.to_thread(writer.finish)
        if len(made) > FILES_MAX:
            raise Rejected(
                "too-many-segments",
                f"the records of {standing.partition} would be {len(made)} segments, at most {FILES_MAX} go into an event",
                mend="set archive.segment_bytes of the environment higher",
            )
        files = [await self._stored(one) for one in made]
        await self.application.handle(
            archive.DECIDER,
            (self.feed, date, "normalized", standing.partition),
            archive.RecordRenormalization(version, tuple(files), standing.sealed, differing),
            actor=self.actor,
        )
        return PartitionOutcome(
            standing.partition,
            "written",
            standing.mappers,
            segments=len(files),
            records=sum(file.records for file in files),
            size_bytes=sum(file.size_bytes for file in files),
            differing=differing,
        )

    async def _stored(self, made: MadeSegment) -> archive.SegmentFile:
        """Store a segment and its sidecar; the same bytes may be there already."""
        for revision in range(REVISIONS_MAX):
            file = made.file(revision)
            try:
                await self.storage.put_file(file.key, made.path)
            except Conflict:
                continue  # another zstd made its frames
            sidecar = await asyncio.to_thread(build, file.kind, file.sha256, stored_pieces(made.path))
            if sidecar is not None:
                await self.storage.put(index_key(file.key), sidecar)
            return file
        raise Conflict(f"{made.file().key} has {REVISIONS_MAX} revisions that are other files", mend="ssmd data verify")


def _planned(standing: RecordStanding, version: int, date: str) -> PartitionOutcome:
    why_not = standing.why_not(version, date)
    is_due = standing.is_due(version)
    is_newer = max(standing.mappers, default=0) > version
    if why_not and (is_due or is_newer):
        return PartitionOutcome(standing.partition, "left", standing.mappers, why_not)
    return PartitionOutcome(standing.partition, "due" if is_due else "current", standing.mappers)


def _stem(date: str, partition: str) -> str:
    """Short, and no two alike."""
    return f"records-{hashlib.sha256(f'{date} {partition}'.encode()).hexdigest()[:16]}"
