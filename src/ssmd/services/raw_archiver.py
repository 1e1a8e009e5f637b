"""The raw archiver: tape blocks from `{env}-raw` to segments of one JSON line an entry."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ssmd.application.handler import Application
from ssmd.archive import crash_points
from ssmd.archive.continuity import Place, Unit
from ssmd.archive.keys import DataType, SegmentName, Shelf
from ssmd.archive.storage import Storage
from ssmd.clock import Clock, date_of
from ssmd.errors import Malformed
from ssmd.identifiers import RandomBytes
from ssmd.registry.documents import ArchiveSettings
from ssmd.schemas.blocks import NO_DIGEST, Block, Entry, EntryKind, decode_block
from ssmd.schemas.control import DayMark, decode_fact
from ssmd.schemas.raw_line import LineEncoder
from ssmd.services.open_segment import OpenSegment, Piece
from ssmd.services.stream_archiver import HOLD_SECONDS, StreamArchiver
from ssmd.streams import subjects
from ssmd.streams.transport import StreamMessage, StreamName, Transport

NAME: Final = "raw-archiver"
KIND: Final = "raw"
_KINDS: Final = frozenset(int(kind) for kind in EntryKind)
_CTL: Final = int(EntryKind.CTL)


class RawIntake:
    """Blocks are complete in one message each; they are linked by their digests."""

    data_type: DataType = "raw"
    stream: StreamName = "raw"
    rewind = 200

    def __init__(self, env: str, feed: str) -> None:
        self._env = env
        self._feed = feed

    def filters(self) -> Sequence[str]:
        return [subjects.raw_filter(self._env, self._feed)]

    def closing_subject(self, connection: str) -> str:
        return subjects.raw(self._env, self._feed, connection)

    def link_of(self, _reached: Place) -> Hashable:
        return None  # seals hold no digests

    def take(self, message: StreamMessage) -> Unit[Sequence[Entry]] | None:
        _, _, connection = subjects.parse_raw(message.subject)
        block = decode_block(message.payload)
        unknown = {entry[0] for entry in block.entries} - _KINDS
        if unknown:
            raise Malformed(f"entries of kind {sorted(unknown)} are unknown to this version", mend="upgrade ssmd")
        return Unit(
            connection=connection,
            session=block.session,
            first_n=block.first_n,
            last_n=block.last_n,
            follows=None if block.previous_digest == NO_DIGEST else block.previous_digest,
            link=block.digest,
            date=date_of(block.entries[0].ts_recv_ns),
            day_mark=_day_mark(block),
            first_seq=message.seq,
            last_seq=message.seq,
            message_id=message.message_id,
            size_bytes=len(message.payload),
            content=block.entries,
        )

    def begin(self, _reached: Mapping[str, Place]) -> None:
        return  # nothing is remembered between messages

    def archived(self, _connection: str, _reached: Place) -> None:
        return

    def encoder(self, unit: Unit[Sequence[Entry]]) -> LineEncoder:
        return LineEncoder(unit.connection)

    def fits(self, _encoder: LineEncoder, _unit: Unit[Sequence[Entry]]) -> bool:
        return True

    def pieces(self, encoder: LineEncoder, unit: Unit[Sequence[Entry]]) -> Sequence[Piece]:
        entries = unit.content
        lines = encoder.encode(unit.session, entries)
        return [Piece(KIND, lines, len(entries), entries[0].ts_recv_ns, entries[-1].ts_recv_ns)]

    def newline(self, encoder: LineEncoder, session: int) -> bool:
        return encoder.newline(session)

    def key(self, segment: OpenSegment, _kind: str, incarnation: str) -> str:
        shelf = Shelf("raw", self._env, self._feed, segment.date)
        return SegmentName(shelf, segment.connection, incarnation, segment.first_seq, segment.last_seq).key


def _day_mark(block: Block) -> str:
    for payload in [payload for kind, _, _, payload in block.entries if kind == _CTL]:
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
        hold_seconds: float = HOLD_SECONDS,
        crash_point: crash_points.CrashPoint = crash_points.no_crash,
    ) -> None:
        super().__init__(
            NAME,
            instance,
            feed,
            RawIntake(env, feed),
            transport=transport,
            storage=storage,
            application=application,
            clock=clock,
            random=random,
            spool=spool,
            settings=settings,
            hold_seconds=hold_seconds,
            crash_point=crash_point,
        )
