"""Facts on their way from the tape to the journal: in order, once, and never in the way of the capture.

The journal may be away for as long as it likes. What does not fit in memory meanwhile is read from the tape again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from ssmd import crash_points
from ssmd.application.handler import Application
from ssmd.domain import capture
from ssmd.domain.capture import CaptureEvent, RecordFact, TapePlace
from ssmd.errors import Conflict, Malformed, Rejected, Unavailable
from ssmd.exchanges.adapter import Mapper
from ssmd.identifiers import RandomBytes
from ssmd.services.connector.mapper_checkpoint import start_behind
from ssmd.services.connector.tape_follower import MakeMapper
from ssmd.streams.backoff import backoff_s
from ssmd.streams.publisher import EntryPlace
from ssmd.streams.tape_cursor import TapeCursor

HELD_MAX: Final = 20_000
BATCH: Final = 200


def place_of(fact: CaptureEvent) -> TapePlace:
    """Where on the tape the fact was found."""
    return TapePlace(fact.session, fact.n, fact.index)


def facts_on_tape(directory: Path, make_mapper: MakeMapper, after: TapePlace) -> Iterator[list[CaptureEvent]]:
    """The facts behind `after`, one list per block (often empty, so that the caller can let others run), to the tape's end."""
    start = start_behind(directory, EntryPlace(after.session, max(0, after.n - 1)), make_mapper)
    cursor = TapeCursor(directory, start.position)
    mapper: Mapper | None = None
    session = 0
    if start.checkpoint is not None:
        mapper, session = start.checkpoint.mapper, start.checkpoint.session
    try:
        while blocks := cursor.read():
            for tape_block in blocks:
                block = tape_block.decode()
                if mapper is None or block.session != session:
                    mapper, session = make_mapper(block.session), block.session
                found = [fact for entry in block.entries for fact in mapper.map(entry).facts]
                yield [fact for fact in found if place_of(fact) > after]
    finally:
        cursor.close()


class FactJournal:
    """See the module. `offer` from the follower, `run` as a task.

    Attributes:
        away: why the journal cannot be written now, "" while it can.
        recorded: the place of the last fact that is in the journal, as far as known.
        fenced: why another connector's facts made ours refused, "" = not; `run` has returned then.
    """

    def __init__(
        self,
        application: Application,
        directory: Path,
        make_mapper: MakeMapper,
        feed: str,
        connection: str,
        random: RandomBytes,
        *,
        on_fenced: Callable[[str], None],
        held_max: int = HELD_MAX,
        crash_point: crash_points.CrashPoint = crash_points.no_crash,
    ) -> None:
        self.away = ""
        self.recorded = TapePlace()
        self.fenced = ""
        self._application = application
        self._directory = directory
        self._make_mapper = make_mapper
        self._id = (feed, connection)
        self._actor = f"connector:{feed}-{connection}"
        self._random = random
        self._on_fenced = on_fenced
        self._held_max = held_max
        self._crash_point = crash_point
        self._held: deque[CaptureEvent] = deque()
        # Until the journal's last place is known, and after an overflow, the tape is read instead of the queue.
        self._must_read_tape = True
        self._is_reading_tape = False
        self._offered = asyncio.Event()
        self._is_draining = False

    @property
    def held(self) -> int:
        """Facts waiting in memory."""
        return len(self._held)

    def offer(self, facts: Iterable[CaptureEvent]) -> None:
        """Take facts, in tape order; never waits."""
        if not self._must_read_tape:
            self._held.extend(facts)
            if len(self._held) > self._held_max:
                self._held.clear()
                self._must_read_tape = True
        self._offered.set()

    def done(self, offered: EntryPlace) -> EntryPlace:
        """Up to where the journal has all facts; `offered`: up to where the follower has offered them."""
        is_done = not (self._held or self._must_read_tape or self._is_reading_tape or self.away)
        return offered if is_done else EntryPlace(self.recorded.session, self.recorded.n)

    def drain(self) -> None:
        """Let `run` return once everything is in the journal."""
        self._is_draining = True
        self._offered.set()

    async def run(self) -> None:
        """Journal what is offered, until drained or cancelled.

        A history that this version cannot read ends the journaling, and says so in `away`; never the capture.
        """
        try:
            await self._run()
        except Malformed as error:
            self.away = f"facts stay on the tape: {error.message}"

    async def _run(self) -> None:
        await self._persist(self._learn_place)
        while not self.fenced:
            self._offered.clear()
            if self._must_read_tape:
                self._must_read_tape, self._is_reading_tape = False, True
                await self._read_tape()
                self._is_reading_tape = False
            while self._held and not self._must_read_tape and not self.fenced:
                batch = [self._held[index] for index in range(min(BATCH, len(self._held)))]
                await self._record(batch)
                # An overflow while waiting has emptied the queue; the tape holds what was in it.
                for _ in range(min(len(batch), len(self._held))):
                    self._held.popleft()
            if self._must_read_tape or self.fenced:
                continue
            if self._is_draining and not self._held:
                return
            await self._offered.wait()

    async def _learn_place(self) -> None:
        self.recorded = (await self._application.state(capture.DECIDER, self._id)).last

    async def _read_tape(self) -> None:
        """Journal what the tape holds behind the last recorded fact; offers meanwhile are found on the tape, too."""
        batch: list[CaptureEvent] = []
        for facts in facts_on_tape(self._directory, self._make_mapper, self.recorded):
            batch += facts
            if len(batch) >= BATCH:
                await self._record(batch)
                batch = []
            await asyncio.sleep(0)
        if batch:
            await self._record(batch)

    async def _record(self, facts: list[CaptureEvent]) -> None:
        commands = [RecordFact(place_of(fact), fact) for fact in facts if place_of(fact) > self.recorded]
        if not commands or self.fenced:
            return

        async def append() -> None:
            await self._application.handle_many(capture.DECIDER, self._id, commands, actor=self._actor)

        try:
            await self._persist(append)
        except Rejected as error:
            self.fenced = error.message
            self._on_fenced(error.message)
            return
        self._crash_point(crash_points.AFTER_FACTS)
        self.recorded = max(self.recorded, commands[-1].place)

    async def _persist(self, action: Callable[[], Awaitable[None]]) -> None:
        """Do it until it works: the journal's absence delays the audit, nothing else."""
        attempt = 0
        while True:
            try:
                await action()
            except (Unavailable, Conflict) as error:
                self.away = error.message
                attempt += 1
                await asyncio.sleep(backoff_s(attempt, self._random, max_s=5.0))
            else:
                self.away = ""
                return
