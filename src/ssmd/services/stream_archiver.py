"""What the two archivers share: from a stream to sealed segments, exactly once, whatever kills them.

    stream -> intake (messages to blocks) -> continuity (order, repeats, holes) -> open segment (spool) -> storage -> seal

The journal's last seal is the position; the stream sequence in it only says where to begin reading, and what was
archived already is told by (session, n). This module reads, orders and is asked; `services.sealer` writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ssmd.application.handler import Application
from ssmd.archive import crash_points
from ssmd.archive.continuity import Continuity, Unit
from ssmd.archive.storage import Storage
from ssmd.clock import Clock
from ssmd.errors import Conflict, Malformed, Rejected, SsmdError, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.registry.documents import ArchiveSettings
from ssmd.services.archive_intake import Intake
from ssmd.services.archive_lag import ArchiveLag
from ssmd.services.archive_positions import Positions, Sealed, StreamEnd, find_start, load_positions
from ssmd.services.component import Health
from ssmd.services.flushes import Flushes
from ssmd.services.patience import Patience
from ssmd.services.refill_wait import REFILL_WAIT_S, RefillWait
from ssmd.services.sealer import Sealer
from ssmd.services.standby import IsAlive, Standby
from ssmd.streams.backoff import backoff_s
from ssmd.streams.transport import StreamReader, Transport
from ssmd.telemetry import request
from ssmd.telemetry.structured import structlog

POLL_S: Final = 0.1
EMPTY_POLLS: Final = 10
"""So many reads without a message mean that no unknown connection has one, where the stream's last one is another feed's."""

BREATH_BYTES: Final = 128 << 10
"""After so much the socket is looked at, some 1 ms later: else the server waits for us, and then we for the server."""

HOLD_SECONDS: Final = 5.0
FLUSH_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
PROBLEMS_MAX: Final = 20


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
        is_alive: IsAlive | None = None,
    ) -> None:
        self._name = name
        self._instance = instance
        self._feed = feed
        self._intake = intake
        self._transport = transport
        self._application = application
        self._clock = clock
        self._random = random
        self._hold_ns = int(hold_seconds * 1e9)
        self._log = structlog.get_logger().bind(archiver=name, feed=feed)
        self._patience = Patience(self._log, random)
        self._sealer = Sealer(
            instance,
            f"{name}:{instance}",
            feed,
            intake,
            storage=storage,
            application=application,
            clock=clock,
            spool=spool,
            settings=settings,
            patience=self._patience,
            crash_point=crash_point,
            spool_name=random(4).hex(),
            log=self._log,
        )
        self._standby = Standby(instance, self._positions, is_alive, self._log)
        self._reader: StreamReader | None = None
        self._end = StreamEnd(transport, intake)
        self._lag = ArchiveLag(transport, intake.stream, clock, spool)
        self._seq = 0
        self._empty_polls = 0
        self._continuity: dict[str, Continuity[Any]] = {}
        self._held_since: dict[str, int] = {}
        self._refills = RefillWait(clock)
        self._flushes = Flushes()
        self._stopping = False
        self._running = False
        self._ended = asyncio.Event()
        self._problems: list[str] = []
        self._counts = {"holes": 0, "damaged": 0, "duplicates": 0, "chain_breaks": 0}

    @property
    def name(self) -> str:
        return self._name

    @property
    def instance(self) -> str:
        return self._instance

    async def run(self) -> None:
        """Archive until `stop`.

        Raises:
            Rejected: "archive-fenced": another archiver took over, and this one is not to stand by; "archive-twin": it has the
                same name.
            Conflict: storage holds another object at a segment's key.
            Malformed: the journal cannot be read by this version.
        """
        self._running = True
        try:
            await self._sealer.clear_spool()
            await self._standby.until_free(lambda: self._stopping)
            while not await self._step():
                pass
        except SsmdError as error:
            self._report(error.message)
            raise
        finally:
            self._running = False
            self._ended.set()
            self._flushes.refuse(f"{self._name} ended before the flush was done")
            await self._sealer.close()  # first: what it has not written yet is not wanted, and it may hang
            await self._abandon()

    async def stop(self) -> None:
        self._stopping = True
        self._empty_polls = 0
        with suppress(RuntimeError):  # no loop: nothing runs
            ends_at = asyncio.get_running_loop().time() + STOP_TIMEOUT_S
            self._patience.gives_up_at = min(self._patience.gives_up_at, ends_at)
        if self._running:
            await self._ended.wait()

    async def flush(self) -> None:
        """Seal all that is on the stream now.

        Raises:
            Unavailable: not done within FLUSH_TIMEOUT_S, or the archiver does not run; nothing is lost by that.
        """
        if not self._running:
            raise Unavailable(f"{self._name} is not running")
        if self._standby.waits_for:
            return
        self._empty_polls = 0
        try:
            await self._flushes.ask(FLUSH_TIMEOUT_S)
        except TimeoutError:
            why = self.health().reason or "it is busy"
            raise Unavailable(f"{self._name} did not seal everything within {FLUSH_TIMEOUT_S:.0f} s: {why}") from None

    def health(self) -> Health:
        holding = [continuity.missing() for continuity in self._continuity.values() if continuity.is_holding]
        waiting = [f"waiting for the refill of {connection} from its tape" for connection in self._refills.connections]
        if self._standby.waits_for:
            return Health(ok=True, reason="", stats={"stands_by_for": self._standby.waits_for})
        told = [self._patience.away, *holding, *waiting, *self._problems[-1:]]
        reason = next((one for one in told if one), "")
        stats: dict[str, int | str] = {
            **self._counts,
            "stream_seq": self._seq,
            **self._sealer.stats(),
            **self._lag.stats(self._seq, self._sealer.segments.values(), self._sealer.positions.connections.values()),
        }
        return Health(ok=not reason, reason=reason, stats=stats)

    async def _step(self) -> bool:
        """One round; True when the archiver is done."""
        try:
            return await self._round()
        except Rejected as error:
            if error.rule != "archive-fenced" or not self._standby.is_possible:
                raise
            self._log.warning("fenced", reason=error.message)
            await self._abandon()
            self._sealer.forget_epochs()
            self._flushes.answer(len(self._flushes))  # nothing is held here
            await self._standby.until_free(lambda: self._stopping)
            return self._stopping
        except Unavailable as error:
            # The spool has no room, or the time to stop is over: what is not sealed is still on the stream.
            self._patience.away = error.message
            self._log.error("abandoned", reason=error.message)
            await self._abandon()
            if not self._stopping:
                await asyncio.sleep(backoff_s(5, self._random))
            return self._stopping

    async def _round(self) -> bool:
        if self._reader is None:
            await self._patience.until_answered("journal", self._load)
            await self._patience.until_answered("stream", self._open_reader)
        asked = self._stopping or bool(self._flushes)
        if asked and await self._is_caught_up() and (self._stopping or not (self._held_since or self._refills)):
            await self._seal_everything("stop" if self._stopping else "flush")
            return self._stopping  # what is held stays on the stream
        await self._read()
        await self._look_after_time()
        return False

    async def _read(self) -> None:
        if self._reader is None:
            return
        try:
            messages = await self._reader.next(POLL_S)
        except Unavailable as error:
            self._patience.away = f"stream: {error.message}"
            await asyncio.sleep(backoff_s(3, self._random))
            return
        except Conflict as error:
            self._report(f"stream regressed: {error.message}")
            await self._abandon()
            return
        self._patience.away = ""
        self._empty_polls = 0 if messages else self._empty_polls + 1
        taken_bytes = 0
        for message in messages:
            taken_bytes += len(message.payload)
            if taken_bytes // BREATH_BYTES != (taken_bytes - len(message.payload)) // BREATH_BYTES:
                await asyncio.sleep(0)
            self._seq = message.seq
            try:
                unit = self._intake.take(message)
            except Malformed as error:
                self._counts["damaged"] += 1
                self._report(f"message {message.seq} on {message.subject} cannot be archived: {error.message}")
                await self._sealer.record_dead_letter(message, error.message)
                continue
            if unit is not None:
                await self._offer(unit)

    async def _is_caught_up(self) -> bool:
        """Whether all that the stream holds for this archiver has been read."""
        if asyncio.get_running_loop().time() > self._patience.gives_up_at:
            return True
        if self._reader is None:
            return False
        connections = {*self._continuity, *self._sealer.positions.connections}
        try:
            return await self._end.is_read(connections, self._seq, is_quiet=self._empty_polls >= EMPTY_POLLS)
        except Unavailable as error:
            self._patience.away = f"stream: {error.message}"
            return False

    async def _look_after_time(self) -> None:
        await self._lag.look(self._seq)
        now_ns = self._clock.monotonic_ns()
        for connection, since_ns in list(self._held_since.items()):
            if now_ns - since_ns >= self._hold_ns:
                await self._give_up(connection)
        if connection := self._refills.overdue():
            self._report(f"the connector has not filled the stream again for {connection} in {REFILL_WAIT_S:.0f} s")
            await self._abandon()
        for segment in self._sealer.idle():
            if segment.connection not in self._held_since:
                await self._sealer.seal(segment, "idle")

    async def _seal_everything(self, reason: str) -> None:
        asked = len(self._flushes)
        with request.begun(self._flushes.asked_by):
            for segment in list(self._sealer.segments.values()):
                await self._sealer.seal(segment, reason)
        self._flushes.answer(asked)

    # Order

    async def _offer(self, unit: Unit[Any]) -> None:
        connection = unit.connection
        continuity = self._continuity.get(connection)
        if continuity is None:
            reached = self._sealer.positions.connections.get(connection, Sealed()).reached
            continuity = self._continuity[connection] = Continuity(reached, self._intake.link_of(reached))
        if connection in self._refills and not self._refills.takes(unit, continuity):
            self._intake.refused(unit)
            return
        duplicates, chain_breaks = continuity.duplicates, continuity.chain_breaks
        ready = continuity.offer(unit)
        self._counts["duplicates"] += continuity.duplicates - duplicates
        if continuity.chain_breaks > chain_breaks:
            self._counts["chain_breaks"] += continuity.chain_breaks - chain_breaks
            self._report(f"chain of digests broken on {connection} at session {unit.session}, entry {unit.first_n}")
        self._intake.archived(connection, continuity.reached)
        await self._write(ready, continuity)
        if continuity.is_full:
            await self._give_up(connection)
        if ready:
            # What was missing is coming, in order: however long that takes, there is nothing to give up.
            self._held_since.pop(connection, None)
        self._note_hold(connection)

    async def _write(self, units: Sequence[Unit[Any]], continuity: Continuity[Any]) -> None:
        """Write what goes on. A cut comes behind the last only: what is released came earlier than what released it."""
        for left, unit in enumerate(units, 1 - len(units)):
            await self._sealer.write(unit, may_cut=left == 0 and not continuity.is_holding)

    def _note_hold(self, connection: str) -> None:
        if not self._continuity[connection].is_holding:
            self._held_since.pop(connection, None)
        elif connection not in self._held_since:
            self._held_since[connection] = self._clock.monotonic_ns()
            self._log.info("holding", connection=connection, missing=self._continuity[connection].missing())

    async def _give_up(self, connection: str) -> None:
        """What is missing will not come, unless the tape can bring it: say so and go on without it."""
        if await self._awaits_refill(connection):
            return
        continuity = self._continuity[connection]
        while continuity.is_holding:
            self._counts["holes"] += 1
            self._report(continuity.missing())
            units = continuity.give_up()
            self._intake.archived(connection, continuity.reached)
            await self._write(units, continuity)
        self._note_hold(connection)

    # Starting and recovering

    async def _load_positions(self) -> Positions:
        return await load_positions(self._application.journal, self._feed, self._intake.data_type)

    async def _positions(self) -> Positions:
        return await self._patience.until_answered("journal", self._load_positions)

    async def _load(self) -> None:
        self._sealer.positions = await self._load_positions()
        self._intake.begin({connection: one.reached for connection, one in self._sealer.positions.connections.items()})

    async def _open_reader(self) -> None:
        intake, positions = self._intake, self._sealer.positions
        start = await find_start(self._transport, intake.stream, positions, intake.closing_subject)
        self._sealer.incarnation = start.incarnation
        for regressed in start.regressed:
            self._report(f"stream regressed: {regressed.reason}")
            await self._sealer.record_regressed(regressed)
        after = max(0, start.after - intake.rewind)
        self._reader = await self._transport.read(intake.stream, after=after, filters=intake.filters())
        self._seq = after
        self._log.info("reading", after=after, incarnation=start.incarnation)

    async def _awaits_refill(self, connection: str) -> bool:
        """Whether what `connection` waits for has been taken by retention, and its tape may still bring it."""
        sealed = self._sealer.positions.connections.get(connection, Sealed())
        if not sealed.last_seq or not self._refills.may_begin(connection):
            return False
        state = await self._patience.until_answered("stream", lambda: self._transport.state(self._intake.stream))
        if state.first_seq <= sealed.last_seq + 1:
            return False
        self._report(
            f"stream truncated: {connection} is sealed up to message {sealed.last_seq} of stream {self._intake.stream},"
            f" which begins at {state.first_seq}"
        )
        await self._sealer.record_truncated(connection, state.first_seq)
        for unit in self._continuity[connection].forget_held():
            self._intake.refused(unit)
        self._held_since.pop(connection, None)
        self._refills.begin(connection)
        return True

    async def _abandon(self) -> None:
        """Forget all that is not sealed; it is read again."""
        reader, self._reader = self._reader, None
        self._end.forget()
        if reader is not None:
            await reader.close()
        await self._sealer.abandon()
        self._continuity.clear()
        self._held_since.clear()
        self._refills.clear()

    def _report(self, problem: str) -> None:
        self._log.error("problem", reason=problem)
        self._problems = [*self._problems[-PROBLEMS_MAX + 1 :], problem]
