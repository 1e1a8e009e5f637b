"""Every few seconds a word to each client that has everything: the line is alive, and so far it may resume from."""

from __future__ import annotations

import asyncio
from typing import Final

from ssmd.clock import Clock
from ssmd.gateway.feed_reader import FeedReader
from ssmd.gateway.hub import Hub
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.messages import Heartbeat

HEARTBEAT_S: Final = 10.0


async def beat_for_ever(hub: Hub, state: MarketState, reader: FeedReader, clock: Clock, every_s: float = HEARTBEAT_S) -> None:
    """Beat every `every_s`, but not while the stream cannot be read: who waits for a beat is to notice."""
    while True:
        await asyncio.sleep(every_s)
        if state.is_current and not reader.trouble:
            hub.beat(Heartbeat(state.stream_seq, clock.now_ns()))
