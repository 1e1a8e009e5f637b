"""Frames that could not be normalized, on their way to the dead-letter stream.

The tape and the raw archive have them anyway; here they wait apart, with the reason, for whoever mends the mapper. They are
never in the way: where the stream is away the newest wait, a bounded number, and the others are left to the tape.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from typing import Any, Final

import msgspec

from ssmd.errors import Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.streams import subjects
from ssmd.streams.backoff import backoff_s
from ssmd.streams.transport import Outgoing, PublishConnection, Transport

COMPONENT: Final = "connector"
HELD_MAX: Final = 1_000
FRAME_BYTES_MAX: Final = 256 << 10
"""Of a larger frame only so much is quarantined; the tape has all of it."""
ACK_S: Final = 5.0


class Unmapped(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame, as the dead-letter stream holds it (JSON).

    Attributes:
        session, n: its place on the tape of `connection`.
        reason: why it was not understood.
        text, b64: the frame; `b64` where it is no UTF-8.
    """

    feed: str
    connection: str
    session: int
    n: int
    ts_recv_ns: int
    reason: str
    text: str = ""
    b64: str = ""


def unmapped(feed: str, connection: str, place: tuple[int, int], ts_recv_ns: int, reason: str, payload: bytes) -> Unmapped:
    """The letter about the frame `payload` at `place` = (session, n)."""
    kept = payload[:FRAME_BYTES_MAX]
    try:
        text, b64 = kept.decode(), ""
    except UnicodeDecodeError:
        text, b64 = "", base64.b64encode(kept).decode()
    return Unmapped(feed, connection, *place, ts_recv_ns, reason, text, b64)


class Quarantine:
    """See the module. `offer` from the follower, `run` as a task.

    Attributes:
        published, dropped: letters so far.
    """

    def __init__(self, transport: Transport, env: str, random: RandomBytes, log: Any) -> None:
        self.published = 0
        self.dropped = 0
        self._transport = transport
        self._subject = subjects.dead_letter(env, COMPONENT)
        self._random = random
        self._log = log
        self._held: deque[Unmapped] = deque(maxlen=HELD_MAX)
        self._offered = asyncio.Event()

    def offer(self, letter: Unmapped) -> None:
        """Take one; never waits."""
        if len(self._held) == HELD_MAX:
            self.dropped += 1
        self._held.append(letter)
        self._offered.set()

    async def run(self) -> None:
        """Publish what is offered, until cancelled."""
        link: PublishConnection | None = None
        attempt = 0
        try:
            while True:
                await self._offered.wait()
                try:
                    link = link or await self._transport.publisher()
                    await self._publish(link)
                    attempt = 0
                except Unavailable as error:
                    attempt += 1
                    self._log.warning("quarantine-waits", reason=error.message, held=len(self._held))
                    if link is not None:
                        await link.close()
                        link = None
                    await asyncio.sleep(backoff_s(attempt, self._random, max_s=5.0))
        finally:
            if link is not None:
                await link.close()

    async def _publish(self, link: PublishConnection) -> None:
        self._offered.clear()
        letters = list(self._held)
        wanted = link.acks("dlq") + len(letters)
        # The ids make a repetition harmless.
        await link.publish(
            [
                Outgoing(self._subject, msgspec.json.encode(one), f"dlq-{one.connection}-{one.session}-{one.n}")
                for one in letters
            ]
        )
        while link.acks("dlq") < wanted:
            await link.progress(ACK_S)
        for letter in letters:
            if self._held and self._held[0] is letter:
                self._held.popleft()
        self.published += len(letters)
        if self._held:
            self._offered.set()
