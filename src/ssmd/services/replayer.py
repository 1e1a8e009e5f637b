"""Plays an archived day: in order, at its own pace, a multiple of it, or as fast as the taker takes.

What is given depends on the archive alone, never on the pace. At a pace everything is given when it is due, counted from
the first; a taker that is slow delays what follows, and the lost time is caught up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from ssmd.archive.keys import Shelf
from ssmd.archive.reading import ALL_DAY, Wanted, Window, count_chains, raw_content, raw_lines, records
from ssmd.archive.shelf_manifest import raw_shelf
from ssmd.archive.storage import Storage
from ssmd.clock import Clock
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.raw_line import LineEncoder, RawLine
from ssmd.schemas.record_text import to_lines
from ssmd.schemas.records import Record

Item = TypeVar("Item")
Sleep = Callable[[float], Awaitable[None]]

DUE_TOGETHER_NS: Final = 1_000_000
"""What is due within so much of the first is given with it: a loop's sleep is no finer."""


async def paced(
    batches: AsyncIterator[Sequence[Item]], ts_of: Callable[[Item], int], speed: int, *, clock: Clock, sleep: Sleep
) -> AsyncIterator[Sequence[Item]]:
    """The items of `batches`, each when it is due.

    Args:
        ts_of: time of an item; a step back waits for nothing.
        speed: times as fast as recorded; 0 = do not wait at all.
    """
    first_ns = started_ns = 0
    async for batch in batches:
        if not speed:
            yield batch
            continue
        at = 0
        while at < len(batch):
            ts_ns = ts_of(batch[at])
            if not first_ns:
                first_ns, started_ns = ts_ns, clock.monotonic_ns()
            while True:
                played_ns = (clock.monotonic_ns() - started_ns) * speed
                early_ns = ts_ns - first_ns - played_ns
                if early_ns <= 0:
                    break
                await sleep(early_ns / speed / 1e9)
            until = first_ns + played_ns + DUE_TOGETHER_NS * speed
            end = at + 1
            while end < len(batch) and ts_of(batch[end]) <= until:
                end += 1
            yield batch[at:end]
            at = end


def _ts_of_line(line: RawLine) -> int:
    return line.entry.ts_recv_ns


def _ts_of_record(record: Record) -> int:
    return record.ts_recv_ns


class Replayer:
    """One archive, played.

    Args:
        sleep: waits that many seconds; `asyncio.sleep`, or a test's.
    """

    def __init__(self, storage: Storage, env: str, feed: str, *, clock: Clock, sleep: Sleep) -> None:
        self._storage = storage
        self._env = env
        self._feed = feed
        self._clock = clock
        self._sleep = sleep

    def shelf(self, date: str) -> Shelf:
        """Where the raw lines of `date` are."""
        return raw_shelf(self._env, self._feed, date)

    async def raw(self, date: str, *, window: Window = ALL_DAY, ticker: str = "", speed: int = 0) -> AsyncIterator[bytes]:
        """Lines of the raw archive. Whole days of one connection as fast as possible are the stored bytes.

        Args:
            ticker: only frames that hold this text in quotes, whatever field; facts and commands always.
        """
        is_plain = window == ALL_DAY and not ticker and not speed
        if is_plain and await count_chains(self._storage, self.shelf(date)) <= 1:
            async for content in raw_content(self._storage, self.shelf(date)):
                yield content
            return
        encoder = _LinesAgain()
        async for batch in self.paced_lines(date, window=window, ticker=ticker, speed=speed):
            yield encoder.encode(batch)

    async def paced_lines(
        self, date: str, *, window: Window = ALL_DAY, ticker: str = "", speed: int = 0
    ) -> AsyncIterator[Sequence[RawLine]]:
        """As `lines`, each when it is due."""
        lines = self.lines(date, window=window, ticker=ticker)
        async for batch in paced(lines, _ts_of_line, speed, clock=self._clock, sleep=self._sleep):
            yield batch

    async def lines(self, date: str, *, window: Window = ALL_DAY, ticker: str = "") -> AsyncIterator[Sequence[RawLine]]:
        """As `raw`, decoded, in batches."""
        quoted = msgspec.json.encode(ticker)
        async for batch in raw_lines(self._storage, self.shelf(date), window):
            if ticker:
                yield [line for line in batch if line.entry.kind != EntryKind.IN or quoted in line.entry.payload]
            else:
                yield batch

    async def records(self, wanted: Wanted, *, speed: int = 0) -> AsyncIterator[Sequence[Record]]:
        """Records of all kinds wanted in order; gaps stand among them where they were noticed."""
        found = records(self._storage, wanted)
        async for batch in paced(found, _ts_of_record, speed, clock=self._clock, sleep=self._sleep):
            yield batch

    async def record_lines(self, wanted: Wanted, *, speed: int = 0) -> AsyncIterator[bytes]:
        """As `records`, as lines of JSON (`schemas.record_text`)."""
        async for batch in self.records(wanted, speed=speed):
            yield to_lines(batch)


class _LinesAgain:
    """Lines of several connections as one archive: an encoder a connection, as the archiver has."""

    def __init__(self) -> None:
        self._encoders: dict[str, LineEncoder] = {}

    def encode(self, lines: Iterable[RawLine]) -> bytes:
        made: list[bytes] = []
        run: list[Entry] = []
        place: tuple[str, int] | None = None
        for line in lines:
            here = line.connection, line.session
            if here != place:
                made.append(self._run(place, run))
                place, run = here, []
            run.append(line.entry)
        made.append(self._run(place, run))
        return b"".join(made)

    def _run(self, place: tuple[str, int] | None, entries: Sequence[Entry]) -> bytes:
        if place is None or not entries:
            return b""
        connection, session = place
        encoder = self._encoders.setdefault(connection, LineEncoder(connection))
        return encoder.encode(session, entries)
