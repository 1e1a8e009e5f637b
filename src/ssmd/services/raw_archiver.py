"""The raw archiver: tape blocks from `{env}-raw` to segments of one JSON line an entry."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

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
from ssmd.schemas.blocks import NO_DIGEST, EntryKind, Surveyed, columns_of, survey_block
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
_KINDS: Final = bytes(EntryKind)
_CTL: Final = int(EntryKind.CTL)
_parse = lru_cache(1024)(subjects.parse_raw)


class RawContent(NamedTuple):
    """A verified block."""

    block: bytes
    found: Surveyed


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

    def take(self, message: StreamMessage) -> Unit[RawContent] | None:
        _, feed, connection = _parse(message.subject)
        if feed != self._feed:
            return None
        block = message.payload
        found = survey_block(block)
        header, kinds = found.header, found.kinds
        if unknown := kinds.translate(None, _KINDS):
            raise Malformed(f"entries of kind {sorted(set(unknown))} are unknown to this version", mend="upgrade ssmd")
        return Unit(
            connection=connection,
            session=header.session,
            first_n=header.first_n,
            last_n=header.last_n,
            follows=None if header.previous_digest == NO_DIGEST else header.previous_digest,
            link=header.digest,
            date=self._days.day_of(found.ts_first_ns),
            day_mark=_day_mark(block) if _CTL in kinds else "",
            first_seq=message.seq,
            last_seq=message.seq,
            message_id=message.message_id,
            size_bytes=len(block),
            content=RawContent(block, found),
        )

    def begin(self, _reached: Mapping[str, Place]) -> None:
        return  # nothing is remembered between messages

    def archived(self, _connection: str, _reached: Place) -> None:
        return

    def refused(self, _unit: Unit[RawContent]) -> None:
        return

    def encoder(self, unit: Unit[RawContent]) -> LineEncoder:
        return LineEncoder(unit.connection)

    def fits(self, _encoder: LineEncoder, _unit: Unit[RawContent]) -> bool:
        return True

    def pieces(self, encoder: LineEncoder, unit: Unit[RawContent]) -> Sequence[Piece]:
        block, found = unit.content
        return [Piece(KIND, encoder.gather(block, found), len(found.kinds), found.ts_first_ns, found.ts_last_ns)]

    def newline(self, encoder: LineEncoder, session: int) -> bool:
        return encoder.newline(session)

    def key(self, segment: OpenSegment, _kind: str, incarnation: str) -> str:
        shelf = Shelf("raw", self._env, self._feed, segment.date)
        return SegmentName(shelf, segment.connection, incarnation, segment.first_seq, segment.last_seq).key


def _day_mark(block: bytes) -> str:
    columns = columns_of(block)
    for payload in [payload for kind, payload in zip(columns.kinds, columns.payloads, strict=True) if kind == _CTL]:
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
