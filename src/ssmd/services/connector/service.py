"""The connector component: connect, record, follow, and go on after every trouble.

Its tasks: the socket loop (one session per connection made), the group fsync, the tape's follower, the journal of facts.
The socket loop waits for none of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from ssmd import __version__, crash_points
from ssmd.application.handler import Application
from ssmd.clock import Clock, DayCalendar
from ssmd.domain.capture import CaptureEvent
from ssmd.errors import Misconfigured, Rejected, Unavailable
from ssmd.exchanges.adapter import Mapper
from ssmd.identifiers import RandomBytes
from ssmd.schemas.control import AnyFact, Connected, Disconnected, PreviousSession
from ssmd.services.component import Health
from ssmd.services.connector.archive_watch import ArchiveWatch
from ssmd.services.connector.clock_between import ClockBetween
from ssmd.services.connector.conversation import SILENT, Conversation, News
from ssmd.services.connector.departures import Departures
from ssmd.services.connector.fact_journal import FactJournal
from ssmd.services.connector.flushing import until_handed_on
from ssmd.services.connector.gap_repairs import GapRepairs
from ssmd.services.connector.quarantine import Quarantine
from ssmd.services.connector.sessions import begin_session, close_killed_session, judged, new_session_number, next_epoch
from ssmd.services.connector.settings import ConnectorSettings
from ssmd.services.connector.tape_follower import Names, TapeFollower
from ssmd.services.connector.tape_keeper import TapeKeeper
from ssmd.services.connector.tape_writing import follow, sync_tape, until_written
from ssmd.services.connector.venue import Venue
from ssmd.services.connector.venue_socket import Ending, VenueSocket
from ssmd.services.connector.vital_signs import VitalSigns
from ssmd.services.first_failure import first_failure
from ssmd.streams.backoff import backoff_s
from ssmd.streams.publisher import NOWHERE, EntryPlace, OrderedPublisher
from ssmd.streams.recorder import Recorder
from ssmd.streams.tape import TapeWriter
from ssmd.streams.tape_files import TapeBlock
from ssmd.streams.transport import Transport
from ssmd.telemetry.structured import structlog

TICK_S: Final = 1.0
"""How often the clock is watched and a quiet session's day is turned."""
DRAIN_S: Final = 10.0
"""How long a stop waits for transport and journal; what they lack then is on the tape for the next start."""
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
        self._quarantine = Quarantine(transport, application, env, tape_directory, random, self._log)
        self._conversation: Conversation | None = None
        self.repairs = GapRepairs(tape_directory, venue.repairer, lambda: self._conversation, random, self._log)
        self._departures = Departures(tape_directory, self._log)
        self._mapper: Mapper | None = None
        self._pause = ""
        self._last_ts_ns = 0
        self._clock_between = ClockBetween(clock)
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
        self._signs = VitalSigns(clock, tape_directory, venue.pause_at)

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
            self._application, self._directory, venue.new_mapper, venue.feed, self.instance, self._random,
            on_fenced=self._on_fenced, crash_point=self._crash_point,
        )  # fmt: skip
        self._last_ts_ns = tape.end.last_ts_ns
        self._follower = TapeFollower(
            self._directory, self._names, self._new_mapper, self._publisher, self, self._random, self._quarantine.offer
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
            following = group.create_task(follow(self._follower, self._publisher, self._random))
            journaling = group.create_task(self._facts.run())
            syncing = group.create_task(
                sync_tape(tape, self._settings.fsync_ms / 1000, self._crash_point, self._on_tape_trouble)
            )
            beside = [self._tick(), self._quarantine.run(), self.repairs.run(), keeper.run(self._settings.watch_s)]
            others = [syncing, *(group.create_task(one) for one in beside)]
            await self._connect_until_stopped(before.previous)
            try:
                async with asyncio.timeout(DRAIN_S):
                    self._follower.drain()
                    await following
                    self._facts.drain()
                    await journaling
            except TimeoutError:
                self._log.warning("left-on-tape", acked_session=self._publisher.acked.session, acked_n=self._publisher.acked.n)
            for task in (following, journaling, *others):
                task.cancel()
        if self._fenced:
            raise Rejected("capture-fenced", self._fenced, mend="stop one of the two connectors of this connection")

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
                self._pause = self._venue.pause_at(self._clock.now_ns())
                self._trouble = error.message
                attempt += 1
                self._log.warning("not-connected", reason=error.message, attempt=attempt)
            if self._stopping.is_set():
                return
            delay_s = backoff_s(
                max(1, attempt), self._random, first_s=self._settings.backoff_first_s, max_s=self._settings.backoff_max_s
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _one_session(self, previous: PreviousSession | None) -> PreviousSession:
        venue = self._venue
        await venue.prepare()
        subscription = await venue.subscription()
        self.repairs.captures(subscription)
        self._departures.captures(subscription)
        protocol = venue.new_session(subscription)
        conversation: Conversation | None = None
        early: list[bytes] = []

        def on_frame(payload: bytes) -> None:
            if conversation is None:
                early.append(payload)
            else:
                conversation.frame(payload)

        socket = await VenueSocket.open(
            venue.websocket_url,
            venue.headers(),
            on_frame=on_frame,
            is_fatal=venue.is_fatal,
            read_limit_bytes=venue.read_limit_bytes,
            stale_s=venue.stale_s,
        )
        self._socket = socket
        number = new_session_number(previous, self._clock.now_ns(), self._last_ts_ns)
        recorder = self._recorder = self._new_recorder(number)
        self._sessions += 1
        self._log.info("connected", session=recorder.session, url=venue.websocket_url)
        try:
            self._begin(recorder, previous)
        except Unavailable as error:
            # Nothing of this session is on the tape: the next one begins as it would have.
            self._recorder = self._socket = None
            socket.abort("tape-full", error.message)
            raise
        conversation = self._conversation = Conversation(recorder, socket, protocol, venue.commands_s)
        try:
            for payload in early:
                conversation.frame(payload)
            conversation.open()
        except Unavailable as error:
            socket.abort("channel-error" if protocol.failure else "tape-full", error.message)
        self._trouble = self._pause = ""
        if self._stopping.is_set():
            await socket.close("stopped", "asked to stop")
        try:
            ending = await socket.wait_ended()
        finally:
            # Cancelled: whatever was taken must reach the tape.
            await socket.close("stopped", "cancelled")
            conversation.close()
            self._frames += conversation.frames
            self._conversation = None
        return await self._end_session(recorder, ending, protocol.failure)

    def _begin(self, recorder: Recorder, previous: PreviousSession | None) -> None:
        """The first entries of a session."""
        venue = self._venue
        begin_session(
            recorder,
            Connected(
                venue.feed, self.instance, venue.websocket_url, wire=venue.wire, instance=self.instance,
                epoch=self._epoch, version=__version__, config=self._settings.config, previous=previous,
            ),
            self._carried,
        )  # fmt: skip
        self._carried = ()
        self._clock_between.begin(recorder)

    async def _end_session(self, recorder: Recorder, ending: Ending, failure: str) -> PreviousSession:
        self._socket = None
        pause = self._venue.pause_at(self._clock.now_ns())
        cause, evidence, is_planned = judged(ending, failure, pause)
        self._pause = pause if is_planned else ""
        self._trouble = f"{cause}: {evidence or ending.reason or 'no more is known'}"
        self._log.warning("disconnected", session=recorder.session, cause=cause, code=ending.code, reason=ending.reason)
        fact = Disconnected(cause, ending.code, ending.reason, recorder.last_frame_ns or recorder.session, evidence)
        for action in (recorder.watch_clock, partial(recorder.fact, fact), recorder.flush):
            await until_written(action, self._random, self._on_tape_trouble, self._stopping)
        self._recorder = None
        self._last_ts_ns = recorder.last_ts_ns
        self._clock_between.end()
        return PreviousSession(recorder.session, recorder.last_n, fact.last_recv_ns, cause, evidence)

    # The tape

    def _new_recorder(self, session: int) -> Recorder:
        if self._tape is None:
            raise Misconfigured("the connector does not run")
        return Recorder(
            self._tape, session, self._clock, day_of=self._calendar.day_of,
            on_block=self._on_block, on_begin=self._on_begin, block_bytes=self._settings.block_bytes,
        )  # fmt: skip

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

    def _on_tape_trouble(self, reason: str) -> None:
        self._trouble = reason
        self._log.error("tape-not-written", reason=reason)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._signs.tick(self._recorder, written=self._written, acked=self._publisher.acked)
            if self._recorder is not None:
                with suppress(Unavailable):
                    self._recorder.watch_clock()
                    self._recorder.turn_day()
            if (talk := self._conversation) is not None:
                talk.tick()
                self._departures.tell(talk.age_s, talk.recorder.fact, self._written, self._publisher.acked)

    # Markets that come and go, books that cannot be

    def want(self, tickers: Sequence[str]) -> None:
        """From now on these markets; without a connection the next one begins with them (`Venue.subscription`)."""
        self._departures.want(tickers)
        if self._conversation is not None:
            self._conversation.want(tickers)

    def news(self) -> News:
        """As `Conversation.news`."""
        return News() if self._conversation is None else self._conversation.news()

    def offer(self, facts: Iterable[CaptureEvent]) -> None:
        """Facts from the follower, for the journal (`tape_follower.FactSink`)."""
        found = list(facts)
        if self._facts is not None:
            self._facts.offer(found)
        if self._conversation is not None:
            self._conversation.mend(found)
        self.repairs.offer(found)
        self._departures.offer(found)

    def _new_mapper(self, session: int) -> Mapper:
        self._mapper = self._venue.new_mapper(session)
        return self._mapper

    # What it says of itself

    def health(self) -> Health:
        facts, publisher, talk = self._facts, self._publisher, self._conversation
        reasons = [
            "" if self._pause else self._trouble,
            talk.complaint if talk is not None else "",
            f"transport: {publisher.away}" if publisher.away else "",
            f"journal: {facts.away}" if facts and facts.away else "",
            facts.fenced if facts else "",
        ]
        reason = "; ".join(one for one in reasons if one)
        stats: dict[str, int | str] = {
            "frames": self._frames + (talk.frames if talk is not None else 0),
            "sessions": self._sessions,
            "session": self._recorder.session if self._recorder else 0,
            "entries": self._recorder.last_n if self._recorder else 0,
            "unacked": int(publisher.acked < self._written or bool(self._recorder and self._recorder.is_gathering)),
            "tape_bytes": self._tape.size_bytes if self._tape else 0,
            "facts_waiting": facts.held if facts else 0,
            "publisher_recoveries": publisher.recoveries,
            "refills": len(self._follower.refills) if self._follower else 0,
            "clock_offset_ms": self._mapper.clock_offset_ns // 1_000_000 if self._mapper is not None else 0,
            "tape_bytes_max": self._settings.bytes_max,
        }
        stats |= self._signs.stats(self._recorder, publisher.acked, is_connected=talk is not None)
        stats |= self.repairs.stats() | self._quarantine.stats() | (SILENT if talk is None else talk.stats())
        return Health(not reason, reason or self._pause, stats)
