"""The normalized archiver: records from `{env}-market` to segments of Cap'n Proto messages, one file a kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.application.handler import Application
from ssmd.archive import crash_points
from ssmd.archive.continuity import NOWHERE, Place, Unit
from ssmd.archive.keys import DataType, SegmentName, Shelf
from ssmd.archive.storage import Storage
from ssmd.clock import Clock, DayCalendar
from ssmd.errors import Malformed
from ssmd.identifiers import RandomBytes
from ssmd.registry.documents import ArchiveSettings
from ssmd.schemas.codecs import Survey, survey
from ssmd.schemas.market_message import MARK_PART, Mark, decode_mark, parse_message_id
from ssmd.services.open_segment import OpenSegment, Piece
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


class Part(NamedTuple):
    """One market message: the records of one kind and ticker from one block."""

    kind: str
    payload: bytes
    survey: Survey


class MarketContent(NamedTuple):
    """A block's records: messages in order, made by version `mapper` of the mapper."""

    parts: Sequence[Part]
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
        self._calendar = DayCalendar(zone)
        self._env = env
        self._feed = feed
        self._schema = schema
        self._reached: dict[str, Place] = {}
        self._blocks: dict[tuple[str, Place], _Block] = {}
        self._blocks_bytes = 0
        self._made: dict[str, set[Place]] = {}

    def filters(self) -> Sequence[str]:
        return [subjects.market_filter(self._env, self._feed)]

    def closing_subject(self, connection: str) -> str:
        return subjects.mark(self._env, self._feed, connection)

    def link_of(self, reached: Place) -> Hashable:
        return None if reached == NOWHERE else reached

    def begin(self, reached: Mapping[str, Place]) -> None:
        self._reached = dict(reached)
        self._blocks.clear()
        self._blocks_bytes = 0
        self._made.clear()

    def archived(self, connection: str, reached: Place) -> None:
        if reached > self._reached.get(connection, NOWHERE):
            self._reached[connection] = reached
            self._made[connection] = {place for place in self._made.get(connection, ()) if place > reached}
            for key in [key for key in self._blocks if key[0] == connection and key[1] <= reached]:
                self._blocks_bytes -= self._blocks.pop(key).size_bytes

    def refused(self, unit: Unit[MarketContent]) -> None:
        self._made.get(unit.connection, set()).discard(Place(unit.session, unit.first_n))

    def take(self, message: StreamMessage) -> Unit[MarketContent] | None:
        subject = _parse(message.subject)
        place = parse_message_id(message.message_id)
        block = Place(place.session, place.first_n)
        if place.part != MARK_PART:
            if subject.kind == subjects.MARK:
                raise Malformed(f"a mark with the id of a part: {message.message_id!r}")
            if block > self._reached.get(place.connection, NOWHERE):
                self._collect(
                    (place.connection, block),
                    place.part,
                    Part(subject.kind, message.payload, survey(message.payload)),
                    message.seq,
                )
            return None
        mark = decode_mark(message.payload)
        if (mark.connection, mark.session, mark.first_n) != place[:3] or place.connection != subject.name:
            raise Malformed(f"the mark on {message.subject} does not fit its id {message.message_id!r}")
        if block in self._made.get(mark.connection, ()) or Place(mark.session, mark.last_n) <= self._reached.get(
            mark.connection, NOWHERE
        ):
            return None  # a repeat
        return self._complete(mark, message)

    def _collect(self, key: tuple[str, Place], number: int, part: Part, seq: int) -> None:
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = _Block(seq)
        if number not in block.parts:
            block.parts[number] = part
            block.size_bytes += len(part.payload)
            self._blocks_bytes += len(part.payload)
        while self._blocks_bytes > PARTS_BYTES_MAX and len(self._blocks) > 1:
            self._blocks_bytes -= self._blocks.pop(next(iter(self._blocks))).size_bytes

    def _complete(self, mark: Mark, message: StreamMessage) -> Unit[MarketContent]:
        start = Place(mark.session, mark.first_n)
        block = self._blocks.pop((mark.connection, start), None) or _Block(message.seq)
        self._blocks_bytes -= block.size_bytes
        _check_whole(mark, block)
        self._made.setdefault(mark.connection, set()).add(start)
        follows = Place(mark.previous_session, mark.previous_n)
        return Unit(
            connection=mark.connection,
            session=mark.session,
            first_n=mark.first_n,
            last_n=mark.last_n,
            follows=None if follows == NOWHERE else follows,
            link=Place(mark.session, mark.last_n),
            date=self._calendar.day_of(mark.ts_recv_ns)[0],
            day_mark=mark.day_mark,
            first_seq=block.first_seq,
            last_seq=message.seq,
            message_id=message.message_id,
            size_bytes=block.size_bytes,
            content=MarketContent([block.parts[number] for number in range(mark.parts)], mark.mapper),
        )

    def encoder(self, unit: Unit[MarketContent]) -> int:
        return unit.content.mapper

    def fits(self, encoder: int, unit: Unit[MarketContent]) -> bool:
        return encoder == unit.content.mapper

    def pieces(self, _encoder: int, unit: Unit[MarketContent]) -> Sequence[Piece]:
        by_kind: dict[str, list[Part]] = {}
        for part in unit.content.parts:
            by_kind.setdefault(part.kind, []).append(part)
        return [
            Piece(
                kind,
                b"".join([part.payload for part in parts]),
                sum(part.survey.records for part in parts),
                min(part.survey.ts_recv_first_ns for part in parts),
                max(part.survey.ts_recv_last_ns for part in parts),
            )
            for kind, parts in by_kind.items()
        ]

    def newline(self, _encoder: int, _session: int) -> bool:
        return False

    def key(self, segment: OpenSegment, kind: str, incarnation: str) -> str:
        shelf = Shelf("normalized", self._env, self._feed, segment.date, self._schema, kind, segment.encoder)
        return SegmentName(shelf, segment.connection, incarnation, segment.first_seq, segment.last_seq).key


def _check_whole(mark: Mark, block: _Block) -> None:
    where = f"mark of {mark.connection}, session {mark.session}, entries {mark.first_n}..{mark.last_n}"
    if not 0 <= mark.ts_recv_ns < 1 << 64:
        raise Malformed(f"{where} has the impossible receive time {mark.ts_recv_ns}")
    missing = [number for number in range(mark.parts) if number not in block.parts]
    if missing:
        raise Malformed(f"{where} tells {mark.parts} messages, {len(missing)} are missing (the first is {missing[0]})")
    found: Counter[str] = Counter()
    for number in range(mark.parts):
        part = block.parts[number]
        found[part.kind] += part.survey.records
    if found != Counter(mark.records):
        raise Malformed(f"{where} tells records {mark.records}, found {dict(found)}")


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
