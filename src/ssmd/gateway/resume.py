"""Sends a client what it missed: the market stream read again from a known point, then over to live in one turn of the loop.

Both readers release the same blocks at the same sequences (`assembly`). The one for the client is over to live at the
moment when it has taken exactly the messages the live one has taken: what was released before came through this one,
what is released after comes live.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from ssmd.errors import Conflict, Malformed, Rejected, Unavailable
from ssmd.gateway.assembly import BlockAssembler, Position, ReadyBlock
from ssmd.gateway.client import Client, CloseReason
from ssmd.gateway.feed_reader import FeedReader
from ssmd.gateway.hub import Hub
from ssmd.gateway.kinds import BIT_OF_KIND, Wanted
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.messages import Ack, Refusal, Resumed, refusal_of
from ssmd.gateway.stream_records import records_of
from ssmd.schemas.market_message import parse_message_id
from ssmd.schemas.records import Record
from ssmd.streams import subjects
from ssmd.streams.transport import StreamMessage, StreamReader, Transport
from ssmd.telemetry.structured import structlog

RESUMING_MAX: Final = 64
"""Clients that may be sent what they missed at the same time."""
CANNOT_RESUME: Final = CloseReason(1011, "cannot resume: see the message before")
BEYOND_RETENTION: Final = "beyond-retention"
ARCHIVE: Final = "what is older is in the archive: GET /v1/inventory, ssmd data inventory"

BEHIND_S: Final = 10.0
"""How long the live reader may be behind the client, or the stream be silent, before the client is told to come back."""

_TIMEOUT_S: Final = 0.25
_POLL_S: Final = 0.01
_TURN_MESSAGES: Final = 200


class Resumer:
    """Starts one task per client that resumes; the hub ends it when the client goes."""

    def __init__(self, transport: Transport, env: str, state: MarketState, hub: Hub, live: FeedReader) -> None:
        self._transport = transport
        self._env = env
        self._state = state
        self._hub = hub
        self._live = live
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("ssmd.gateway").bind(env=env, feed=state.feed)
        self.resumed = 0

    def start(
        self, client: Client, command_id: int, tickers: tuple[str, ...], kinds: tuple[str, ...], *, after: int, stream: str
    ) -> None:
        """Begin to send everything behind `after`; the ack is queued before it.

        Raises:
            Rejected: not the first subscription, another stream, a sequence the stream does not have (yet, or any
                more), or too many do so already.
        """
        self._check(client, after, stream)
        self._hub.tell(client, Ack(command_id, "subscribe", tickers, kinds, 0, self._state.stream_seq, self._live.incarnation))
        client.told_to = after
        work = self._run(client, command_id, tickers, kinds, after)
        task = client.resuming = asyncio.create_task(work, name=f"gateway-resume-{client.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def resuming(self) -> int:
        """Clients that are being sent what they missed."""
        return len(self._tasks)

    def _check(self, client: Client, after: int, stream: str) -> None:
        live = self._live
        if client.masks or client.resuming is not None:
            raise Rejected("not-first", "resume_from belongs to the first subscription of a connection")
        if stream and stream != live.incarnation:
            raise Rejected("stream-changed", f"sequences were of stream {stream}, this is {live.incarnation}: subscribe anew")
        if after > max(live.stream_last, live.position):
            raise Rejected("resume-ahead", f"the stream ends at {max(live.stream_last, live.position)}, before {after}")
        if after < live.stream_first - 1:
            raise _beyond(after, live.stream_first)
        if len(self._tasks) >= RESUMING_MAX:
            raise Rejected("too-many-resuming", f"{len(self._tasks)} clients are resuming, the limit; try again in a second")

    async def _run(self, client: Client, command_id: int, tickers: tuple[str, ...], kinds: tuple[str, ...], after: int) -> None:
        def go_live(sent: int) -> None:
            """To be called in the turn of the loop in which the client was found level with the live reader."""
            client.resuming = None
            self._hub.join(client, tickers, kinds)
            self._hub.tell(client, Resumed(command_id, sent, self._state.stream_seq))
            self.resumed += 1

        try:
            await self._catch_up(client, Wanted.of(tickers, kinds), after, go_live)
        except Rejected as error:
            client.resuming = None
            self._hub.close(client, CANNOT_RESUME, refusal_of(command_id, error))
            return
        except (Unavailable, Conflict, Malformed) as error:
            if client.resuming is None:
                # Live already: only the reader could not be closed in good order.
                return
            client.resuming = None
            self._log.warning("a client could not resume", after=after, error=error.message)
            self._hub.close(client, CANNOT_RESUME, Refusal(command_id, "cannot-resume", error.message))

    async def _catch_up(self, client: Client, wanted: Wanted, after: int, go_live: Callable[[int], None]) -> None:
        """Send what was released behind `after`; once level with the live reader, `go_live` with the number of messages."""
        try:
            async with asyncio.timeout(BEHIND_S):
                # Another gateway may have been a moment ahead of this one.
                while self._live.taken < after:  # noqa: ASYNC110 - rare, and nothing else tells
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise Unavailable(f"the gateway is at {self._live.taken}, behind {after}: try again later") from error
        if self._state.stream_seq <= after:
            go_live(0)
            return
        stream = await self._transport.state("market")
        if after < stream.first_seq - 1:
            raise _beyond(after, stream.first_seq)
        again = _Again(self._live, self._live.points.before(after, stream.first_seq), stream.first_seq)
        filters = [subjects.market_filter(self._env, self._state.feed)]
        reader = await self._transport.read("market", after=again.after, filters=filters)
        try:
            await self._send(reader, again, client, wanted, after, go_live)
        finally:
            await reader.close()

    async def _send(
        self,
        reader: StreamReader,
        again: _Again,
        client: Client,
        wanted: Wanted,
        after: int,
        go_live: Callable[[int], None],
    ) -> None:
        waiting: deque[StreamMessage] = deque()
        sent = turns = 0
        silent_since_s: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            blocks = again.give_up(before=waiting[0].seq if waiting else self._live.taken + 1)
            if blocks is None:
                if again.is_level:
                    if not again.agrees:
                        raise Conflict("what was read again does not lead to what is live: subscribe anew, for snapshots")
                    # Before anything is waited for, closing the reader included: the live one does not stand still.
                    go_live(sent)
                    return
                if not waiting:
                    waiting.extend(await reader.next(_TIMEOUT_S))
                    silent_since_s = None if waiting else silent_since_s or loop.time()
                    if silent_since_s is not None and loop.time() - silent_since_s > BEHIND_S:
                        raise Unavailable("the market stream cannot be read: try again later")
                    continue
                blocks = again.take(waiting.popleft())
            if blocks and blocks[-1].stream_seq > after:
                sent += await self._hub.offer_again(client, self._records(blocks, wanted), blocks[-1].stream_seq, wanted)
            turns += 1
            if turns % _TURN_MESSAGES == 0:
                # The live clients come first.
                await asyncio.sleep(0)

    def _records(self, blocks: list[ReadyBlock], wanted: Wanted) -> list[Record]:
        def is_wanted(message: StreamMessage) -> bool:
            subject = subjects.parse_market(message.subject)
            return wanted.takes(subject.name, BIT_OF_KIND[subject.kind])

        found: list[Record] = []
        for block in blocks:
            if block.mark is not None and block.mark.parts > len(block.parts) and not block.hole:
                raise _beyond(block.stream_seq - 1, block.stream_seq + 1)
            found += records_of(block, self._state.feed, self._state.tickers_of, is_wanted).records
        return found


def _beyond(after: int, first_seq: int) -> Rejected:
    message = f"the stream begins at {first_seq}: what came behind {after} is not all there any more"
    return Rejected(BEYOND_RETENTION, message, mend=ARCHIVE)


class _Again:
    """A second assembler, given what the first one was given."""

    def __init__(self, live: FeedReader, begin: Position | None, first_seq: int) -> None:
        self._live = live
        self._assembler = BlockAssembler(begin=begin, hold_ns=0)
        # Without a point it begins with the stream, and holes given up before that are not in it.
        self._number = live.points.give_ups_before(first_seq) if begin is None else begin.give_ups
        self.after = 0 if begin is None else begin.after

    def take(self, message: StreamMessage) -> list[ReadyBlock]:
        try:
            return self._assembler.take(message, parse_message_id(message.message_id), 0)
        except Malformed:
            # As the live reader, which has counted it.
            return []

    def give_up(self, *, before: int) -> list[ReadyBlock] | None:
        """What the live reader gave up when it had taken what this one has taken, before sequence `before`; None = nothing."""
        found = self._live.points.give_up_behind(self._number)
        if found is None or found.taken >= before or found.taken > self._assembler.taken:
            return None
        self._number = found.number
        return self._assembler.give_up(found.connection, 0)

    @property
    def is_level(self) -> bool:
        """Whether this one has taken what the live one has taken (give-ups apart)."""
        return self._assembler.taken >= self._live.taken

    @property
    def agrees(self) -> bool:
        """Whether both are at the same place on every connection this one knows."""
        lines = self._live.lines
        return all(lines.get(name) == line for name, line in self._assembler.lines.items())
