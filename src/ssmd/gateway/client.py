"""One connected client as the hub sees it, and why it may be closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from ssmd.domain.client import Mode
from ssmd.gateway.api_keys import Grant
from ssmd.gateway.client_queue import ClientQueue, QueueLimits


class CloseReason(NamedTuple):
    """A WebSocket close code, and a reason of at most 123 bytes."""

    code: int
    reason: str


KEY_REVOKED: Final = CloseReason(1008, "the API key was revoked")
KEY_EXPIRED: Final = CloseReason(1008, "the API key has expired")
CUT_OFF: Final = CloseReason(1008, "disconnected by the operator")
SLOW_CLIENT: Final = CloseReason(1008, "slow client: see the last message for what was lost")


class Client:
    """One connected client, as the hub sees it; made by `Hub.connect`.

    `wake` is set when there is something to send (`take`), or when the connection is to be closed (`closing`).
    """

    def __init__(self, number: int, limits: QueueLimits, abort: Callable[[], None], grant: Grant) -> None:
        self.number = number
        self.grant = grant
        self.mode: Mode = "realtime"
        self.interval_s = 0.0
        """Of mode conflated: time between two frames."""
        self.queue = ClientQueue(limits)
        self.wake = asyncio.Event()
        self.masks: dict[str, int] = {}
        """Ticker (or "*") -> bits of the kinds wanted."""
        self.closing: CloseReason | None = None
        self.last_words: str = ""
        self.abort = abort
        self.abort_timer: asyncio.TimerHandle | None = None
        self.is_dirty = False
        self.resuming: asyncio.Task[None] | None = None
        """Reads again what the client missed; until it is done the client has no other subscription."""
        self.told_to = 0
        """While it resumes: everything up to this sequence has been queued."""
        self.room = asyncio.Event()
        """Set by `take` once at most half of the queue's bounds is used."""
