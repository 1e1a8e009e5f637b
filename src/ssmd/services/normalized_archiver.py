"""The normalized archiver: records from `{env}-market` to segments of Cap'n Proto messages, one file a kind."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.application.handler import Application
from ssmd.archive import crash_points
from ssmd.archive.continuity import NOWHERE, Place, Unit
from ssmd.archive.keys import DataType, SegmentName, Shelf
from ssmd.archive.segment_files import Piece
from ssmd.archive.storage import Storage
from ssmd.clock import Clock
from ssmd.errors import Malformed
from ssmd.identifiers import RandomBytes
from ssmd.registry.documents import ArchiveSettings
from ssmd.schemas.codecs import Survey, survey
from ssmd.schemas.market_message import MARK_PART, Mark, decode_mark, parse_message_id
from ssmd.services.archive_intake import ArchiveDays
from ssmd.services.open_segment import OpenSegment
from ssmd.services.standby import IsAlive
from ssmd.services.stream_archiver import HOLD_SECONDS, StreamArchiver
from ssmd.streams import subjects
from ssmd.streams.transport import StreamMessage, StreamName, Transport

NAME: Final = "normalized-archiver"
SCHEMA: Final = "market-v1"
"""Name and version of the definition, as in object keys."""

PARTS_BYTES_MAX: Final = 64 << 20
"""Messages of blocks whose mark has not come, at most; past that the oldest are dropped, and their mark is refused."""


_parse = lru_cache(65_536)(subjects.parse_market)
_PART_OF: Final = {f"{number:x}": number for number in range(10_000)}
"""A part's number by its text in a message's id."""


Part = tuple[str, bytes]
"""Kind and body of one market message: the records of one kind and ticker from one block."""


class MarketContent(NamedTuple):
    """A block's records by kind, in the order of its messages, made by version `mapper` of the mapper."""

    kinds: Mapping[str, tuple[bytes, Survey]]
    mapper: int


class _Block:
    """The messages of one block so far."""

    def __init__(self, seq: int) -> None:
        self.first_seq = seq
        self.parts: dict[int, Part] = {}
        self.size_bytes = 0


class MarketIntake:
    """Collects a block's messages until its mark; marks are linked by the place they reach."""

    data_type: DataType = "normalized"
    stream: StreamName = "market"
    rewind = 5000

    def __init__(self, env: str, feed: str, schema: str = SCHEMA, *, zone: str = "UTC") -> None:
        self._days = ArchiveDays(zone)
        self._env = env
        self._feed = feed
        self._schema = schema
        self._reached: dict[str, Place] = {}
        self._blocks: dict[tuple[str, Place], _Block] = {}
        self._blocks_bytes = 0
        self._made: dict[str, set[Place]] = {}
        self._open = "", _Block(0)  # what a message's id begins with in the block that the last one went into

    def filters(self) -> Sequence[str]:
        return ()

    def closing_subject(self, connection: str) -> str:
        return subjects.mark(self._env, self._feed, connection)

    def link_of(self, reached: Place) -> Hashable:
        return None if reached == NOWHERE else reached

    def begin(self, reached: Mapping[str, Place]) -> None:
        self._reached = dict(reached)
        self._blocks.clear()
        self._blocks_bytes = 0
        self._made.clear()
        self._open = "", _Block(0)

    def archived(self, connection: str, reached: Place) -> None:
        if reached > self._reached.get(connection, NOWHERE):
            self._reached[connection] = reached
            self._made[connection] = {place for place in self._made.get(connection, ()) if place > reached}
            for key in [key for key in self._blocks if key[0] == connection and key[1] <= reached]:
                self._drop(key)

    def refused(self, unit: Unit[MarketContent]) -> None:
        self._made.get(unit.connection, set()).discard(Place(unit.session, unit.first_n))

    def take(self, message: StreamMessage) -> Unit[MarketContent] | None:
        subject = _parse(message.subject)
        kind = subject.kind
        if subject.feed != self._feed:
            return None
        start, _, number = message.message_id.rpartition(".")
        open_start, open_block = self._open
        if start == open_start and kind != subjects.MARK and number in _PART_OF:
            # Nearly every message: one more part of the same block.
            self._add(open_block, _PART_OF[number], (kind, message.payload))
            return None
        place = parse_message_id(message.message_id)
        block = Place(place.session, place.first_n)
        if place.part != MARK_PART:
            if kind == subjects.MARK:
                raise Malformed(f"a mark with the id of a part: {message.message_id!r}")
            if block > self._reached.get(place.connection, NOWHERE):
                key = place.connection, block
                found = self._blocks.get(key)
                if found is None:
                    found = self._blocks[key] = _Block(message.seq)
                self._add(found, place.part, (kind, message.payload))
                self._open = start, found
                self._bound()
            return None
        mark = decode_mark(message.payload)
        if (mark.connection, mark.session, mark.first_n) != place[:3] or place.connection != subject.name:
            raise Malformed(f"the mark on {message.subject} does not fit its id {message.message_id!r}")
        if block in self._made.get(mark.connection, ()) or Place(mark.session, mark.last_n) <= self._reached.get(
            mark.connection, NOWHERE
        ):
            return None  # a repeat
        return self._complete(mark, message)

    def _add(self, block: _Block, number: int, part: Part) -> None:
        if number not in block.parts:
            block.parts[number] = part
            size = len(part[1])
            block.size_bytes += size
            self._blocks_bytes += size

    def _bound(self) -> None:
        while self._blocks_bytes > PARTS_BYTES_MAX and len(self._blocks) > 1:
            self._drop(next(iter(self._blocks)))

    def _drop(self, key: tuple[str, Place]) -> _Block:
        block = self._blocks.pop(key)
        self._blocks_bytes -= block.size_bytes
        if block is self._open[1]:
            self._open = "", _Block(0)
        return block

    def _complete(self, mark: Mark, message: StreamMessage) -> Unit[MarketContent]:
        start = Place(mark.session, mark.first_n)
        key = mark.connection, start
        block = self._drop(key) if key in self._blocks else _Block(message.seq)
        kinds = _check_whole(mark, block)
        self._made.setdefault(mark.connection, set()).add(start)
        follows = Place(mark.previous_session, mark.previous_n)
        return Unit(
            connection=mark.connection,
            session=mark.session,
            first_n=mark.first_n,
            last_n=mark.last_n,
            follows=None if follows == NOWHERE else follows,
            link=Place(mark.session, mark.last_n),
            date=self._days.day_of(mark.ts_recv_ns),
            day_mark=mark.day_mark,
            first_seq=block.first_seq,
            last_seq=message.seq,
            message_id=message.message_id,
            size_bytes=block.size_bytes,
            content=MarketContent(kinds, mark.mapper),
        )

    def encoder(self, unit: Unit[MarketContent]) -> int:
        return unit.content.mapper

    def fits(self, encoder: int, unit: Unit[MarketContent]) -> bool:
        return encoder == unit.content.mapper

    def pieces(self, _encoder: int, unit: Unit[MarketContent]) -> Sequence[Piece]:
        return [Piece(kind, payload, *found) for kind, (payload, found) in unit.content.kinds.items()]

    def newline(self, _encoder: int, _session: int) -> bool:
        return False

    def key(self, segment: OpenSegment, kind: str, incarnation: str) -> str:
        shelf = Shelf("normalized", self._env, self._feed, segment.date, self._schema, kind, segment.encoder)
        return SegmentName(shelf, segment.connection, incarnation, segment.first_seq, segment.last_seq).key


def _check_whole(mark: Mark, block: _Block) -> dict[str, tuple[bytes, Survey]]:
    """The block's records by kind, when they are what its mark tells."""
    where = f"mark of {mark.connection}, session {mark.session}, entries {mark.first_n}..{mark.last_n}"
    if not 0 <= mark.ts_recv_ns < 1 << 64:
        raise Malformed(f"{where} has the impossible receive time {mark.ts_recv_ns}")
    missing = [number for number in range(mark.parts) if number not in block.parts]
    if missing:
        raise Malformed(f"{where} tells {mark.parts} messages, {len(missing)} are missing (the first is {missing[0]})")
    payloads: dict[str, list[bytes]] = {}
    for number in range(mark.parts):
        kind, payload = block.parts[number]
        payloads.setdefault(kind, []).append(payload)
    kinds: dict[str, tuple[bytes, Survey]] = {}
    for kind, of_kind in payloads.items():
        joined = b"".join(of_kind)
        try:
            kinds[kind] = joined, survey(joined)
        except Malformed as error:
            raise Malformed(f"{where}: {kind} records: {error.message}", mend=error.mend) from error
    found = {kind: told.records for kind, (_, told) in kinds.items()}
    if found != {kind: count for kind, count in mark.records.items() if count}:
        raise Malformed(f"{where} tells records {mark.records}, found {found}")
    return kinds


class NormalizedArchiver(StreamArchiver):
    """Archives the market stream of one feed."""

    def __init__(
        self,
        env: str,
        feed: str,
        *,
        instance: str,
        transport: Transport,
        storage: Storage,
        application: Application,
        clock: Clock,
        random: RandomBytes,
        spool: Path,
        settings: ArchiveSettings,
        schema: str = SCHEMA,
        zone: str = "UTC",
        hold_seconds: float = HOLD_SECONDS,
        crash_point: crash_points.CrashPoint = crash_points.no_crash,
        is_alive: IsAlive | None = None,
    ) -> None:
        super().__init__(
            NAME,
            instance,
            feed,
            MarketIntake(env, feed, schema, zone=zone),
            transport=transport,
            storage=storage,
            application=application,
            clock=clock,
            random=random,
            spool=spool,
            settings=settings,
            hold_seconds=hold_seconds,
            crash_point=crash_point,
            is_alive=is_alive,
        )
