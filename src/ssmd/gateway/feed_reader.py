"""Reads the market stream, from the start of what it holds on, and keeps state and hub up to date."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog

from ssmd.clock import Clock
from ssmd.errors import Conflict, Malformed, Unavailable
from ssmd.gateway.assembly import HOLD_NS, BlockAssembler, ReadyBlock
from ssmd.gateway.hub import CloseReason, Hub
from ssmd.gateway.market_state import MarketState
from ssmd.schemas.codecs import decode_records
from ssmd.schemas.market_message import parse_message_id
from ssmd.schemas.records import Gap, Header, Record
from ssmd.streams import subjects
from ssmd.streams.transport import StreamMessage, StreamReader, Transport

STREAM_RESET: Final = CloseReason(1012, "the market stream began anew: subscribe again")
HOLE: Final = "stream-hole"
"""Cause of gaps the gateway itself finds between the tape and here."""
UNREADABLE: Final = "unreadable-message"

_TIMEOUT_S: Final = 0.25
_STATE_EVERY_NS: Final = 1_000_000_000
_RETRY_S: Final = 0.5
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
        self._log = structlog.get_logger("ssmd.gateway").bind(env=env, feed=state.feed)
        self.position = 0
        """Sequence of the last message read."""
        self.stream_last = 0
        """Last sequence of the stream when it was last asked."""
        self.is_caught_up = False
        self.trouble = ""
        """Why nothing is read, "" = all is well."""
        self.malformed = 0
        self.resets = 0
        self.last_recv_ns = 0
        """Receive time at the venue's socket of the newest block applied."""
        self._asked_ns: int | None = None

    async def run(self) -> None:
        """Read for ever."""
        while True:
            reader: StreamReader | None = None
            try:
                wanted = [subjects.market_filter(self._env, self._state.feed)]
                reader = await self._transport.read("market", after=self.position, filters=wanted)
                self.trouble = ""
                await self._follow(reader)
            except Unavailable as error:
                self._report(f"market stream unreachable: {error.message}")
                await asyncio.sleep(_RETRY_S)
            except Conflict as error:
                self._reset(error.message)
                await asyncio.sleep(_RETRY_S)
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
                await asyncio.sleep(_RETRY_S)
                continue
            self.trouble = ""
            self.is_caught_up = self.is_caught_up or not messages
            await self._take(messages)
            for block in self._assembler.overdue(self._clock.monotonic_ns()):
                self._apply(block)

    async def _take(self, messages: list[StreamMessage]) -> None:
        turn_ns = self._clock.monotonic_ns()
        for message in messages:
            self.position = message.seq
            try:
                place = parse_message_id(message.message_id)
                blocks = self._assembler.take(message, place, self._clock.monotonic_ns())
            except Malformed as error:
                self._unreadable(message, error)
                continue
            for block in blocks:
                self._apply(block)
            if self._clock.monotonic_ns() - turn_ns > _TURN_NS:
                # Catching up must not keep the clients waiting.
                await asyncio.sleep(0)
                turn_ns = self._clock.monotonic_ns()
        self.is_caught_up = self.is_caught_up or 0 < self.stream_last <= self.position

    def _apply(self, block: ReadyBlock) -> None:
        """Apply and publish a whole block in one turn of the loop, so that no snapshot falls inside it."""
        found: list[Record] = []
        spoiled: list[str] = []
        for part in block.parts:
            try:
                found.extend(decode_records(part.payload))
            except Malformed as error:
                self._unreadable(part, error)
                spoiled.append(subjects.parse_market(part.subject).name)
        if len(block.parts) > 1:
            found.sort(key=_tape_place)
        if block.hole:
            self._log.warning("hole in the market stream", connection=block.connection, hole=block.hole)
            gaps = [gap for ticker in self._state.tickers for gap in self._own_gaps(block, ticker, HOLE, block.hole)]
            found = [*gaps, *found]
        for ticker in spoiled:
            found += self._own_gaps(block, ticker, UNREADABLE, "a message of the market stream cannot be read")
        for record in found:
            self._state.apply(record, block.stream_seq)
        self._hub.publish(found, block.stream_seq)
        self._state.advance(block.stream_seq)
        self.last_recv_ns = max(self.last_recv_ns, _until(block))

    def _own_gaps(self, block: ReadyBlock, ticker: str, cause: str, evidence: str) -> tuple[Gap, Gap]:
        """A gap of our own, opened and at once closed: its time is known, and the book waits for the next snapshot."""
        until_ns = _until(block)
        opened = Gap(
            feed=self._state.feed,
            ticker=ticker,
            ts_event_ns=0,
            ts_recv_ns=until_ns,
            session=0 if block.mark is None else block.mark.session,
            n=0 if block.mark is None else block.mark.last_n,
            index=0,
            sid=0,
            seq=0,
            price_exponent=0,
            size_exponent=0,
            gap_id=f"gateway-{cause}-{block.stream_seq}",
            state="opened",
            cause=cause,
            start_ns=block.since_ns,
            end_ns=0,
            channel="",
            seq_expected=0,
            seq_found=0,
            evidence=evidence,
        )
        return opened, msgspec.structs.replace(opened, state="closed", end_ns=until_ns)

    def _unreadable(self, message: StreamMessage, error: Malformed) -> None:
        self.malformed += 1
        self._log.warning("unreadable market message", stream_seq=message.seq, subject=message.subject, error=error.message)

    def _report(self, trouble: str) -> None:
        if not self.trouble:
            self._log.warning("cannot read the market stream", error=trouble)
        self.trouble = trouble

    def _reset(self, why: str) -> None:
        self._log.warning("the market stream began anew", error=why, position=self.position)
        self._hub.close_all(STREAM_RESET, resume_from=0)
        self._state.reset()
        self._assembler = BlockAssembler(hold_ns=self._hold_ns)
        self.position = self.stream_last = 0
        self.is_caught_up = False
        self.resets += 1

    async def _ask_state(self) -> None:
        """Once a second, where the stream ends; without an answer the lag is simply not renewed."""
        now_ns = self._clock.monotonic_ns()
        if self._asked_ns is not None and now_ns - self._asked_ns < _STATE_EVERY_NS:
            return
        self._asked_ns = now_ns
        try:
            self.stream_last = (await self._transport.state("market")).last_seq
        except Unavailable:
            return
        self.is_caught_up = self.is_caught_up or self.position >= self.stream_last

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


def _until(block: ReadyBlock) -> int:
    return block.since_ns if block.mark is None else block.mark.ts_recv_ns


def _tape_place(record: Header) -> tuple[int, int]:
    return record.n, record.index
