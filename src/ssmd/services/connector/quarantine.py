"""Frames that could not be normalized, on their way to the dead-letter stream and to the journal.

The tape and the raw archive have them anyway; here they wait apart, with the reason, for whoever mends the mapper. The
stream takes each frame, the journal that it waits: the aggregate's id is the frame's place on the tape, so telling it twice
is telling it once. The two go their own ways, and neither is in the capture's way: where one is away the newest wait, a
bounded number, over a kill too (`letter_spool`), and the others are left to the tape.

A venue that changes its messages makes a letter of every frame. The journal, which forgets nothing, is told of so many an
hour, and with the last of them that there are more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from ssmd.application.handler import Application
from ssmd.domain import dead_letter
from ssmd.errors import Conflict, Malformed, Rejected, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.services.connector.frame_letter import COMPONENT, Unmapped, letter_id, recording
from ssmd.services.connector.letter_spool import LetterSpool, Waiting
from ssmd.streams import subjects
from ssmd.streams.backoff import backoff_s
from ssmd.streams.transport import Outgoing, PublishConnection, Transport

HELD_MAX: Final = 1_000
HELD_BYTES_MAX: Final = 16 << 20
JOURNALED_AN_HOUR: Final = 200
"""Frames of one connection and hour (of their receive times) that the journal is told of one by one."""
ACK_S: Final = 5.0
RETRY_MAX_S: Final = 5.0
_HOUR_NS: Final = 3_600_000_000_000


class _Way:
    """Letters on their way to one place, in order: the newest, within bounds."""

    def __init__(self) -> None:
        self.held: deque[Unmapped] = deque()
        self.sent = 0
        self.dropped = 0
        self.offered = asyncio.Event()
        self._size_bytes = 0

    def add(self, letter: Unmapped) -> None:
        self.held.append(letter)
        self._size_bytes += _size(letter)
        while len(self.held) > HELD_MAX or self._size_bytes > HELD_BYTES_MAX:
            self._size_bytes -= _size(self.held.popleft())
            self.dropped += 1
        self.offered.set()

    def arrived(self, letter: Unmapped) -> None:
        """It is there; it may have been dropped meanwhile."""
        self.sent += 1
        if self.held and self.held[0] is letter:
            self._size_bytes -= _size(self.held.popleft())


class Quarantine:
    """See the module. `offer` from the follower, `run` as a task."""

    def __init__(
        self, transport: Transport, application: Application, env: str, directory: Path, random: RandomBytes, log: Any
    ) -> None:
        self._transport = transport
        self._application = application
        self._subject = subjects.dead_letter(env, COMPONENT)
        self._random = random
        self._log = log
        self._spool = LetterSpool(directory, log)
        self._is_loaded = False
        self._stream = _Way()
        self._journal = _Way()
        self._link: PublishConnection | None = None
        # The hour letters are counted in for the journal, and how many it had.
        self._hour = 0
        self._journaled = 0

    def stats(self) -> dict[str, int | str]:
        """For `Health.stats`."""
        ways = (self._stream, self._journal)
        return {
            "quarantined": self._stream.sent,
            "letters_waiting": max(len(way.held) for way in ways),
            "letters_dropped": max(way.dropped for way in ways),
        }

    def offer(self, letter: Unmapped) -> None:
        """Take one; never waits."""
        self._load()
        told = self._for_journal(letter)
        self._take(Waiting(letter, to_stream=True, to_journal=told is not None), told)
        if self._spool.add(Waiting(letter, to_stream=True, to_journal=told is not None)):
            self._spool.replace(self._waiting())

    async def run(self) -> None:
        """Send what is offered, and what waited when the process before this one ended, until cancelled."""
        self._load()
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._serve(self._stream, self._publish))
                ways.create_task(self._serve(self._journal, self._record))
        finally:
            await self._hang_up()

    # What waits

    def _load(self) -> None:
        if not self._is_loaded:
            self._is_loaded = True
            for one in self._spool.load():
                self._take(one, one.letter if one.to_journal else None)

    def _take(self, one: Waiting, told: Unmapped | None) -> None:
        if one.to_stream:
            self._stream.add(one.letter)
        if told is not None:
            # The journal gets no bytes of the frame; so they are not held for it either.
            self._journal.add(msgspec.structs.replace(told, text="", b64=""))

    def _for_journal(self, letter: Unmapped) -> Unmapped | None:
        """What the journal is to be told of it, None = nothing: it had its share of this hour."""
        hour = letter.ts_recv_ns // _HOUR_NS
        if hour != self._hour:
            self._hour, self._journaled = hour, 0
        self._journaled += 1
        if self._journaled < JOURNALED_AN_HOUR:
            return letter
        if self._journaled > JOURNALED_AN_HOUR:
            return None
        more = f"{letter.reason} (number {JOURNALED_AN_HOUR} of this hour: further ones are on the dead-letter stream alone)"
        return msgspec.structs.replace(letter, reason=more)

    def _waiting(self) -> list[Waiting]:
        both = [(one, True) for one in self._stream.held] + [(one, False) for one in self._journal.held]
        both.sort(key=lambda found: (found[0].session, found[0].n))
        return [Waiting(one, to_stream=is_stream, to_journal=not is_stream) for one, is_stream in both]

    # The two ways

    async def _serve(self, way: _Way, send: Callable[[list[Unmapped]], Awaitable[None]]) -> None:
        attempt = 0
        while True:
            await way.offered.wait()
            way.offered.clear()
            try:
                await send(list(way.held))
                attempt = 0
            except (Unavailable, Conflict) as error:
                attempt += 1
                self._log.warning("letters-wait", reason=error.message, held=len(way.held))
                way.offered.set()
                await asyncio.sleep(backoff_s(attempt, self._random, max_s=RETRY_MAX_S))
            if not (self._stream.held or self._journal.held):
                self._spool.replace(())

    async def _publish(self, letters: list[Unmapped]) -> None:
        try:
            link = self._link = self._link or await self._transport.publisher()
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
        except Unavailable:
            await self._hang_up()
            raise
        for letter in letters:
            self._stream.arrived(letter)

    async def _record(self, letters: list[Unmapped]) -> None:
        for letter in letters:
            parts, actor = (letter_id(letter),), f"connector:{letter.feed}-{letter.connection}"
            try:
                await self._application.handle(dead_letter.DECIDER, parts, recording(letter), actor=actor)
            except (Malformed, Rejected) as error:
                # A history of it that this version cannot read: it is known, then.
                self._log.warning("letter-not-journaled", letter=parts[0], reason=error.message)
            self._journal.arrived(letter)

    async def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()


def _size(letter: Unmapped) -> int:
    return len(letter.text) + len(letter.b64) + 200
