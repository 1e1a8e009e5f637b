"""Publishing one connection's blocks in order, exactly as they lie on the tape, through every trouble of the server.

What was sent and is not yet acknowledged is kept (a bounded window). After any trouble a NEW connection is opened, the
server is asked what it really has (the last raw block, the last mark), and what is behind that is sent again, in order.
Repeated messages carry the same ids, so the server, and behind its window the consumers, drop them. A client that
reconnects by itself would send what it had buffered out of order (docs/decisions/0003-tape-first.md).

A server may come back with less than it had acknowledged (a lost disk, an older copy). That is `StreamsRegressed`: what
is missing is no longer held here, and whoever reads the tape has to begin again behind what the streams hold.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ssmd import crash_points
from ssmd.crash_points import CrashPoint
from ssmd.errors import Conflict, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.schemas.blocks import decode_header
from ssmd.schemas.market_message import decode_mark
from ssmd.streams import subjects
from ssmd.streams.backoff import backoff_s
from ssmd.streams.transport import Outgoing, PublishConnection, StreamMessage, StreamName, StreamState, Transport

WINDOW_MESSAGES: Final = 4096
WINDOW_BYTES: Final = 32 << 20
ACK_TIMEOUT_S: Final = 5.0
STEP_S: Final = 0.001
"""With crash points armed: time for the client to hand what was published to the socket."""


class EntryPlace(NamedTuple):
    """An entry on one connection's tape; (0, 0) before all. Places of one tape compare in order of time."""

    session: int
    n: int


NOWHERE: Final = EntryPlace(0, 0)


class Unit(NamedTuple):
    """What one block becomes on the streams: the block itself, and its market messages with the mark at the end."""

    reaches: EntryPlace
    raw: Outgoing
    market: Sequence[Outgoing]

    @property
    def size_bytes(self) -> int:
        return len(self.raw.payload) + sum(len(message.payload) for message in self.market)


class Reached(NamedTuple):
    """The last entry of this connection that each stream really holds."""

    raw: EntryPlace
    market: EntryPlace

    @property
    def both(self) -> EntryPlace:
        return min(self)


class StreamsRegressed(Conflict):
    """The streams hold less than they had acknowledged.

    Attributes:
        reached: what they hold.
    """

    def __init__(self, acked: EntryPlace, reached: Reached) -> None:
        super().__init__(
            f"entry {acked.n} of session {acked.session} was acknowledged; the raw stream holds entries up to"
            f" {reached.raw.session}/{reached.raw.n}, the market stream up to {reached.market.session}/{reached.market.n}"
        )
        self.reached = reached


class _Sent:
    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.size_bytes = unit.size_bytes
        self.raw_acks = 0
        self.market_acks = 0


class OrderedPublisher:
    """See the module. One caller.

    Attributes:
        acked: the last entry whose block and records the server has acknowledged.
        away: why the server cannot be reached now, "" while it can.
        recoveries: how often a new connection had to be opened.
    """

    def __init__(
        self,
        transport: Transport,
        env: str,
        feed: str,
        connection: str,
        random: RandomBytes,
        *,
        window_messages: int = WINDOW_MESSAGES,
        window_bytes: int = WINDOW_BYTES,
        ack_timeout_s: float = ACK_TIMEOUT_S,
        crash_point: CrashPoint | None = None,
    ) -> None:
        self.acked = NOWHERE
        self.away = ""
        self.recoveries = 0
        self._transport = transport
        self._raw_subject = subjects.raw(env, feed, connection)
        self._mark_subject = subjects.mark(env, feed, connection)
        self._random = random
        self._window_messages = window_messages
        self._window_bytes = window_bytes
        self._ack_timeout_s = ack_timeout_s
        self._crash_point = crash_point
        self._link: PublishConnection | None = None
        self._sent: deque[_Sent] = deque()
        self._held_messages = 0
        self._held_bytes = 0
        self._raw_sent = 0
        self._market_sent = 0
        self._reached = Reached(NOWHERE, NOWHERE)
        self._states: dict[StreamName, StreamState] = {}
        self._remade: set[StreamName] = set()
        self._question: asyncio.Task[bool] | None = None
        # While streams are filled again behind their end: where that began, and what they held before.
        self._refill: tuple[EntryPlace, Reached] | None = None

    async def begin(self) -> Reached:
        """Take what the streams hold for acknowledged. Before the first `publish`. Raises as `reached`."""
        reached = await self.reached()
        self.acked = reached.both
        return reached

    async def reached(self) -> Reached:
        """What the streams hold of this connection, by the leader's word.

        Raises:
            Unavailable: no answer.
        """
        block = await self._last("raw", self._raw_subject)
        mark = await self._last("market", self._mark_subject)
        raw = market = NOWHERE
        if isinstance(block, EntryPlace):
            raw = block
        elif block is not None:
            header = decode_header(block.payload)
            raw = EntryPlace(header.session, header.last_n)
        if isinstance(mark, EntryPlace):
            market = mark
        elif mark is not None:
            told = decode_mark(mark.payload)
            market = EntryPlace(told.session, told.last_n)
        return Reached(raw, market)

    async def _last(self, stream: StreamName, subject: str) -> StreamMessage | EntryPlace | None:
        """The last message of this connection; `acked` where there was one that has only grown too old to be kept.

        None for a stream that is another one now: what was published since, over a connection that had not noticed, has
        lost what was before it.
        """
        found = await self._transport.last(stream, subject)
        before, now = self._states.get(stream), await self._transport.state(stream)
        self._states[stream] = now
        if before is None:
            return found
        if before.incarnation != now.incarnation:
            self._remade.add(stream)
        if stream in self._remade:
            return None
        return self.acked if found is None and before.last_seq <= now.last_seq else found

    def begin_check(self, answered: Callable[[], None]) -> None:
        """Ask the streams whether they still hold what they have acknowledged by now, beside the publishing.

        One question at a time. `answered` is called once there is an answer, for `finish_check`.
        """
        if self._question is None:
            self._question = asyncio.create_task(self._is_whole(self.acked), name="do the streams hold what they acknowledged")
            self._question.add_done_callback(lambda _: answered())

    async def finish_check(self) -> None:
        """Act on the answer, if there is one; mends a connection that was lost meanwhile.

        Raises:
            StreamsRegressed: the streams hold less than they had acknowledged.
        """
        if self._question is None or not self._question.done():
            return
        question, self._question = self._question, None
        try:
            await self._connected().publish(())
            await self._take_acks()
            is_whole = question.result()
        except Unavailable as error:
            await self._recover(error)
        else:
            if not is_whole:
                await self._recover(Unavailable("the streams hold less than they had acknowledged"))

    async def _is_whole(self, acked: EntryPlace) -> bool:
        return self._refill is not None or (await self.reached()).both >= acked

    async def _drop_question(self) -> None:
        """What is asked now is of no more interest: whoever asks anew must not be mixed up with it."""
        if self._question is not None:
            question, self._question = self._question, None
            question.cancel()
            await asyncio.gather(question, return_exceptions=True)

    async def rewind(self, place: EntryPlace) -> Reached:
        """Publish again everything behind `place`, although the streams have it: its ids must be new ones.

        Returns:
            what is to be taken for reached. Raises as `reached`.
        """
        await self._drop_question()
        self._refill = place, await self.reached()
        self._forget_sent()
        self.acked = place
        self._reached = Reached(place, place)
        return self._reached

    async def publish(self, unit: Unit) -> None:
        """Send one unit, behind all before it; waits while the window is full, for as long as the server is away.

        Raises:
            StreamsRegressed: the unit is not sent, nor is anything held any more.
        """
        while self._is_full():
            await self._progress()
        await self._take_acks()
        sent = _Sent(unit)
        self._sent.append(sent)
        self._held_messages += 1 + len(unit.market)
        self._held_bytes += sent.size_bytes
        try:
            await self._send(self._connected(), sent)
        except Unavailable as error:
            await self._recover(error)

    async def settle(self) -> None:
        """Wait until all that was published has been acknowledged. Raises as `publish`."""
        while self._sent:
            await self._progress()

    def _is_full(self) -> bool:
        return bool(self._sent) and (self._held_messages >= self._window_messages or self._held_bytes >= self._window_bytes)

    async def _send(self, link: PublishConnection, sent: _Sent) -> None:
        """Send what the streams did not have of this unit when this connection was opened."""
        if self._crash_point is not None:
            await self._send_in_steps(link, sent, self._crash_point)
            return
        if sent.unit.reaches > self._reached.raw:
            await link.publish((sent.unit.raw,))
            self._raw_sent += 1
        if sent.unit.reaches > self._reached.market:
            await link.publish(sent.unit.market)
            self._market_sent += len(sent.unit.market)
        sent.raw_acks = self._raw_sent
        sent.market_acks = self._market_sent

    async def _send_in_steps(self, link: PublishConnection, sent: _Sent, crash_point: CrashPoint) -> None:
        """As `_send`, passing the crash points; what was sent leaves the process before each."""
        if sent.unit.reaches > self._reached.raw:
            await link.publish((sent.unit.raw,))
            self._raw_sent += 1
            await asyncio.sleep(STEP_S)
            crash_point(crash_points.AFTER_RAW_PUBLISH)
        sent.raw_acks = self._raw_sent
        sent.market_acks = self._market_sent
        if sent.unit.reaches > self._reached.market:
            *records, mark = sent.unit.market
            await link.publish(records)
            self._market_sent += len(records)
            await asyncio.sleep(STEP_S)
            crash_point(crash_points.AFTER_RECORDS_BEFORE_MARK)
            await link.publish((mark,))
            self._market_sent += 1
            await asyncio.sleep(STEP_S)
            crash_point(crash_points.AFTER_MARK_BEFORE_ACK)
        sent.market_acks = self._market_sent

    async def _progress(self) -> None:
        """Wait for the server to acknowledge something; mend the connection when it does not."""
        try:
            await self._connected().progress(self._ack_timeout_s)
            await self._take_acks()
        except Unavailable as error:
            await self._recover(error)

    def _connected(self) -> PublishConnection:
        if self._link is None:
            raise Unavailable(self.away or "not connected yet")
        return self._link

    async def _take_acks(self) -> None:
        """Drop from the window what is acknowledged: per stream, acknowledgements come in the order of sending."""
        if self._link is None:
            return
        raw, market = self._link.acks("raw"), self._link.acks("market")
        if self._crash_point is not None and raw:
            self._crash_point(crash_points.AFTER_RAW_ACK)
        while self._sent and self._sent[0].raw_acks <= raw and self._sent[0].market_acks <= market:
            self._drop_first()

    def _drop_first(self) -> None:
        sent = self._sent.popleft()
        self._held_messages -= 1 + len(sent.unit.market)
        self._held_bytes -= sent.size_bytes
        self.acked = sent.unit.reaches
        if self._refill is not None and self.acked >= self._refill[1].both:
            self._refill = None

    async def _recover(self, trouble: Unavailable) -> None:
        """Open a new connection and send again what the server lacks; tries until it works or is cancelled."""
        attempt = 0
        await self._drop_question()
        while True:
            self.away = trouble.message
            await self._disconnect()
            if attempt:
                await asyncio.sleep(backoff_s(attempt, self._random, max_s=2.0))
            attempt += 1
            try:
                reached = await self._reconnect()
            except Unavailable as error:
                trouble = error
                continue
            self.away = ""
            self.recoveries += 1
            if reached.both < self.acked:
                regressed = StreamsRegressed(self.acked, reached)
                self._forget_sent()
                self._remade.clear()
                self.acked = reached.both
                raise regressed
            return

    async def _reconnect(self) -> Reached:
        """A new connection; on it, again, what the streams do not have. Nothing, where they have lost what they had."""
        link = await self._transport.publisher()
        self._link = link
        self._raw_sent = self._market_sent = 0
        reached = self._reached = self._as_refilled(await self.reached())
        if reached.both < self.acked:
            return reached
        while self._sent and self._sent[0].unit.reaches <= self._reached.both:
            self._drop_first()
        for sent in self._sent:
            await self._send(link, sent)
        return reached

    def _as_refilled(self, reached: Reached) -> Reached:
        """A stream that ends where it ended before the refill has nothing of the refill yet."""
        if self._refill is None:
            return reached
        start, before = self._refill
        return Reached(
            start if reached.raw == before.raw else reached.raw, start if reached.market == before.market else reached.market
        )

    def _forget_sent(self) -> None:
        self._sent.clear()
        self._held_messages = self._held_bytes = 0

    async def _disconnect(self) -> None:
        if self._link is not None:
            link, self._link = self._link, None
            await link.close()

    async def close(self) -> None:
        """Let go of the connection; what is not acknowledged is on the tape and will be sent at the next start."""
        await self._drop_question()
        await self._disconnect()
