"""From tape to streams: map each block, publish it with its records and mark, hand its facts to the journal.

It reads the tape itself, not what the socket callback had: one way for blocks of now, of an outage and of a process that
was killed. After a start the mappers run silently up to what the streams already hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from ssmd.domain.capture import CaptureEvent
from ssmd.errors import Unavailable
from ssmd.exchanges.adapter import Mapper
from ssmd.identifiers import RandomBytes
from ssmd.schemas.blocks import Block, EntryKind
from ssmd.schemas.codecs import RecordEncoder
from ssmd.schemas.control import DayMark, Disconnected, decode_fact
from ssmd.schemas.market_message import MARK_PART, REPEATED, Mark, Place, encode_mark, message_id, raw_message_id
from ssmd.schemas.records import KIND_OF
from ssmd.services.connector.frame_letter import Unmapped, unmapped
from ssmd.services.connector.mapper_checkpoint import Checkpoint, save, start_behind
from ssmd.streams import subjects
from ssmd.streams.backoff import backoff_s
from ssmd.streams.publisher import NOWHERE, EntryPlace, OrderedPublisher, Reached, StreamsRegressed, Unit
from ssmd.streams.tape_cursor import TapeCursor
from ssmd.streams.tape_files import TapeBlock
from ssmd.streams.transport import Outgoing
from ssmd.telemetry import tracing
from ssmd.telemetry.structured import structlog

MakeMapper = Callable[[int], Mapper]
CHECK_S: Final = 1.0
"""How often the streams are asked whether they still hold what they acknowledged."""

SUBJECTS_MAX: Final = 200_000
"""Subjects kept; more tickers than that are remembered anew."""


class FactSink(Protocol):
    """Where facts go; never waits."""

    def offer(self, facts: Iterable[CaptureEvent]) -> None: ...


class Names(NamedTuple):
    """Whose tape this is, for subjects."""

    env: str
    feed: str
    connection: str


class BlockMapper:
    """Maps the blocks of one tape in order and makes each into a `Unit` and its facts."""

    def __init__(
        self,
        names: Names,
        make_mapper: MakeMapper,
        checkpoint: Checkpoint | None = None,
        on_unmapped: Callable[[Unmapped], None] | None = None,
    ) -> None:
        self._names = names
        self._on_unmapped = on_unmapped
        self._make_mapper = make_mapper
        self._encode = RecordEncoder().encode
        self._mapper: Mapper | None = None
        self._session = 0
        self._previous = NOWHERE
        self._subjects: dict[tuple[str, str], str] = {}
        if checkpoint is not None:
            self._mapper, self._session, self._previous = checkpoint.mapper, checkpoint.session, checkpoint.previous
        self._raw_subject = subjects.raw(*names)
        self._mark_subject = subjects.mark(*names)

    def save(self, directory: Path, index: int, session: int) -> None:
        """Keep the mapper's state before the tape file `index`, which goes on with `session`, if it has one."""
        if self._mapper is not None and session == self._session:
            save(directory, index, Checkpoint(session, self._previous, self._mapper.version, self._mapper))

    def map(self, block: Block, data: bytes, *, is_wanted: bool) -> tuple[Unit | None, list[CaptureEvent]]:
        """The block's unit (None unless `is_wanted`: then only the mapper's state moves on) and facts."""
        mapper = self._mapper
        if mapper is None or block.session != self._session:
            mapper = self._mapper = self._make_mapper(block.session)
            self._session = block.session
        facts: list[CaptureEvent] = []
        groups: dict[tuple[str, str], list[bytes]] = {}
        map_entry, encode = mapper.map, self._encode
        for entry in block.entries:
            records, found, reason = map_entry(entry)
            if found:
                facts += found
            if not is_wanted:
                continue
            if reason and self._on_unmapped is not None:
                place = (block.session, entry.n)
                _, feed, connection = self._names
                self._on_unmapped(unmapped(feed, connection, place, entry.ts_recv_ns, reason, entry.payload))
            for record in records:
                key = (KIND_OF[record.__class__], record.ticker)
                group = groups.get(key)
                if group is None:
                    groups[key] = [encode(record)]
                else:
                    group.append(encode(record))
        reaches = EntryPlace(block.session, block.last_n)
        unit = None
        if is_wanted:
            unit = self._unit(block, data, reaches, groups, mapper.version)
        self._previous = reaches
        return unit, facts

    def _unit(
        self,
        block: Block,
        data: bytes,
        reaches: EntryPlace,
        groups: dict[tuple[str, str], list[bytes]],
        mapper_version: int,
    ) -> Unit:
        counts: dict[str, int] = {}
        for (kind, _), group in groups.items():
            counts[kind] = counts.get(kind, 0) + len(group)
        connection, session, first_n = self._names.connection, block.session, block.first_n
        market = [
            Outgoing(self._subject(key), b"".join(group), message_id(Place(connection, session, first_n, part)))
            for part, (key, group) in enumerate(groups.items())
        ]
        ended, day_mark = _endings(block)
        mark = Mark(
            connection,
            session,
            first_n,
            block.last_n,
            len(market),
            counts,
            self._previous.session,
            self._previous.n,
            block.entries[-1].ts_recv_ns,
            mapper_version,
            ended,
            day_mark,
        )
        market.append(
            Outgoing(self._mark_subject, encode_mark(mark), message_id(Place(connection, session, first_n, MARK_PART)))
        )
        raw = Outgoing(self._raw_subject, data, raw_message_id(connection, session, first_n))
        return Unit(reaches, raw, market)

    def _subject(self, key: tuple[str, str]) -> str:
        subject = self._subjects.get(key)
        if subject is None:
            subject = subjects.market(self._names.env, self._names.feed, *key)
            if len(self._subjects) > SUBJECTS_MAX:
                self._subjects.clear()
            self._subjects[key] = subject
        return subject


def _endings(block: Block) -> tuple[bool, str]:
    """Whether the session ends in this block, and the date its day-mark closes: both are always a block's last entry."""
    last = block.entries[-1]
    if last.kind != EntryKind.CTL:
        return False, ""
    fact = decode_fact(last.payload)
    return isinstance(fact, Disconnected), fact.date if isinstance(fact, DayMark) else ""


class TapeFollower:
    """Follows one tape to its end and then waits for more. One task.

    Attributes:
        published: the last entry handed to the publisher; blocks: how many were.
        refills: why the streams had to be filled again from the tape, each time.
    """

    def __init__(
        self,
        directory: Path,
        names: Names,
        make_mapper: MakeMapper,
        publisher: OrderedPublisher,
        facts: FactSink,
        random: RandomBytes,
        on_unmapped: Callable[[Unmapped], None] | None = None,
    ) -> None:
        self._directory = directory
        self._on_unmapped = on_unmapped
        self._names = names
        self._make_mapper = make_mapper
        self._publisher = publisher
        self._facts = facts
        self._written = asyncio.Event()
        self._is_draining = False
        self._random = random
        self._log = structlog.get_logger("connector").bind(feed=names.feed, connection=names.connection)
        self._refill_after: EntryPlace | None = None
        self._check_at_s = 0.0
        self._repeat = ""
        self.published = NOWHERE
        self.blocks = 0
        self.refills: list[str] = []

    def refill(self, after: EntryPlace, why: str) -> None:
        """Publish everything behind `after` again, under new ids: somebody missed it."""
        self._refill_after = after
        self.refills.append(why)
        self._written.set()

    def wake(self) -> None:
        """More has been written."""
        self._written.set()

    def drain(self) -> None:
        """Let `run` return once all that is on the tape is acknowledged."""
        self._is_draining = True
        self._written.set()

    async def run(self, reached: Reached) -> None:
        """Publish what is behind `reached`, then whatever comes, until drained or cancelled."""
        while True:
            try:
                if self._refill_after is not None:
                    reached = await self._begin_refill(self._refill_after)
                if await self._follow(reached):
                    return
            except StreamsRegressed as regressed:
                self.refills.append(regressed.message)
                reached = regressed.reached
                self._log.warning("streams-regressed", reason=regressed.message, **reached.both._asdict())

    async def _begin_refill(self, after: EntryPlace) -> Reached:
        self._repeat = f"{REPEATED}{self._random(4).hex()}"
        attempt = 0
        while True:
            try:
                reached = await self._publisher.rewind(after)
            except Unavailable as error:
                attempt += 1
                self._log.warning("refill-waits", reason=error.message)
                await asyncio.sleep(backoff_s(attempt, self._random, max_s=2.0))
            else:
                self._refill_after = None
                self._log.warning("refilling", reason=self.refills[-1], **after._asdict())
                return reached

    async def _follow(self, reached: Reached) -> bool:
        """Whether all is done; False = a refill is wanted. Raises StreamsRegressed."""
        start = start_behind(self._directory, reached.both, self._make_mapper)
        cursor = TapeCursor(self._directory, start.position)
        mapper = BlockMapper(self._names, self._make_mapper, start.checkpoint, self._on_unmapped)
        self.published = reached.both
        try:
            while self._refill_after is None:
                self._written.clear()
                await self._check()
                blocks = cursor.read()
                if blocks:
                    with tracing.span("publish blocks", connection=self._names.connection, blocks=len(blocks)):
                        await self._publish(blocks, mapper, reached)
                else:
                    await self._publisher.settle()
                    if self._is_draining and not self._written.is_set():
                        return True
                    with suppress(TimeoutError):
                        async with asyncio.timeout(CHECK_S):
                            await self._written.wait()
            return False
        finally:
            cursor.close()

    async def _publish(self, blocks: Sequence[TapeBlock], mapper: BlockMapper, reached: Reached) -> None:
        for tape_block in blocks:
            header = tape_block.header
            if tape_block.position.offset == 0:
                mapper.save(self._directory, tape_block.position.file_index, header.session)
            reaches = EntryPlace(header.session, header.last_n)
            unit, facts = mapper.map(tape_block.decode(), tape_block.data, is_wanted=reaches > reached.both)
            if facts:
                self._facts.offer(facts)
            if unit is not None:
                await self._publisher.publish(_again(unit, self._repeat) if self._repeat else unit)
                self.published = reaches
                self.blocks += 1
            await asyncio.sleep(0)  # the socket must not wait for the mapper

    async def _check(self) -> None:
        await self._publisher.finish_check()
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._check_at_s:
            self._publisher.begin_check(self._written.set)
            self._check_at_s = now_s + CHECK_S


def _again(unit: Unit, repeat: str) -> Unit:
    """The unit under ids that the server does not know yet: it would drop it, were it still to know the old ones."""
    raw = unit.raw._replace(message_id=unit.raw.message_id + repeat)
    return Unit(unit.reaches, raw, [one._replace(message_id=one.message_id + repeat) for one in unit.market])
