"""Blocks in order to sealed segments: spool, upload, seal, each step repeatable after a kill.

A connection has one open segment at a time. It is cut where content says so (size, day, day-mark, what the intake can
put into one segment), or where a plan says so that was journaled before the upload: so a restart makes the same files.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from ssmd.application.handler import Application
from ssmd.archive import crash_points
from ssmd.archive.continuity import Unit
from ssmd.archive.segment_files import FinishedFile
from ssmd.archive.segment_index import index_key
from ssmd.archive.storage import Storage
from ssmd.clock import Clock
from ssmd.domain import archive, dead_letter
from ssmd.errors import Rejected, Unavailable
from ssmd.registry.documents import ArchiveSettings
from ssmd.services.archive_intake import Intake
from ssmd.services.archive_positions import Positions, Regressed, Sealed
from ssmd.services.open_segment import OpenSegment
from ssmd.services.patience import Patience
from ssmd.services.spool_process import SpoolProcess
from ssmd.streams.transport import StreamMessage

OPENINGS_MAX: Final = 5
"""Each but the last is of another archiver that began in the same moment."""


class Sealer:
    """See the module.

    Attributes:
        positions: what is sealed, as far as this process knows.
        incarnation: of the stream that is read; a connection's may be another name of it (`archive_positions`).
        segments: connection -> its open segment.
        sealed, records: how many segments, and lines or messages in them, this process has sealed.
    """

    def __init__(
        self,
        instance: str,
        actor: str,
        feed: str,
        intake: Intake,
        *,
        storage: Storage,
        application: Application,
        clock: Clock,
        spool: Path,
        settings: ArchiveSettings,
        patience: Patience,
        crash_point: crash_points.CrashPoint,
        spool_name: str,
        log: Any,
    ) -> None:
        self._instance = instance
        self._actor = actor
        self._feed = feed
        self._intake = intake
        self._storage = storage
        self._application = application
        self._clock = clock
        self._spool = spool
        self._settings = settings
        self._patience = patience
        self._crash_point = crash_point
        self._log = log
        self._epochs: dict[tuple[str, str], int] = {}
        self._spool_name = spool_name
        self._spooled = 0
        self._process = SpoolProcess()
        self.positions = Positions()
        self.incarnation = ""
        self.segments: dict[str, OpenSegment] = {}
        self.sealed = 0
        self.records = 0

    def stats(self) -> dict[str, int | str]:
        """For `Health.stats`."""
        return {
            "sealed": self.sealed,
            "records": self.records,
            "open_segments": len(self.segments),
            "open_bytes": sum(segment.content_bytes for segment in self.segments.values()),
        }

    async def write(self, unit: Unit[Any], *, may_cut: bool) -> None:
        """Add the connection's next block; cut before or behind it where its content, or a plan, says so.

        Args:
            may_cut: a cut by size or plan may come now: nothing from before this block is still waited for.

        Raises:
            Unavailable: the spool cannot be written, or a backend did not answer until patience ended.
            Rejected: "archive-fenced", "archive-twin".
            Conflict: storage holds another object at a segment's key.
        """
        segment = self.segments.get(unit.connection)
        if segment is not None and not (
            segment.date == unit.date
            and self._intake.fits(segment.encoder, unit)
            and (segment.cut_after == 0 or unit.last_seq <= segment.cut_after)
        ):
            await self.seal(segment)
            segment = None
        if segment is None:
            segment = await self._open(unit)
        segment.add(unit, self._intake.pieces(segment.encoder, unit))
        segment.touched_ns = self._clock.monotonic_ns()
        if segment.wants_spill:
            await segment.spill()
            self._crash_point(crash_points.AFTER_SPOOL_WRITE)
        is_cut = segment.content_bytes >= self._settings.segment_bytes or segment.last_seq == segment.cut_after
        if (is_cut and may_cut) or unit.day_mark == segment.date:
            await self.seal(segment)
        if unit.day_mark:
            await self._complete(unit.connection, unit.day_mark)

    def _incarnation(self, connection: str) -> str:
        return self.positions.connections.get(connection, Sealed()).incarnation or self.incarnation

    def forget_epochs(self) -> None:
        """Partitions are to be opened again: another archiver had them meanwhile."""
        self._epochs.clear()

    async def _epoch(self, key: tuple[str, str]) -> int:
        """The partition's epoch, which is ours once it has been opened by us.

        Where opening it writes nothing, one of our name was before us since the journal was read: a twin, or we, who were not
        told. The epoch above is ours alone; a twin is fenced by it.
        """
        if key not in self._epochs:
            for _ in range(OPENINGS_MAX):
                epoch = self.positions.partitions.get(key, archive.State()).epoch + 1
                if await self._command(key, archive.OpenPartition(epoch, self._instance)):
                    break
            self._epochs[key] = epoch
        return self._epochs[key]

    async def record_regressed(self, found: Regressed) -> None:
        """Journal that the stream lost what was sealed of a connection, and count its messages anew."""
        key = found.connection, self.positions.connections[found.connection].date
        epoch = await self._epoch(key)
        action = "read again from the start of retention; the connector fills it again from its tape"
        await self._command(
            key,
            archive.RecordStreamRegressed(
                epoch, found.incarnation, found.position, found.found_last, found.found_message_id, action
            ),
        )
        self.positions.regressed(found.connection, found.incarnation)

    async def record_truncated(self, connection: str, first_available: int) -> None:
        """Journal that retention took what was not sealed yet of a connection."""
        sealed = self.positions.connections[connection]
        key = connection, sealed.date
        epoch = await self._epoch(key)
        action = "waits until the connector has filled it again from its tape"
        await self._command(
            key, archive.RecordStreamTruncated(epoch, sealed.incarnation, sealed.last_seq, first_available, action)
        )

    async def record_dead_letter(self, message: StreamMessage, reason: str) -> None:
        """Journal that no segment can take `message`; once, however often it is read."""
        stream = self._intake.stream
        about = f"{self._feed}/{message.subject}"
        command = dead_letter.RecordDeadLetter(self._actor.partition(":")[0], stream, message.seq, about, "", reason)
        parts = (f"{stream}-{self.incarnation}-{message.seq}",)
        await self._patience.until_answered(
            "journal", lambda: self._application.handle(dead_letter.DECIDER, parts, command, actor=self._actor)
        )

    async def _open(self, unit: Unit[Any]) -> OpenSegment:
        key = unit.connection, unit.date
        await self._epoch(key)
        state = self.positions.partitions[key]
        sealed = self.positions.connections.get(unit.connection, Sealed())
        incarnation = self._incarnation(unit.connection)
        planned = state.planned
        cut_after = 0
        if planned is not None and planned.incarnation == incarnation and planned.last_seq >= unit.last_seq:
            cut_after = planned.last_seq
        self._spooled += 1
        segment = self.segments[unit.connection] = OpenSegment(
            self._spool / f"{self._spool_name}-{self._spooled:08}",
            self._settings.zstd_level,
            connection=unit.connection,
            date=unit.date,
            first_seq=max(unit.first_seq, sealed.last_seq + 1),
            cut_after=cut_after,
            encoder=self._intake.encoder(unit),
            process=self._process,
        )
        return segment

    async def seal(self, segment: OpenSegment, planned: str = "") -> None:
        """Finish, upload, seal. `planned`: why it is cut here although content does not ask for it."""
        key = segment.connection, segment.date
        incarnation = self._incarnation(segment.connection)
        if planned:
            plan = archive.PlanSegment(self._epochs[key], incarnation, segment.first_seq, segment.last_seq, planned)
            await self._command(key, plan)
        else:
            # Asks the journal: who was fenced must not upload.
            await self._command(key, archive.OpenPartition(self._epochs[key], self._instance))
        finished = await segment.finish()
        self._crash_point(crash_points.AFTER_SPOOL_WRITE)
        self._crash_point(crash_points.BEFORE_UPLOAD)
        files = tuple([await self._upload(segment, file) for file in finished])
        self._crash_point(crash_points.AFTER_UPLOAD_BEFORE_SEAL)
        sessions = tuple(
            archive.SessionReached(session, last_n, self._intake.newline(segment.encoder, session))
            for session, last_n in sorted(segment.sessions.items())
        )
        seal = archive.SealSegment(
            self._epochs[key],
            incarnation,
            segment.first_seq,
            segment.last_seq,
            segment.message_id,
            files,
            sessions,
        )
        await self._command(key, seal)
        self.positions.sealed(segment.connection, segment.date, seal)
        self._crash_point(crash_points.AFTER_SEAL)
        for file, told in zip(finished, files, strict=True):
            await self._index(file, told)
        del self.segments[segment.connection]
        await segment.discard()
        self.sealed += 1
        self.records += sum(file.records for file in files)
        self._log.info("sealed", connection=segment.connection, date=segment.date, files=len(files), last_seq=segment.last_seq)

    async def _upload(self, segment: OpenSegment, file: FinishedFile) -> archive.SegmentFile:
        object_key = self._intake.key(segment, file.kind, self._incarnation(segment.connection))
        await self._patience.until_answered("storage", lambda: self._storage.put_file(object_key, Path(file.path)))
        facts = file.facts
        return archive.SegmentFile(
            object_key,
            file.kind,
            facts.size_bytes,
            facts.sha256,
            facts.content_bytes,
            facts.content_sha256,
            facts.records,
            facts.ts_recv_first_ns,
            facts.ts_recv_last_ns,
        )

    async def _index(self, file: FinishedFile, told: archive.SegmentFile) -> None:
        """Put the sidecar beside a sealed file: tried once, for readers do without it, and it can be made again."""
        if file.no_sidecar:
            self._log.warning("no sidecar", segment=told.key, reason=file.no_sidecar)
        if file.sidecar is not None:
            try:
                await self._storage.put(index_key(told.key), file.sidecar)
            except Unavailable as error:
                self._log.warning("no sidecar", segment=told.key, reason=str(error))

    async def _complete(self, connection: str, date: str) -> None:
        await self._command((connection, date), archive.CompletePartition("day-mark"))

    async def _command(self, key: tuple[str, str], command: archive.ArchiveCommand) -> bool:
        """Journal it; whether that wrote anything."""
        connection, date = key
        parts = (self._feed, date, self._intake.data_type, connection)
        try:
            handled = await self._patience.until_answered(
                "journal", lambda: self._application.handle(archive.DECIDER, parts, command, actor=self._actor)
            )
        except Rejected as error:
            raise await self._who_fenced(parts, error) from error
        self.positions.connections.setdefault(connection, Sealed())
        self.positions.partitions[key] = handled.state
        return bool(handled.events)

    async def _who_fenced(self, parts: tuple[str, ...], error: Rejected) -> Rejected:
        """`error`; "archive-twin" where it says that another process of our own name took over: two would do so in turns."""
        if error.rule != "archive-fenced":
            return error
        state = await self._patience.until_answered("journal", lambda: self._application.state(archive.DECIDER, parts))
        if state.instance != self._instance:
            return error
        name = self._actor.partition(":")[0]
        message = f"another {name} {self._instance!r} archives this: neither heard the other when they began"
        return Rejected("archive-twin", message, mend="start it again: it takes another name, and stands by")

    def idle(self) -> list[OpenSegment]:
        """Segments that nothing was added to for the time after which they are to be cut."""
        before_ns = self._clock.monotonic_ns() - int(self._settings.idle_seconds * 1e9)
        return [segment for segment in self.segments.values() if segment.touched_ns <= before_ns]

    async def abandon(self) -> None:
        """Forget what is open; it is still on the stream."""
        segments, self.segments = self.segments, {}
        for segment in segments.values():
            await segment.discard()

    async def close(self) -> None:
        """End the process beside this one, if there is one."""
        await self._process.close()

    async def clear_spool(self) -> None:
        """Make the spool, and remove what a killed process left there.

        Raises:
            Unavailable: it cannot be written.
        """
        try:
            await asyncio.to_thread(self._clear_spool)
        except OSError as error:
            raise Unavailable(f"spool {self._spool}: {error.strerror}", mend="make the directory writable") from error

    def _clear_spool(self) -> None:
        self._spool.mkdir(parents=True, exist_ok=True)
        for leftover in self._spool.iterdir():
            if leftover.is_file():
                leftover.unlink(missing_ok=True)  # the process of a killed archiver may be at work still
