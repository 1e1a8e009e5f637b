"""What the two archivers share: from a stream to sealed segments, exactly once, whatever kills them.

    stream -> intake (messages to blocks) -> continuity (order, repeats, holes) -> open segment (spool) -> storage -> seal

A connection has one open segment at a time. It is cut where content says so (size, day, day-mark), or where a plan says
so that was journaled before the upload (idle, flush, stop): so a restart makes the same files again. The journal's last
seal is the position; the stream sequence in it only says where to begin reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import structlog

from ssmd.application.handler import Application
from ssmd.archive import crash_points
from ssmd.archive.continuity import Continuity, Place, Unit
from ssmd.archive.keys import DataType
from ssmd.archive.storage import Storage
from ssmd.clock import Clock
from ssmd.domain import archive
from ssmd.errors import Conflict, Malformed, SsmdError, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.registry.documents import ArchiveSettings
from ssmd.services.archive_positions import Positions, Sealed, find_start, load_positions
from ssmd.services.component import Health
from ssmd.services.open_segment import FinishedFile, OpenSegment, Piece
from ssmd.streams.backoff import backoff_s
from ssmd.streams.transport import StreamMessage, StreamName, StreamReader, Transport

POLL_S: Final = 0.1
EMPTY_POLLS: Final = 5
"""So many reads without a message mean that there is none, where the stream's last one is not for this archiver."""

HOLD_SECONDS: Final = 5.0
FLUSH_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
PROBLEMS_MAX: Final = 20

Answer = TypeVar("Answer")


class Intake(Protocol):
    """What the raw and the normalized archiver do differently. Pure but for what it remembers of unfinished blocks."""

    @property
    def data_type(self) -> DataType: ...

    @property
    def stream(self) -> StreamName: ...

    @property
    def rewind(self) -> int:
        """Messages read again before the position at a start, for those a publisher stored out of order."""
        ...

    def filters(self) -> Sequence[str]:
        """Subjects to read."""
        ...

    def closing_subject(self, connection: str) -> str:
        """Subject of the messages that end a connection's blocks."""
        ...

    def link_of(self, reached: Place, /) -> Hashable:
        """The link of the block that ends at `reached`, as far as that can be known; None = it cannot."""
        ...

    def take(self, message: StreamMessage) -> Unit[Any] | None:
        """The block that `message` completes.

        Raises:
            Malformed: it cannot be archived.
        """
        ...

    def begin(self, reached: Mapping[str, Place], /) -> None:
        """Forget all; reading begins anew, and connections are archived up to `reached`."""
        ...

    def archived(self, connection: str, reached: Place, /) -> None:
        """`connection` is written up to `reached`: its messages up to there are not wanted again."""
        ...

    def encoder(self, unit: Unit[Any]) -> Any:
        """Fresh state for the segment that begins with `unit`."""
        ...

    def fits(self, encoder: Any, unit: Unit[Any], /) -> bool:
        """Whether `unit` may go into the segment of `encoder`; if not, the segment is cut before it."""
        ...

    def pieces(self, encoder: Any, unit: Unit[Any], /) -> Sequence[Piece]:
        """What `unit` adds to the files."""
        ...

    def newline(self, encoder: Any, session: int, /) -> bool:
        """For `SessionReached.newline`."""
        ...

    def key(self, segment: OpenSegment, kind: str, incarnation: str, /) -> str:
        """The key of the segment's file of one kind."""
        ...


class StreamArchiver:
    """A component; see the module and `services.component`.

    Args:
        spool: directory of this instance alone; what is in it at the start is removed.
        hold_seconds: how long a block that does not follow the last one waits for what is missing.
        crash_point: called with the names of `archive.crash_points`.
    """

    def __init__(
        self,
        name: str,
        instance: str,
        feed: str,
        intake: Intake,
        *,
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
        self._name = name
        self._instance = instance
        self._feed = feed
        self._intake = intake
        self._transport = transport
        self._storage = storage
        self._application = application
        self._clock = clock
        self._random = random
        self._spool = spool
        self._settings = settings
        self._hold_ns = int(hold_seconds * 1e9)
        self._crash_point = crash_point
        self._log = structlog.get_logger().bind(archiver=name, feed=feed)
        self._positions = Positions()
        self._epochs: dict[tuple[str, str], int] = {}
        self._incarnation = ""
        self._seq = 0
        self._reader: StreamReader | None = None
        self._continuity: dict[str, Continuity[Any]] = {}
        self._held_since: dict[str, int] = {}
        self._segments: dict[str, OpenSegment] = {}
        self._spooled = 0
        self._flushes: list[asyncio.Future[None]] = []
        self._stopping = False
        self._gives_up_at = float("inf")
        self._ended = asyncio.Event()
        self._running = False
        self._empty_polls = 0
        self._away = ""
        self._problems: list[str] = []
        self._counts = {"sealed": 0, "records": 0, "holes": 0, "damaged": 0, "duplicates": 0, "chain_breaks": 0}

    @property
    def name(self) -> str:
        return self._name

    @property
    def instance(self) -> str:
        return self._instance

    # What a component does

    async def run(self) -> None:
        """Archive until `stop`.

        Raises:
            Rejected: "archive-fenced": another archiver took over.
            Conflict: storage holds another object at a segment's key.
            Malformed: the journal cannot be read by this version.
        """
        self._running = True
        try:
            await asyncio.to_thread(self._clear_spool)
            while not await self._step():
                pass
        except SsmdError as error:
            self._report(error.message)
            raise
        finally:
            self._running = False
            self._ended.set()
            for flush in self._flushes:
                if not flush.done():
                    flush.set_exception(Unavailable(f"{self._name} ended before the flush was done"))
            self._flushes.clear()
            await self._abandon()

    async def stop(self) -> None:
        self._stopping = True
        self._empty_polls = 0
        with suppress(RuntimeError):  # no loop: nothing runs
            self._gives_up_at = min(self._gives_up_at, asyncio.get_running_loop().time() + STOP_TIMEOUT_S)
        if self._running:
            await self._ended.wait()

    async def flush(self) -> None:
        """Seal all that is on the stream now.

        Raises:
            Unavailable: not done within FLUSH_TIMEOUT_S, or the archiver does not run; nothing is lost by that.
        """
        if not self._running:
            raise Unavailable(f"{self._name} is not running")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes.append(done)
        self._empty_polls = 0
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await done
        except TimeoutError:
            raise Unavailable(f"{self._name} did not seal everything within {FLUSH_TIMEOUT_S:.0f} s: {self._away}") from None

    def health(self) -> Health:
        holding = [continuity.missing() for continuity in self._continuity.values() if continuity.is_holding]
        reason = self._away or (holding[0] if holding else "") or (self._problems[-1] if self._problems else "")
        stats: dict[str, int | str] = {
            **self._counts,
            "stream_seq": self._seq,
            "open_segments": len(self._segments),
            "open_bytes": sum(segment.content_bytes for segment in self._segments.values()),
        }
        return Health(ok=not reason, reason=reason, stats=stats)

    # The loop

    async def _step(self) -> bool:
        """One round; True when the archiver is done."""
        try:
            return await self._round()
        except Unavailable as error:
            # The spool has no room, or the time to stop is over: what is not sealed is still on the stream.
            self._away = error.message
            self._log.error("abandoned", reason=error.message)
            await self._abandon()
            if not self._stopping:
                await asyncio.sleep(backoff_s(5, self._random))
            return self._stopping

    async def _round(self) -> bool:
        if self._reader is None:
            await self._retrying("journal", self._load)
            await self._retrying("stream", self._open_reader)
        asked = self._stopping or bool(self._flushes)
        await self._read()
        await self._look_after_time()
        if asked and await self._is_caught_up():
            await self._seal_everything("stop" if self._stopping else "flush")
            return self._stopping
        return False

    async def _read(self) -> None:
        if self._reader is None:
            return
        try:
            messages = await self._reader.next(POLL_S)
        except Unavailable as error:
            self._away = f"stream: {error.message}"
            await asyncio.sleep(backoff_s(3, self._random))
            return
        except Conflict as error:
            self._report(f"stream regressed: {error.message}")
            await self._abandon()
            return
        self._away = ""
        self._empty_polls = 0 if messages else self._empty_polls + 1
        for message in messages:
            self._seq = message.seq
            try:
                unit = self._intake.take(message)
            except Malformed as error:
                self._counts["damaged"] += 1
                self._report(f"message {message.seq} on {message.subject} cannot be archived: {error.message}")
                continue
            if unit is not None:
                await self._offer(unit)

    async def _is_caught_up(self) -> bool:
        if asyncio.get_running_loop().time() > self._gives_up_at:
            return True
        if self._reader is None:
            return False
        if self._empty_polls >= EMPTY_POLLS:
            return True
        try:
            return self._seq >= (await self._transport.state(self._intake.stream)).last_seq
        except Unavailable as error:
            self._away = f"stream: {error.message}"
            return False

    async def _look_after_time(self) -> None:
        now_ns = self._clock.monotonic_ns()
        for connection, since_ns in list(self._held_since.items()):
            if now_ns - since_ns >= self._hold_ns:
                await self._give_up(connection)
        for segment in list(self._segments.values()):
            if now_ns - segment.touched_ns >= self._settings.idle_seconds * 1e9 and not self._is_holding(segment.connection):
                await self._seal(segment, "idle")

    async def _seal_everything(self, reason: str) -> None:
        flushes, self._flushes = self._flushes, []
        try:
            for connection in list(self._held_since):
                await self._give_up(connection)
            for segment in list(self._segments.values()):
                await self._seal(segment, reason)
        except BaseException:
            self._flushes = flushes + self._flushes
            raise
        for flush in flushes:
            if not flush.done():
                flush.set_result(None)

    # Order

    def _is_holding(self, connection: str) -> bool:
        return self._continuity[connection].is_holding

    async def _offer(self, unit: Unit[Any]) -> None:
        connection = unit.connection
        continuity = self._continuity.get(connection)
        if continuity is None:
            reached = self._positions.connections.get(connection, Sealed()).reached
            continuity = self._continuity[connection] = Continuity(reached, self._intake.link_of(reached))
        duplicates, chain_breaks = continuity.duplicates, continuity.chain_breaks
        ready = continuity.offer(unit)
        self._counts["duplicates"] += continuity.duplicates - duplicates
        if continuity.chain_breaks > chain_breaks:
            self._counts["chain_breaks"] += continuity.chain_breaks - chain_breaks
            self._report(f"chain of digests broken on {connection} at session {unit.session}, entry {unit.first_n}")
        self._intake.archived(connection, continuity.reached)
        for one in ready:
            await self._write(one)
        if continuity.is_full:
            await self._give_up(connection)
        self._note_hold(connection)

    def _note_hold(self, connection: str) -> None:
        if not self._is_holding(connection):
            self._held_since.pop(connection, None)
        elif connection not in self._held_since:
            self._held_since[connection] = self._clock.monotonic_ns()
            self._log.warning("holding", connection=connection, missing=self._continuity[connection].missing())

    async def _give_up(self, connection: str) -> None:
        """What is missing will not come: say so and go on without it."""
        continuity = self._continuity[connection]
        while continuity.is_holding:
            self._counts["holes"] += 1
            self._report(continuity.missing())
            units = continuity.give_up()
            self._intake.archived(connection, continuity.reached)
            for unit in units:
                await self._write(unit)
        self._note_hold(connection)

    # Writing

    async def _write(self, unit: Unit[Any]) -> None:
        segment = self._segments.get(unit.connection)
        if segment is not None and not (
            segment.date == unit.date
            and self._intake.fits(segment.encoder, unit)
            and (segment.cut_after == 0 or unit.last_seq <= segment.cut_after)
        ):
            await self._seal(segment)
            segment = None
        if segment is None:
            segment = await self._open(unit)
        segment.add(unit, self._intake.pieces(segment.encoder, unit))
        segment.touched_ns = self._clock.monotonic_ns()
        if segment.wants_spill:
            await segment.spill()
            self._crash_point(crash_points.AFTER_SPOOL_WRITE)
        is_cut = segment.content_bytes >= self._settings.segment_bytes or segment.last_seq == segment.cut_after
        if (is_cut and not self._is_holding(unit.connection)) or unit.day_mark == segment.date:
            await self._seal(segment)
        if unit.day_mark:
            await self._complete(unit.connection, unit.day_mark)

    async def _open(self, unit: Unit[Any]) -> OpenSegment:
        key = unit.connection, unit.date
        state = self._positions.partitions.get(key, archive.State())
        if key not in self._epochs:
            epoch = state.epoch + 1
            await self._command(key, archive.OpenPartition(epoch, self._instance))
            self._epochs[key] = epoch
            state = self._positions.partitions[key]
        sealed = self._positions.connections.get(unit.connection, Sealed())
        is_same = sealed.incarnation == self._incarnation
        planned = state.planned
        cut_after = 0
        if planned is not None and planned.incarnation == self._incarnation and planned.last_seq >= unit.last_seq:
            cut_after = planned.last_seq
        self._spooled += 1
        segment = self._segments[unit.connection] = OpenSegment(
            self._spool / f"{self._spooled:08}",
            self._settings.zstd_level,
            connection=unit.connection,
            date=unit.date,
            first_seq=max(unit.first_seq, sealed.last_seq + 1 if is_same else 0),
            cut_after=cut_after,
            encoder=self._intake.encoder(unit),
        )
        return segment

    async def _seal(self, segment: OpenSegment, planned: str = "") -> None:
        """Finish, upload, seal. `planned`: why it is cut here although content does not ask for it."""
        key = segment.connection, segment.date
        if planned:
            plan = archive.PlanSegment(self._epochs[key], self._incarnation, segment.first_seq, segment.last_seq, planned)
            await self._command(key, plan)
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
            self._incarnation,
            segment.first_seq,
            segment.last_seq,
            segment.message_id,
            files,
            sessions,
        )
        await self._command(key, seal)
        self._positions.sealed(segment.connection, seal)
        self._crash_point(crash_points.AFTER_SEAL)
        del self._segments[segment.connection]
        await segment.discard()
        self._counts["sealed"] += 1
        self._counts["records"] += sum(file.records for file in files)
        self._log.info("sealed", connection=segment.connection, date=segment.date, files=len(files), last_seq=segment.last_seq)

    async def _upload(self, segment: OpenSegment, file: FinishedFile) -> archive.SegmentFile:
        object_key = self._intake.key(segment, file.kind, self._incarnation)
        await self._retrying("storage", lambda: self._storage.put_file(object_key, file.path))
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

    async def _complete(self, connection: str, date: str) -> None:
        await self._command((connection, date), archive.CompletePartition("day-mark"))

    async def _command(self, key: tuple[str, str], command: archive.ArchiveCommand) -> None:
        connection, date = key
        parts = (self._feed, date, self._intake.data_type, connection)
        actor = f"{self._name}:{self._instance}"
        handled = await self._retrying(
            "journal", lambda: self._application.handle(archive.DECIDER, parts, command, actor=actor)
        )
        for event in handled.events:
            self._positions.apply(connection, date, event)
        self._positions.partitions[key] = handled.state

    # Starting and recovering

    async def _load(self) -> None:
        self._positions = await load_positions(self._application.journal, self._feed, self._intake.data_type)
        self._intake.begin({connection: one.reached for connection, one in self._positions.connections.items()})

    async def _open_reader(self) -> None:
        intake = self._intake
        start = await find_start(self._transport, intake.stream, self._positions, intake.closing_subject)
        after = max(0, start.after - intake.rewind)
        self._reader = await self._transport.read(intake.stream, after=after, filters=intake.filters())
        self._incarnation = start.incarnation
        self._seq = after
        for regressed in start.regressed:
            self._report(f"stream regressed: {regressed}")
        self._log.info("reading", after=after, incarnation=start.incarnation)

    async def _abandon(self) -> None:
        """Forget all that is not sealed; it is read again."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        segments, self._segments = self._segments, {}
        for segment in segments.values():
            await segment.discard()
        self._continuity.clear()
        self._held_since.clear()

    def _clear_spool(self) -> None:
        try:
            self._spool.mkdir(parents=True, exist_ok=True)
            for leftover in self._spool.iterdir():
                if leftover.is_file():
                    leftover.unlink()
        except OSError as error:
            raise Unavailable(f"spool {self._spool}: {error.strerror}", mend="make the directory writable") from error

    async def _retrying(self, what: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Call until the backend answers; while it does not, nothing else is done, so nothing piles up here.

        Raises:
            Unavailable: the archiver has been told to stop, and its time is over.
        """
        attempt = 0
        while True:
            try:
                answer = await call()
            except Unavailable as error:
                attempt += 1
                self._away = f"{what}: {error.message}"
                self._log.warning("unavailable", what=what, reason=error.message, attempt=attempt)
                if asyncio.get_running_loop().time() > self._gives_up_at:
                    raise
                await asyncio.sleep(backoff_s(attempt, self._random))
            else:
                self._away = ""
                return answer

    def _report(self, problem: str) -> None:
        self._log.error("problem", reason=problem)
        self._problems = [*self._problems[-PROBLEMS_MAX + 1 :], problem]
