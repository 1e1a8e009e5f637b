"""The connector component: connect, record, follow, and go on after every trouble.

Its tasks: the socket loop (one session per connection made), the group fsync, the tape's follower, the journal of facts.
The socket loop waits for none of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from ssmd import __version__, crash_points
from ssmd.application.handler import Application
from ssmd.clock import Clock, DayCalendar
from ssmd.errors import Misconfigured, Rejected, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.schemas.control import AnyFact, Connected, Disconnected, PreviousSession
from ssmd.services.component import Health
from ssmd.services.connector.archive_watch import ArchiveWatch
from ssmd.services.connector.fact_journal import FactJournal
from ssmd.services.connector.flushing import until_handed_on
from ssmd.services.connector.sessions import close_killed_session, new_session_number, next_epoch
from ssmd.services.connector.settings import ConnectorSettings
from ssmd.services.connector.tape_follower import Names, TapeFollower
from ssmd.services.connector.tape_keeper import TapeKeeper
from ssmd.services.connector.venue import Venue
from ssmd.services.connector.venue_socket import Ending, VenueSocket
from ssmd.services.first_failure import first_failure
from ssmd.streams.backoff import backoff_s
from ssmd.streams.publisher import NOWHERE, EntryPlace, OrderedPublisher
from ssmd.streams.recorder import Recorder
from ssmd.streams.tape import TapeWriter
from ssmd.streams.tape_files import TapeBlock
from ssmd.streams.transport import Transport

TICK_S: Final = 1.0
"""How often the clock is watched and a quiet session's day is turned."""
DRAIN_S: Final = 10.0
"""How long a stop waits for transport and journal; what they lack then is on the tape for the next start."""
BACKOFF_MAX_S: Final = 30.0
QUICK_RETRY_S: Final = 60.0
"""A connection that lived this long resets the backoff."""


class ConnectorService:
    """See the module; `services.component.Component`.

    Args:
        tape_directory: this connection's own; locked while it runs.
        instance: name of the connection ("main").
        crash_point: called with the names of `crash_points.CONNECTOR`; None = nobody wants to kill it.
    """

    name = "connector"

    def __init__(
        self,
        venue: Venue,
        env: str,
        instance: str,
        tape_directory: Path,
        transport: Transport,
        application: Application,
        clock: Clock,
        random: RandomBytes,
        settings: ConnectorSettings = ConnectorSettings(),  # noqa: B008 - immutable
        crash_point: crash_points.CrashPoint | None = None,
    ) -> None:
        self.instance = instance
        self._venue = venue
        self._directory = tape_directory
        self._clock = clock
        self._random = random
        self._settings = settings
        self._calendar = DayCalendar(settings.zone)
        self._log = structlog.get_logger("connector").bind(feed=venue.feed, connection=instance)
        self._names = Names(env, venue.feed, instance)
        self._publisher = OrderedPublisher(transport, env, venue.feed, instance, random, crash_point=crash_point)
        self._crash_point = crash_point or crash_points.no_crash
        self._application = application
        self._stopping = asyncio.Event()
        self._socket: VenueSocket | None = None
        self._recorder: Recorder | None = None
        self._tape: TapeWriter | None = None
        self._follower: TapeFollower | None = None
        self._facts: FactJournal | None = None
        self._trouble = "not connected yet"
        self._frames = 0
        self._written = NOWHERE
        self._sessions = 0
        self._epoch = 0
        self._fenced = ""
        self._carried: tuple[AnyFact, ...] = ()

    # The life of the component

    async def run(self) -> None:
        self._tape = TapeWriter(self._directory, file_bytes=self._settings.file_bytes, bytes_max=self._settings.bytes_max)
        try:
            await self._run(self._tape)
        except BaseExceptionGroup as group:
            raise first_failure(group) from None
        finally:
            await self._publisher.close()
            self._tape.close()

    async def _run(self, tape: TapeWriter) -> None:
        venue = self._venue
        if tape.cut is not None:
            self._log.warning("torn-tail-cut", size_bytes=tape.cut.size_bytes, kept_as=tape.cut.kept_as)
        self._facts = FactJournal(
            self._application,
            self._directory,
            venue.new_mapper,
            venue.feed,
            self.instance,
            self._random,
            on_fenced=self._on_fenced,
            crash_point=self._crash_point,
        )
        self._follower = TapeFollower(
            self._directory, self._names, venue.new_mapper, self._publisher, self._facts, self._random
        )
        before = close_killed_session(tape, self._clock, self._new_recorder, self._calendar.day_of)
        self._carried = before.facts
        watch = ArchiveWatch(self._application, venue.feed, self.instance)
        self._epoch = next_epoch(self._directory, self._clock.now_ns(), await watch.epoch())
        keeper = TapeKeeper(
            watch, tape, venue.new_mapper, self._publisher, self._follower, self._facts,
            epoch=self._epoch, on_fenced=self._on_fenced, log=self._log,
        )  # fmt: skip
        self._crash_point(crash_points.SESSION_CLOSED)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow(self._follower))
            journaling = group.create_task(self._facts.run())
            syncing = group.create_task(self._sync(tape))
            ticking = group.create_task(self._tick())
            watching = group.create_task(keeper.run(self._settings.watch_s))
            await self._connect_until_stopped(before.previous)
            try:
                async with asyncio.timeout(DRAIN_S):
                    self._follower.drain()
                    await following
                    self._facts.drain()
                    await journaling
            except TimeoutError:
                self._log.warning("left-on-tape", acked_session=self._publisher.acked.session, acked_n=self._publisher.acked.n)
            for task in (following, journaling, syncing, ticking, watching):
                task.cancel()
        if self._fenced:
            raise Rejected("capture-fenced", self._fenced, mend="stop one of the two connectors of this connection")

    async def _follow(self, follower: TapeFollower) -> None:
        attempt = 0
        while True:
            try:
                reached = await self._publisher.begin()
                break
            except Unavailable as error:
                self._publisher.away = error.message
                attempt += 1
                await asyncio.sleep(backoff_s(attempt, self._random, max_s=2.0))
        self._publisher.away = ""
        await follower.run(reached)

    async def stop(self) -> None:
        self._stopping.set()
        if self._socket is not None:
            await self._socket.close("stopped", "asked to stop")

    async def flush(self) -> None:
        """Write the block being gathered; wait until streams and journal have all of the tape up to it.

        Raises:
            Unavailable: they have not, in time.
        """
        self._flush()
        if self._follower is None or self._facts is None:
            raise Unavailable("the connector does not run")
        await until_handed_on(self._written, self._publisher, self._follower, self._facts)

    def _on_fenced(self, reason: str) -> None:
        self._log.error("fenced", reason=reason)
        self._fenced = reason
        self._stopping.set()
        if self._socket is not None:
            self._socket.abort("fenced", reason)

    # Connections, one session each

    async def _connect_until_stopped(self, previous: PreviousSession | None) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began_s = asyncio.get_running_loop().time()
            try:
                previous = await self._one_session(previous)
                attempt = 0 if asyncio.get_running_loop().time() - began_s > QUICK_RETRY_S else attempt + 1
            except Unavailable as error:
                self._trouble = error.message
                attempt += 1
                self._log.warning("not-connected", reason=error.message, attempt=attempt)
            if self._stopping.is_set():
                return
            delay_s = backoff_s(max(1, attempt), self._random, first_s=self._settings.backoff_first_s, max_s=BACKOFF_MAX_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()

    async def _one_session(self, previous: PreviousSession | None) -> PreviousSession:
        venue = self._venue
        subscription = await venue.subscription()
        protocol = venue.new_session(subscription)
        recorder: Recorder | None = None
        early: list[bytes] = []

        def on_frame(payload: bytes) -> None:
            if recorder is None:
                early.append(payload)
                return
            recorder.frame(payload)
            self._frames += 1
            for command in protocol.receive(payload):
                self._send(recorder, socket, command)
            if protocol.failure:
                raise Unavailable(protocol.failure)

        socket = await VenueSocket.open(
            venue.websocket_url,
            venue.headers(),
            on_frame=on_frame,
            is_fatal=venue.is_fatal,
            read_limit_bytes=venue.read_limit_bytes,
            stale_s=venue.stale_s,
        )
        self._socket = socket
        recorder = self._recorder = self._new_recorder(new_session_number(previous, self._clock.now_ns()))
        self._sessions += 1
        self._log.info("connected", session=recorder.session, url=venue.websocket_url)
        recorder.fact(
            Connected(
                venue.feed,
                self.instance,
                venue.websocket_url,
                wire=venue.wire,
                instance=self.instance,
                epoch=self._epoch,
                version=__version__,
                config=self._settings.config,
                previous=previous,
            )
        )
        for carried in self._carried:
            recorder.fact(carried)
        if self._carried:
            self._carried = ()
            recorder.flush()  # a day-mark is the last entry of its block
        for payload in early:
            on_frame(payload)
        for command in protocol.open():
            self._send(recorder, socket, command)
        self._trouble = ""
        if self._stopping.is_set():
            await socket.close("stopped", "asked to stop")
        try:
            ending = await socket.wait_ended()
        finally:
            # Cancelled: whatever was taken must reach the tape.
            await socket.close("stopped", "cancelled")
        return await self._end_session(recorder, ending, protocol.failure)

    @staticmethod
    def _send(recorder: Recorder, socket: VenueSocket, command: bytes) -> None:
        recorder.command(command)
        socket.send(command)

    async def _end_session(self, recorder: Recorder, ending: Ending, failure: str) -> PreviousSession:
        self._socket = None
        cause = "channel-error" if failure else ending.cause
        evidence = failure or ending.evidence
        self._trouble = f"{cause}: {evidence or ending.reason or 'no more is known'}"
        self._log.warning("disconnected", session=recorder.session, cause=cause, code=ending.code, reason=ending.reason)
        fact = Disconnected(cause, ending.code, ending.reason, recorder.last_frame_ns or recorder.session, evidence)
        await self._until_written(recorder, lambda: recorder.fact(fact))
        await self._until_written(recorder, recorder.flush)
        self._recorder = None
        return PreviousSession(recorder.session, recorder.last_n, fact.last_recv_ns, cause, evidence)

    async def _until_written(self, recorder: Recorder, action: Callable[[], None]) -> None:
        """A full disk stops the capture until there is room again; what was taken stays in memory meanwhile."""
        attempt = 0
        while True:
            try:
                action()
            except Unavailable as error:
                attempt += 1
                self._trouble = error.message
                self._log.error("tape-not-writable", reason=error.message, session=recorder.session)
                await asyncio.sleep(backoff_s(attempt, self._random, first_s=0.2, max_s=5.0))
            else:
                return

    # The tape

    def _new_recorder(self, session: int) -> Recorder:
        if self._tape is None:
            raise Misconfigured("the connector does not run")
        return Recorder(
            self._tape,
            session,
            self._clock,
            day_of=self._calendar.day_of,
            on_block=self._on_block,
            on_begin=self._on_begin,
            block_bytes=self._settings.block_bytes,
        )

    def _on_begin(self) -> None:
        asyncio.get_running_loop().call_later(self._settings.block_ms / 1000, self._flush)

    def _flush(self) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.flush()
        except Unavailable as error:
            self._trouble = error.message
            if self._socket is not None:
                self._socket.abort("tape-full", error.message)

    def _on_block(self, block: TapeBlock) -> None:
        self._crash_point(crash_points.AFTER_TAPE_WRITE)
        self._written = EntryPlace(block.header.session, block.header.last_n)
        if self._follower is not None:
            self._follower.wake()

    async def _sync(self, tape: TapeWriter) -> None:
        while True:
            await asyncio.sleep(self._settings.fsync_ms / 1000)
            try:
                await asyncio.to_thread(tape.sync)
                self._crash_point(crash_points.AFTER_TAPE_SYNC)
            except Unavailable as error:
                self._trouble = error.message
                self._log.error("tape-not-synced", reason=error.message)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self._recorder is not None:
                with suppress(Unavailable):
                    self._recorder.watch_clock()
                    self._recorder.turn_day()

    # What it says of itself

    def health(self) -> Health:
        facts, publisher = self._facts, self._publisher
        reasons = [
            reason
            for reason in (
                self._trouble,
                f"transport: {publisher.away}" if publisher.away else "",
                f"journal: {facts.away}" if facts and facts.away else "",
                facts.fenced if facts else "",
            )
            if reason
        ]
        stats: dict[str, int | str] = {
            "frames": self._frames,
            "sessions": self._sessions,
            "session": self._recorder.session if self._recorder else 0,
            "entries": self._recorder.last_n if self._recorder else 0,
            "unacked": int(publisher.acked < self._written or bool(self._recorder and self._recorder.is_gathering)),
            "acked_session": publisher.acked.session,
            "acked_n": publisher.acked.n,
            "tape_bytes": self._tape.size_bytes if self._tape else 0,
            "facts_waiting": facts.held if facts else 0,
            "publisher_recoveries": publisher.recoveries,
            "refills": len(self._follower.refills) if self._follower else 0,
        }
        return Health(not reasons, "; ".join(reasons), stats)
