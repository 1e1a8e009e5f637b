"""Reads the market stream, from where the last checkpoint stands or from its start, and keeps state and hub up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from ssmd.clock import Clock
from ssmd.errors import Conflict, Malformed, Unavailable
from ssmd.gateway.assembly import HOLD_NS, BlockAssembler, GiveUp, LinePosition, Position, ReadyBlock
from ssmd.gateway.client import CloseReason
from ssmd.gateway.hub import Hub
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.resume_points import ResumePoints
from ssmd.gateway.retry_pause import RetryPause
from ssmd.gateway.stream_records import reached_ns, records_of
from ssmd.schemas.market_message import parse_message_id
from ssmd.schemas.records import Record
from ssmd.streams import subjects
from ssmd.streams.transport import StreamMessage, StreamReader, StreamState, Transport
from ssmd.telemetry.structured import structlog

STREAM_RESET: Final = CloseReason(1012, "the market stream began anew: subscribe again")

_TIMEOUT_S: Final = 0.25
_STATE_EVERY_NS: Final = 1_000_000_000
_TURN_NS: Final = 5_000_000


class FeedReader:
    """One feed's market stream as a task (`run`); it ends only by cancellation.

    A server that is away is waited for; a stream that is another one now, or shorter than the position, is read again
    from its start, after the state has been emptied and the clients told.
    """

    def __init__(
        self, transport: Transport, env: str, state: MarketState, hub: Hub, clock: Clock, *, hold_ns: int = HOLD_NS
    ) -> None:
        self._transport = transport
        self._env = env
        self._state = state
        self._hub = hub
        self._clock = clock
        self._hold_ns = hold_ns
        self._assembler = BlockAssembler(hold_ns=hold_ns)
        self._pause = RetryPause()
        self._log = structlog.get_logger("ssmd.gateway").bind(env=env, feed=state.feed)
        self.points = ResumePoints()
        self.incarnation = ""
        """Which life of the stream this is, "" = not known yet."""
        self.position = 0
        """Sequence of the last message read."""
        self.stream_first = 0
        self.stream_last = 0
        """First and last sequence of the stream when it was last asked."""
        self.is_caught_up = False
        self.trouble = ""
        """Why nothing is read, "" = all is well."""
        self.malformed = 0
        self.resets = 0
        self.last_recv_ns = 0
        """Receive time at the venue's socket of the newest block applied."""
        self._asked_ns: int | None = None
        state.is_current = False

    def begin_at(self, incarnation: str, position: Position, points: ResumePoints) -> None:
        """Go on from a checkpoint: the state holds everything released up to `position`. Before `run` only."""
        self.incarnation, self.points = incarnation, points
        self._assembler = BlockAssembler(hold_ns=self._hold_ns, begin=position)
        self.position = position.after

    async def run(self) -> None:
        """Read for ever."""
        while True:
            reader: StreamReader | None = None
            try:
                self._check(await self._transport.state("market"))
                wanted = [subjects.market_filter(self._env, self._state.feed)]
                reader = await self._transport.read("market", after=self.position, filters=wanted)
                self._answered()
                await self._follow(reader)
            except Unavailable as error:
                self._report(f"market stream unreachable: {error.message}")
                await self._pause.wait()
            except Conflict as error:
                self._reset(error.message)
                await self._pause.wait()
            finally:
                if reader is not None:
                    await reader.close()

    async def _follow(self, reader: StreamReader) -> None:
        while True:
            await self._ask_state()
            try:
                messages = await reader.next(_TIMEOUT_S)
            except Unavailable as error:
                # The reader goes on trying by itself.
                self._report(f"market stream unreachable: {error.message}")
                await self._pause.wait()
                continue
            self._answered()
            await self._take(messages)
            if self.points.is_due(self._assembler.taken):
                self.points.add(self._assembler.position)
            self._give_up_overdue()
            self._look_if_caught_up()

    async def _take(self, messages: list[StreamMessage]) -> None:
        turn_ns = self._clock.monotonic_ns()
        for message in messages:
            self.position = message.seq
            try:
                place = parse_message_id(message.message_id)
                blocks = self._assembler.take(message, place, self._clock.monotonic_ns())
            except Malformed as error:
                self._unreadable(message, error.message)
                continue
            self._apply(blocks)
            if self._clock.monotonic_ns() - turn_ns > _TURN_NS:
                # Catching up must not keep the clients waiting.
                await asyncio.sleep(0)
                turn_ns = self._clock.monotonic_ns()

    def _give_up_overdue(self) -> None:
        now_ns = self._clock.monotonic_ns()
        for connection in self._assembler.overdue(now_ns):
            blocks = self._assembler.give_up(connection, now_ns)
            self.points.gave_up(GiveUp(self._assembler.give_ups, self._assembler.taken, connection))
            self._apply(blocks)

    def _apply(self, blocks: list[ReadyBlock]) -> None:
        """Apply and publish what one message released in one turn of the loop: no snapshot and no frame's end inside it."""
        if not blocks:
            return
        published: list[Record] = []
        stream_seq = blocks[-1].stream_seq
        for block in blocks:
            if block.hole:
                self._log.warning("hole in the market stream", connection=block.connection, hole=block.hole)
            records, unreadable = records_of(block, self._state.feed, self._state.tickers_of)
            for message, what in unreadable:
                self._unreadable(message, what)
            for record in records:
                self._state.apply(record, stream_seq, block.connection)
            published += records
            self.last_recv_ns = max(self.last_recv_ns, reached_ns(block))
        self._state.advance(stream_seq)
        self._hub.publish(published, stream_seq)

    def _unreadable(self, message: StreamMessage, what: str) -> None:
        self.malformed += 1
        self._log.warning("unreadable market message", stream_seq=message.seq, subject=message.subject, error=what)

    def _answered(self) -> None:
        self.trouble = ""
        self._pause.answered()

    def _report(self, trouble: str) -> None:
        if not self.trouble:
            self._log.warning("cannot read the market stream", error=trouble)
        self.trouble = trouble

    def _reset(self, why: str) -> None:
        self._log.warning("the market stream began anew", error=why, position=self.position)
        self._hub.close_all(STREAM_RESET, resume_from=0)
        self._state.reset()
        self._assembler = BlockAssembler(hold_ns=self._hold_ns)
        self.points.clear()
        self.incarnation = ""
        self.position = self.stream_first = self.stream_last = 0
        self.is_caught_up = self._state.is_current = False
        self.resets += 1

    async def _ask_state(self) -> None:
        """Once a second, where the stream begins and ends; without an answer the lag is simply not renewed."""
        now_ns = self._clock.monotonic_ns()
        if self._asked_ns is not None and now_ns - self._asked_ns < _STATE_EVERY_NS:
            return
        try:
            self._check(await self._transport.state("market"))
        except Unavailable:
            self._asked_ns = now_ns

    def _check(self, found: StreamState) -> None:
        """Note what the stream holds.

        Raises:
            Conflict: it is another one, or shorter than what has been read.
        """
        if self.incarnation and found.incarnation != self.incarnation:
            raise Conflict(f"the market stream is incarnation {found.incarnation}, {self.incarnation} was being read")
        if found.last_seq < self.position:
            raise Conflict(f"the market stream ends at {found.last_seq}, before position {self.position}")
        self.incarnation = self._hub.incarnation = found.incarnation
        self.stream_first, self.stream_last = found.first_seq, found.last_seq
        self._asked_ns = self._clock.monotonic_ns()
        self._look_if_caught_up()

    def _look_if_caught_up(self) -> None:
        if not self.is_caught_up and self.incarnation and self.position >= self.stream_last:
            self.is_caught_up = self._state.is_current = True

    @property
    def assembly(self) -> Position:
        """Where the assembler is; everything it released is in the state."""
        return self._assembler.position

    @property
    def taken(self) -> int:
        """Sequence of the last message that the assembler took: everything it released is in the state."""
        return self._assembler.taken

    @property
    def lines(self) -> Mapping[str, LinePosition]:
        """How far each connection is."""
        return self._assembler.lines

    @property
    def lag_messages(self) -> int:
        """Messages of the stream not read yet, by its last known end."""
        return max(0, self.stream_last - self.position)

    @property
    def duplicates(self) -> int:
        return self._assembler.duplicates

    @property
    def holes(self) -> int:
        return self._assembler.holes

    @property
    def held_up(self) -> str:
        """Connections whose blocks wait for a missing message, "" = none."""
        return self._assembler.waiting
