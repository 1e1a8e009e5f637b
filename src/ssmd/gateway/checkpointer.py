"""Saves the gateway's state every few seconds, a little at a time, and brings it back at the start."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Final

from ssmd.clock import Clock
from ssmd.errors import Unavailable
from ssmd.gateway.checkpoint import FORMAT, Head, encode_market, restore
from ssmd.gateway.checkpoint_store import CheckpointStore
from ssmd.gateway.feed_reader import FeedReader
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.resume_points import ResumePoints
from ssmd.streams.transport import Transport
from ssmd.telemetry.structured import structlog

EVERY_S: Final = 5.0
_TURN_NS: Final = 1_000_000
_PAUSE_S: Final = 0.004


class Checkpointer:
    """`load` before the reader runs; `run` as a task beside it; `save` once more at the end."""

    def __init__(
        self,
        store: CheckpointStore,
        transport: Transport,
        state: MarketState,
        reader: FeedReader,
        clock: Clock,
        every_s: float = EVERY_S,
    ) -> None:
        self._store = store
        self._transport = transport
        self._state = state
        self._reader = reader
        self._clock = clock
        self._every_s = every_s
        self._log = structlog.get_logger("ssmd.gateway").bind(feed=state.feed)
        self._saved: dict[str, int] = {}
        self._of = ""
        self._lock = asyncio.Lock()
        self.rounds = 0

    async def load(self) -> bool:
        """Bring back what was saved, if it is of this stream; whether there was any."""
        loaded = await self._store.load(self._state.trades_max)
        if loaded is None:
            return False
        head = loaded.head
        if not await self._is_of_this_stream(head):
            self._log.warning("the gateway's checkpoint is of another stream: it is not used", end_seq=head.end_seq)
            return False
        restore(self._state, head, loaded.markets)
        self._reader.begin_at(head.incarnation, head.position, ResumePoints(head.points, head.give_ups))
        self._saved = {market.ticker: market.revision for market in loaded.markets}
        self._of = head.incarnation
        return True

    async def _is_of_this_stream(self, head: Head) -> bool:
        if head.feed != self._state.feed:
            return False
        try:
            stream = await self._transport.state("market")
            if stream.incarnation != head.incarnation or stream.last_seq < head.end_seq:
                return False
            if head.position.after + 1 < stream.first_seq:
                # Retention has taken messages that nobody here has read: books from before would be wrong.
                return False
            end = await self._transport.get("market", head.end_seq)
        except Unavailable as error:
            # The stream's own history is the safe way; it is away too, and will be waited for.
            self._log.warning("cannot compare the checkpoint with the stream", error=error.message)
            return False
        return end is not None and end.message_id == head.end_id

    async def run(self) -> None:
        """Save for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.save()

    async def save(self) -> None:
        """Save what changed since the last round; not while the stream is being caught up with."""
        async with self._lock:
            try:
                await self._save()
            except (sqlite3.Error, OSError, Unavailable) as error:
                # The next start takes longer; nothing is lost.
                self._log.warning("the gateway's checkpoint was not saved", error=str(error))

    async def _save(self) -> None:
        reader, state = self._reader, self._state
        incarnation = reader.incarnation
        if not reader.is_caught_up or not reader.position:
            return
        begin, points = reader.assembly, list(reader.points.points)
        give_ups = list(reader.points.give_ups)
        stream_seq, records = state.stream_seq, state.records
        gaps_open, gaps_closed = list(state.whole_gaps_open.values()), list(state.whole_gaps_closed)
        gaps_forgotten_ns = state.whole_gaps_forgotten_ns
        is_first = self._of != incarnation
        if is_first:
            self._saved = {}
        changed, revisions = await self._encoded(state)
        if reader.incarnation != incarnation:
            return
        end_seq = reader.position
        end = await self._transport.get("market", end_seq)
        if end is None or reader.incarnation != incarnation:
            return
        gone = [ticker for ticker in self._saved if ticker not in revisions]
        head = Head(
            format=FORMAT,
            feed=state.feed,
            incarnation=incarnation,
            position=begin,
            stream_seq=stream_seq,
            end_seq=end_seq,
            end_id=end.message_id,
            points=points,
            give_ups=give_ups,
            whole_gaps_open=gaps_open,
            whole_gaps_closed=gaps_closed,
            whole_gaps_forgotten_ns=gaps_forgotten_ns,
            records=records,
        )
        await self._store.save(head, changed, gone, is_first=is_first)
        self._saved, self._of = revisions, incarnation
        self.rounds += 1

    async def _encoded(self, state: MarketState) -> tuple[dict[str, bytes], dict[str, int]]:
        """(changed markets, revision of each market there is)."""
        changed: dict[str, bytes] = {}
        revisions: dict[str, int] = {}
        turn_ns = self._clock.monotonic_ns()
        for ticker in state.tickers:
            market = state.find(ticker)
            if market is None:
                continue
            revisions[ticker] = market.revision
            if self._saved.get(ticker) != market.revision:
                changed[ticker] = encode_market(market, state.stream_seq)
            if self._clock.monotonic_ns() - turn_ns > _TURN_NS:
                await asyncio.sleep(_PAUSE_S)
                turn_ns = self._clock.monotonic_ns()
        return changed, revisions
