"""The raw archiver: tape blocks from `{env}-raw` to segments of one JSON line an entry."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from ssmd.application.handler import Application
from ssmd.archive import crash_points
from ssmd.archive.continuity import Place, Unit
from ssmd.archive.keys import DataType, SegmentName, Shelf
from ssmd.archive.segment_files import Piece
from ssmd.archive.storage import Storage
from ssmd.clock import Clock
from ssmd.errors import Malformed
from ssmd.identifiers import RandomBytes
from ssmd.registry.documents import ArchiveSettings
from ssmd.schemas.blocks import NO_DIGEST, Columns, EntryKind, decode_columns
from ssmd.schemas.control import DayMark, decode_fact
from ssmd.schemas.raw_line import LineEncoder
from ssmd.services.archive_intake import ArchiveDays
from ssmd.services.open_segment import OpenSegment
from ssmd.services.standby import IsAlive
from ssmd.services.stream_archiver import HOLD_SECONDS, StreamArchiver
from ssmd.streams import subjects
from ssmd.streams.transport import StreamMessage, StreamName, Transport

NAME: Final = "raw-archiver"
KIND: Final = "raw"
_KINDS: Final = frozenset(int(kind) for kind in EntryKind)
_CTL: Final = int(EntryKind.CTL)
_parse = lru_cache(1024)(subjects.parse_raw)


class RawIntake:
    """Blocks are complete in one message each; they are linked by their digests."""

    data_type: DataType = "raw"
    stream: StreamName = "raw"
    rewind = 200

    def __init__(self, env: str, feed: str, *, zone: str = "UTC") -> None:
        self._env = env
        self._feed = feed
        self._days = ArchiveDays(zone)

    def filters(self) -> Sequence[str]:
        return ()

    def closing_subject(self, connection: str) -> str:
        return subjects.raw(self._env, self._feed, connection)

    def link_of(self, _reached: Place) -> Hashable:
        return None  # seals hold no digests

    def take(self, message: StreamMessage) -> Unit[Columns] | None:
        _, feed, connection = _parse(message.subject)
        if feed != self._feed:
            return None
        block = decode_columns(message.payload)
        kinds = set(block.kinds)
        if not kinds <= _KINDS:
            raise Malformed(f"entries of kind {sorted(kinds - _KINDS)} are unknown to this version", mend="upgrade ssmd")
        return Unit(
            connection=connection,
            session=block.session,
            first_n=block.numbers[0],
            last_n=block.numbers[-1],
            follows=None if block.previous_digest == NO_DIGEST else block.previous_digest,
            link=block.digest,
            date=self._days.day_of(block.times[0]),
            day_mark=_day_mark(block) if _CTL in kinds else "",
            first_seq=message.seq,
            last_seq=message.seq,
            message_id=message.message_id,
            size_bytes=len(message.payload),
            content=block,
        )

    def begin(self, _reached: Mapping[str, Place]) -> None:
        return  # nothing is remembered between messages

    def archived(self, _connection: str, _reached: Place) -> None:
        return

    def refused(self, _unit: Unit[Columns]) -> None:
        return

    def encoder(self, unit: Unit[Columns]) -> LineEncoder:
        return LineEncoder(unit.connection)

    def fits(self, _encoder: LineEncoder, _unit: Unit[Columns]) -> bool:
        return True

    def pieces(self, encoder: LineEncoder, unit: Unit[Columns]) -> Sequence[Piece]:
        block = unit.content
        lines = encoder.gather(block.session, block.numbers, block.kinds, block.times, block.payloads)
        return [Piece(KIND, lines, len(block.numbers), block.times[0], block.times[-1])]

    def newline(self, encoder: LineEncoder, session: int) -> bool:
        return encoder.newline(session)

    def key(self, segment: OpenSegment, _kind: str, incarnation: str) -> str:
        shelf = Shelf("raw", self._env, self._feed, segment.date)
        return SegmentName(shelf, segment.connection, incarnation, segment.first_seq, segment.last_seq).key


def _day_mark(block: Columns) -> str:
    for payload in [payload for kind, payload in zip(block.kinds, block.payloads, strict=True) if kind == _CTL]:
        try:
            fact = decode_fact(payload)
        except Malformed:
            continue  # a fact of a later version: archived like any entry
        if isinstance(fact, DayMark):
            return fact.date
    return ""


class RawArchiver(StreamArchiver):
    """Archives the raw stream of one feed."""

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
        zone: str = "UTC",
        hold_seconds: float = HOLD_SECONDS,
        crash_point: crash_points.CrashPoint = crash_points.no_crash,
        is_alive: IsAlive | None = None,
    ) -> None:
        super().__init__(
            NAME,
            instance,
            feed,
            RawIntake(env, feed, zone=zone),
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
