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


Write = Callable[[bytes], bool]


def never(_: bytes) -> bool:
    """`Client.write` of connections that offer none: everything goes through the queue."""
    return False


class Client:
    """One connected client, as the hub sees it; made by `Hub.connect`.

    `wake` is set when there is something to send (`take`), or when the connection is to be closed (`closing`).
    """

    def __init__(self, number: int, limits: QueueLimits, abort: Callable[[], None], grant: Grant, write: Write) -> None:
        self.number = number
        self.write = write
        """Sends a whole WebSocket frame past the queue, at once; False = not now. Only while `is_clear`."""
        self.is_sending = False
        """A frame from the queue is on its way: nothing may overtake it."""
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

    @property
    def is_clear(self) -> bool:
        """Whether nothing is queued for it, or on its way from the queue."""
        queue = self.queue
        return queue.is_empty and queue.lost is None and self.closing is None and not self.is_sending


def text_frame(text: str) -> bytes:
    """An unmasked WebSocket text frame (RFC 6455, section 5.2)."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
