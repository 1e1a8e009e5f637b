"""Where a damaged archive file can come from again: the streams, the tape, a replica, the raw archive.

Streams and tape have the blocks as they were archived, so that they give the very object that was sealed. The raw archive
has every entry, but not where blocks ended: it gives the same records.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from ssmd.archive.continuity import Place, Unit
from ssmd.archive.reading import Wanted, raw_lines
from ssmd.archive.record_segments import Making, PartitionWriter
from ssmd.archive.repair import Target
from ssmd.archive.segment import SegmentFacts, SegmentWriter
from ssmd.archive.shelf_manifest import raw_shelf
from ssmd.archive.storage import Storage
from ssmd.clock import DayCalendar
from ssmd.errors import Malformed, Rejected
from ssmd.exchanges.adapter import Mapper
from ssmd.schemas.blocks import Entry
from ssmd.schemas.codecs import RecordEncoder
from ssmd.schemas.records import KIND_OF
from ssmd.services.archive_intake import Intake
from ssmd.services.connector.mapper_checkpoint import start_behind
from ssmd.services.connector.tape_follower import BlockMapper, Names
from ssmd.services.normalized_archiver import MarketIntake
from ssmd.services.raw_archiver import RawIntake
from ssmd.streams.publisher import EntryPlace
from ssmd.streams.tape_cursor import TapeCursor
from ssmd.streams.tape_files import indexes
from ssmd.streams.transport import StreamMessage, Transport
from ssmd.transforms.renormalize import mapped

MakeMapper = Callable[[int], Mapper]
PATIENCE_S: Final = 5.0
PIECE_BYTES: Final = 64 << 10


class Source(Protocol):
    """Something a file can be made from."""

    @property
    def name(self) -> str: ...

    async def make(self, target: Target, path: Path) -> SegmentFacts:
        """The file of `target` at `path`, as far as the source has it.

        Raises:
            Rejected: "not-here": it does not have it, and why.
            Malformed, Unavailable: it is damaged, or away.
        """
        ...


class Made(NamedTuple):
    """How files of this environment are written. `level`: of zstd; `segment_bytes`: content of a segment."""

    env: str
    feed: str
    zone: str
    level: int
    segment_bytes: int = 64 << 20


def not_here(why: str) -> Rejected:
    """What a source raises that does not have a file."""
    return Rejected("not-here", why)


def _check_streamed(target: Target) -> None:
    if not target.stretches:
        raise not_here("its records were made anew from the raw archive")


def _intake(target: Target, made: Made) -> Intake:
    if target.name.shelf.data_type == "raw":
        return RawIntake(made.env, made.feed, zone=made.zone)
    return MarketIntake(made.env, made.feed, target.name.shelf.schema, zone=made.zone)


class _Units:
    """The blocks of one target, by their place; a block that comes again is the same block."""

    def __init__(self, target: Target, intake: Intake) -> None:
        self._target = target
        self._intake = intake
        self._units: dict[Place, Unit[Any]] = {}
        # Blocks of other stretches are not collected.
        intake.begin({})

    def take(self, message: StreamMessage) -> None:
        """Offer a message. What another connection or version left there is passed over."""
        try:
            unit = self._intake.take(message)
        except Malformed:
            return
        if unit is None or unit.connection != self._target.name.partition:
            return
        if self._target.wants(unit.session, unit.first_n, unit.last_n):
            self._units.setdefault(Place(unit.session, unit.first_n), unit)

    def missing(self) -> str:
        return self._target.is_whole((place, self._units[place].last_n) for place in sorted(self._units))

    def write(self, path: Path, level: int) -> SegmentFacts:
        """The target's kind of all blocks, as the archiver wrote it. Blocks.

        Raises:
            Rejected: "not-here": blocks are missing, or another mapper made them.
        """
        if missing := self.missing():
            raise not_here(missing)
        writer = SegmentWriter(path, level)
        try:
            encoder = None
            for place in sorted(self._units):
                unit = self._units[place]
                encoder = self._intake.encoder(unit) if encoder is None else encoder
                if self._target.mapper and encoder != self._target.mapper:
                    raise not_here(f"its records are of mapper {encoder}, sealed were those of {self._target.mapper}")
                for piece in self._intake.pieces(encoder, unit):
                    if piece.kind == self._target.file.kind:
                        writer.add(piece.encode(), piece.records, piece.ts_recv_first_ns, piece.ts_recv_last_ns)
                if writer.pending_bytes > 4 * PIECE_BYTES:
                    writer.store(writer.take())
            return writer.finish()
        finally:
            writer.close()


class StreamSource:
    """The raw and market streams, as far back as they reach."""

    name = "stream"

    def __init__(self, transport: Transport, made: Made) -> None:
        self._transport = transport
        self._made = made

    async def make(self, target: Target, path: Path) -> SegmentFacts:
        _check_streamed(target)
        intake = _intake(target, self._made)
        state = await self._transport.state(intake.stream)
        is_same = state.incarnation == target.incarnation
        after = max(target.first_seq - 1 - intake.rewind, 0) if is_same else 0
        if state.last_seq <= after:
            raise not_here(f"the stream ends at message {state.last_seq}")
        units = _Units(target, intake)
        reader = await self._transport.read(intake.stream, after=after, filters=intake.filters())
        try:
            seq = 0
            while seq < state.last_seq:
                messages = await reader.next(PATIENCE_S)
                if not messages:
                    break
                for message in messages:
                    units.take(message)
                seq = messages[-1].seq
                # Sequences are looked at again only where they name something.
                if is_same and seq > target.last_seq and not units.missing():
                    break
        finally:
            await reader.close()
        return await asyncio.to_thread(units.write, path, self._made.level)


class TapeSource:
    """The connector's own log. `directory_of`: connection -> its tape."""

    name = "tape"

    def __init__(self, directory_of: Callable[[str], Path], made: Made, make_mapper: MakeMapper) -> None:
        self._directory_of = directory_of
        self._made = made
        self._make_mapper = make_mapper

    async def make(self, target: Target, path: Path) -> SegmentFacts:
        _check_streamed(target)
        return await asyncio.to_thread(self._make, target, path)

    def _make(self, target: Target, path: Path) -> SegmentFacts:
        directory = self._directory_of(target.name.partition)
        if not indexes(directory):
            raise not_here(f"there is no tape of {target.name.partition}")
        first, last = target.stretches[0], target.stretches[-1]
        start = start_behind(directory, EntryPlace(first.session, first.after_n), self._make_mapper)
        names = Names(self._made.env, self._made.feed, target.name.partition)
        mapper = BlockMapper(names, self._make_mapper, start.checkpoint)
        units = _Units(target, _intake(target, self._made))
        is_raw = target.name.shelf.data_type == "raw"
        cursor = TapeCursor(directory, start.position)
        try:
            while blocks := cursor.read():
                for block in blocks:
                    header = block.header
                    if (header.session, header.first_n) > (last.session, last.last_n):
                        return units.write(path, self._made.level)
                    is_wanted = target.wants(header.session, header.first_n, header.last_n)
                    unit, _ = mapper.map(block.decode(), block.data, is_wanted=is_wanted)
                    for number, message in enumerate((unit.raw,) if is_raw else unit.market, 1) if unit is not None else ():
                        units.take(StreamMessage(number, message.subject, message.payload, message.message_id))
        finally:
            cursor.close()
        return units.write(path, self._made.level)


class ReplicaSource:
    """Another storage that holds the same keys."""

    name = "replica"

    def __init__(self, replica: Storage) -> None:
        self._replica = replica

    async def make(self, target: Target, path: Path) -> SegmentFacts:
        file = target.file
        stat = await self._replica.stat(file.key)
        if stat is None:
            raise not_here("it does not have the object")
        if stat != (file.sha256, file.size_bytes):
            raise not_here(f"its object is not what was sealed either: {stat.size_bytes} bytes of sha256 {stat.sha256}")
        with path.open("wb") as copy:
            async for piece in self._replica.read(file.key):
                copy.write(piece)
        return SegmentFacts(
            file.size_bytes, file.sha256, file.content_bytes, file.content_sha256, file.records,
            file.ts_recv_first_ns, file.ts_recv_last_ns,
        )  # fmt: skip


class RawSource:
    """The raw archive, by today's mapper: records only."""

    name = "raw"

    def __init__(self, storage: Storage, made: Made, make_mapper: MakeMapper) -> None:
        self._storage = storage
        self._made = made
        self._make_mapper = make_mapper

    async def make(self, target: Target, path: Path) -> SegmentFacts:
        if not target.mapper:
            raise not_here("raw lines cannot be made from records")
        today = self._make_mapper(1).version
        if today != target.mapper:
            raise not_here(f"mapper {target.mapper} made the records, this ssmd has {today}")
        if not target.stretches:
            return await self._make_anew(target, path)
        writer = SegmentWriter(path, self._made.level)
        try:
            reached: dict[int, int] = {}
            async for content, count, first_ns, last_ns in self._records(target, reached):
                writer.add(content, count, first_ns, last_ns)
                await asyncio.to_thread(writer.store, writer.take())
            for one in target.stretches:
                if reached.get(one.session, 0) < one.last_n:
                    raise not_here(f"entries up to {one.last_n} of session {one.session} are not in the raw archive")
            return await asyncio.to_thread(writer.finish)
        finally:
            writer.close()

    async def _make_anew(self, target: Target, path: Path) -> SegmentFacts:
        """As `services.renormalizer` made it: all segments of its partition, for one of them."""
        shelf, partition = target.name.shelf, target.name.partition
        calendar = DayCalendar(self._made.zone)
        wanted = Wanted(shelf.env, shelf.feed, shelf.date)
        making = Making(shelf.env, shelf.feed, shelf.date, target.mapper, self._made.level, self._made.segment_bytes)
        writer = PartitionWriter(making, partition, path.parent, f"{path.name}-anew")
        try:
            async for batch in mapped(self._storage, wanted, self._make_mapper, lambda ns: calendar.day_of(ns)[0]):
                await asyncio.to_thread(
                    writer.take, [(one.ordinal, one.records) for one in batch if one.connection == partition]
                )
            for one in await asyncio.to_thread(writer.finish):
                if one.name == target.name._replace(revision=0):
                    one.path.replace(path)
                    return one.facts
        finally:
            writer.discard()
        raise not_here("made anew today its records are others, or cut otherwise (archive.segment_bytes)")

    async def _records(self, target: Target, reached: dict[int, int]) -> AsyncIterator[tuple[bytes, int, int, int]]:
        """Encoded records of the target's kind, in order of their entries, in pieces."""
        encode = RecordEncoder().encode
        mappers: dict[int, Mapper] = {}
        after = {one.session: one.after_n for one in target.stretches}
        held: list[bytes] = []
        times: list[int] = []
        size_bytes = 0
        async for session, entry in self._entries(target, reached):
            mapper = mappers.get(session) or mappers.setdefault(session, self._make_mapper(session))
            records = mapper.map(entry).records  # from the session's beginning: its state is needed
            if entry.n <= after[session]:
                continue
            for record in records:
                if KIND_OF[record.__class__] == target.file.kind:
                    held.append(encode(record))
                    times.append(record.ts_recv_ns)
                    size_bytes += len(held[-1])
            if size_bytes > PIECE_BYTES:
                yield b"".join(held), len(held), times[0], times[-1]
                held, times, size_bytes = [], [], 0
        if held:
            yield b"".join(held), len(held), times[0], times[-1]

    async def _entries(self, target: Target, reached: dict[int, int]) -> AsyncIterator[tuple[int, Entry]]:
        """The entries of the target's sessions from their beginning to its last."""
        last = {one.session: one.last_n for one in target.stretches}
        shelf = target.name.shelf
        calendar = DayCalendar(self._made.zone)
        for date in sorted({*(calendar.day_of(session)[0] for session in last), shelf.date}):
            async for lines in raw_lines(self._storage, raw_shelf(shelf.env, shelf.feed, date)):
                for connection, session, entry in lines:
                    before = reached.get(session, 0)
                    if connection != target.name.partition or not before < entry.n <= last.get(session, 0):
                        continue
                    if entry.n != before + 1:
                        raise not_here(f"entry {before + 1} of session {session} is not in the raw archive")
                    reached[session] = entry.n
                    yield session, entry


class AbsentSource:
    """A source that cannot be opened, and why."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self._why = why

    async def make(self, _target: Target, _path: Path) -> SegmentFacts:
        raise not_here(self._why)
