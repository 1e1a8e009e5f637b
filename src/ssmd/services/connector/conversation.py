"""One connection while it lives: frames onto the tape and to the protocol, commands out at a measured pace.

The venue counts commands; one too many costs the connection. Commands go out at once while the budget lasts and wait in
order when it does not. One that finds no room among the waiting is left out: the protocol asks again for what is not
answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ssmd.domain.capture import CaptureEvent, GapOpened
from ssmd.errors import Unavailable
from ssmd.exchanges.adapter import ListingChange, Session
from ssmd.services.connector.venue_socket import VenueSocket
from ssmd.streams.recorder import Recorder

WAITING_MAX: Final = 10_000
PLACED_S: Final = 60.0
"""After so long a connection should have all of its markets."""
BURST_S: Final = 0.5
"""How much of the budget may be spent at once."""
SILENT: Final[dict[str, int | str]] = {"unplaced": 0, "commands_waiting": 0}


class News(NamedTuple):
    """What concerns the other connections, too. As `Session.take_changes` and `Session.without_room`."""

    changes: Sequence[ListingChange] = ()
    without_room: frozenset[str] = frozenset()


class Conversation:
    """See the module.

    Args:
        recorder: writes this connection's session.
        commands_s: commands a second, at most.

    Attributes:
        frames: received so far.
        left_out: commands that found no room.
    """

    def __init__(self, recorder: Recorder, socket: VenueSocket, protocol: Session, commands_s: float) -> None:
        self.recorder = recorder
        self.protocol = protocol
        self.frames = 0
        self.left_out = 0
        self._socket = socket
        self._commands_s = commands_s
        self._loop = asyncio.get_running_loop()
        self._burst = max(1.0, commands_s * BURST_S)
        self._tokens = self._burst
        self._filled_s = self._loop.time()
        self._waiting: deque[bytes] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._began_s = self._loop.time()

    @property
    def complaint(self) -> str:
        """What has been wrong for too long, "" = nothing."""
        if self.age_s < PLACED_S or not self.protocol.unplaced:
            return ""
        return f"{self.protocol.unplaced} markets are not subscribed"

    @property
    def age_s(self) -> float:
        """For how long it has been open."""
        return self._loop.time() - self._began_s

    def stats(self) -> dict[str, int | str]:
        """For `Health.stats`; without a conversation they are `SILENT`."""
        return {"unplaced": self.protocol.unplaced, "commands_waiting": len(self._waiting)}

    def open(self) -> None:
        """Say the first words."""
        self.say(self.protocol.open())

    def frame(self, payload: bytes) -> None:
        """Take one frame, in the callback that read it off the socket.

        Raises:
            Unavailable: the tape cannot be written, or the protocol has failed.
        """
        self.recorder.frame(payload)
        self.frames += 1
        commands = self.protocol.receive(payload)
        if commands:
            self.say(commands)
        if self.protocol.failure:
            raise Unavailable(self.protocol.failure)

    def tick(self) -> None:
        """Once a second."""
        if not self._is_closed:
            self.say(self.protocol.tick(self._loop.time()))
            if self.protocol.failure:
                self._socket.abort("channel-error", self.protocol.failure)

    def want(self, tickers: Iterable[str]) -> None:
        """From now on these markets."""
        if not self._is_closed:
            self.say(self.protocol.want(tickers))

    def mend(self, facts: Iterable[CaptureEvent]) -> None:
        """Bring the books anew that cannot be, by what was found on this session's tape."""
        wrong = [
            ticker
            for fact in facts
            if isinstance(fact, GapOpened) and fact.cause == "book-inconsistent" and fact.session == self.recorder.session
            for ticker in fact.tickers
        ]
        if wrong and not self._is_closed:
            self.say(self.protocol.repair(wrong))

    def news(self) -> News:
        """What the venue told since the last call, and what it does not take."""
        return News(self.protocol.take_changes(), self.protocol.without_room)

    def close(self) -> None:
        """The connection is over; what waits is not said."""
        self._is_closed = True
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def say(self, commands: Iterable[bytes]) -> None:
        """Send in order, each on the tape first."""
        for command in commands:
            if len(self._waiting) < WAITING_MAX:
                self._waiting.append(command)
            else:
                self.left_out += 1
        if self._timer is None:
            self._send()

    def _send(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        self._tokens = min(self._burst, self._tokens + (now_s - self._filled_s) * self._commands_s)
        self._filled_s = now_s
        while self._waiting and self._tokens >= 1 and not self._is_closed:
            self._tokens -= 1
            command = self._waiting.popleft()
            try:
                self.recorder.command(command)
            except Unavailable as error:
                self._socket.abort("tape-full", error.message)
                return
            self._socket.send(command)
        if self._waiting and not self._is_closed:
            self._timer = self._loop.call_later((1 - self._tokens) / self._commands_s, self._send)
