"""The journal in one SQLite file, for one machine without servers, over the `eventsourcing` library's SQLite recorder.

Appends and questions run on one worker thread, one after the other. WAL with synchronous=FULL: what is acknowledged was
fsynced. Several processes may use one file; who follows it sees what others wrote within FOLLOW_POLL_S.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from eventsourcing.persistence import IntegrityError, PersistenceError, StoredEvent
from eventsourcing.sqlite import SQLiteDatastore

from ssmd.domain.envelope import AggregateId, encode_envelope
from ssmd.errors import Conflict, Malformed, Misconfigured, SsmdError, Unavailable
from ssmd.identifiers import encode_token
from ssmd.streams.journal import AppendGroup, PoisonEvent, RecordedEvent
from ssmd.streams.journal_checks import (
    DAMAGED,
    Filter,
    Reader,
    check_append,
    command_id_reused,
    conflict,
    contiguous,
    is_written,
    parse_filters,
)
from ssmd.streams.journal_sqlite_recorder import CommandSeenError, JournalRecorder, Row
from ssmd.streams.subjects import journal_filter

Result = TypeVar("Result")
Batch = list[RecordedEvent | PoisonEvent]

BATCH_MAX: Final = 1000
FOLLOW_POLL_S: Final = 0.05
LOCK_TIMEOUT_S: Final = 5
"""How long a writer waits for another process that writes."""

_DAMAGE: Final = ("malformed", "not a database", "disk image")


class SqliteJournal:
    """See the module. Made by `open`.

    Args:
        env: name of the environment; stands in the subjects, as on a server.
    """

    def __init__(self, path: Path, env: str) -> None:
        self._path = path
        self._env = env
        self._reader = Reader(journal_filter(env)[:-1])
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ssmd-journal")
        self._appended = asyncio.Event()
        self._is_closed = False
        self._datastore: SQLiteDatastore | None = None
        self._recorder: JournalRecorder

    @classmethod
    async def open(cls, path: Path, env: str) -> SqliteJournal:
        """The journal in the file `path`, which is made if there is none.

        Raises:
            Misconfigured: the file cannot be made.
            Malformed: it is no such journal.
            Unavailable: another process keeps it locked.
        """
        journal = cls(path, env)
        try:
            await journal._run(journal._create)
        except BaseException:
            await journal.close()
            raise
        return journal

    def _create(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.open("ab").close()
        except OSError as error:
            raise Misconfigured(f"{self._path}: {error.strerror}", mend="choose a writable workspace") from error
        self._datastore = SQLiteDatastore(
            self._path.absolute().as_uri(), lock_timeout=LOCK_TIMEOUT_S, pool_size=1, originator_id_type="text"
        )
        self._recorder = JournalRecorder(self._datastore)
        self._recorder.create_table()

    async def _run(self, work: Callable[[], Result]) -> Result:
        """`work` on the worker thread. Cancelled, it is taken back or waited for: nothing happens later by itself."""
        if self._is_closed:
            raise Unavailable(f"the journal {self._path} is closed here")
        future = self._worker.submit(self._translated, work)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([asyncio.wrap_future(future)])
            raise

    def _translated(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except (SsmdError, IntegrityError):
            raise
        except (sqlite3.Error, PersistenceError) as error:
            if any(word in str(error) for word in _DAMAGE):
                raise Malformed(f"the journal {self._path} is damaged: {error}", mend=DAMAGED) from error
            raise Unavailable(f"the journal {self._path} does not answer: {error}") from error

    def _tail(self, aggregate: AggregateId) -> str:
        return f"{encode_token(aggregate.aggregate)}.{aggregate.key}"

    def _read(self, rows: Sequence[Row]) -> Batch:
        prefix = self._reader.prefix
        return [self._reader.read(row.position, prefix + row.tail, row.state) for row in rows]

    async def append(self, groups: Sequence[AppendGroup], *, command_id: str) -> int:
        check_append(groups)
        expected = {self._tail(group.aggregate): group.expected_version for group in groups}
        stored = [
            StoredEvent(tail, one.version, one.type, encode_envelope(one))
            for tail, group in zip(expected, groups, strict=True)
            for one in group.events
        ]
        try:
            positions = await self._run(lambda: self._recorder.insert_events(stored, expected=expected, command_id=command_id))
        except IntegrityError as error:
            return await self._written_or(groups, command_id, is_reuse=isinstance(error, CommandSeenError))
        self._appended.set()
        self._appended = asyncio.Event()
        return positions[-1] if positions else 0

    async def _written_or(self, groups: Sequence[AppendGroup], command_id: str, *, is_reuse: bool) -> int:
        position = 0
        for group in groups:
            found = await self.load(group.aggregate, after_version=group.expected_version)
            if not is_written(group, found):
                break
            position = found[len(group.events) - 1].position
        else:
            return position
        if is_reuse:
            raise command_id_reused(command_id)
        for group in groups:
            tail = self._tail(group.aggregate)
            version = await self._run(lambda tail=tail: self._recorder.last_version(tail))  # type: ignore[misc]  # mypy: default argument of a lambda
            if version != group.expected_version:
                raise conflict(group, version)
        raise conflict(groups[0], None)

    async def load(self, aggregate: AggregateId, *, after_version: int = 0, after_position: int = 0) -> list[RecordedEvent]:
        del after_position  # the table's key finds the events as fast without it
        tail = self._tail(aggregate)
        rows = await self._run(lambda: self._recorder.rows_of(tail, after_version))
        return contiguous(aggregate, after_version, self._read(rows))

    async def replay(self, *, after: int = 0, until: int | None = None, filters: Sequence[str] = ()) -> AsyncIterator[Batch]:
        wanted = parse_filters(filters)
        head = await self._head_behind(after)
        end = head if until is None else min(until, head)
        while after < end:
            batch, after = await self._batch(after, end, wanted)
            if batch:
                yield batch

    async def follow(self, *, after: int = 0, filters: Sequence[str] = ()) -> AsyncIterator[Batch]:
        wanted = parse_filters(filters)
        await self._head_behind(after)
        while not self._is_closed:
            appended = self._appended
            try:
                head = await self.head()
                if after < head:
                    batch, after = await self._batch(after, head, wanted)
                    if batch:
                        yield batch
                    continue
                async with asyncio.timeout(FOLLOW_POLL_S):
                    await appended.wait()
            except TimeoutError:
                continue
            except Unavailable:
                if self._is_closed:
                    return
                # Locked for long by another process; it ends, or the next question says what is wrong.
                await asyncio.sleep(FOLLOW_POLL_S)

    async def _head_behind(self, after: int) -> int:
        head = await self.head()
        if after > head:
            raise Conflict(f"the journal ends at position {head}, before position {after}")
        return head

    async def _batch(self, after: int, end: int, wanted: list[Filter]) -> tuple[Batch, int]:
        """Up to BATCH_MAX of the messages behind `after`, those wanted, and how far that reaches."""
        rows = await self._run(lambda: self._recorder.rows_between(after, end, BATCH_MAX))
        if not rows:
            raise Malformed(f"the journal {self._path} holds nothing at positions {after + 1} to {end}", mend=DAMAGED)
        reached = rows[-1].position
        return self._read([row for row in rows if not wanted or any(one.matches(row.tail) for one in wanted)]), reached

    async def restore(self, after: int, messages: Sequence[tuple[str, bytes]]) -> int:
        prefix = self._reader.prefix
        rows: list[tuple[str, int | None, str, bytes]] = []
        for tail, payload in messages:
            read = self._reader.read(0, prefix + tail, payload)
            if isinstance(read, RecordedEvent):
                rows.append((tail, read.envelope.version, read.envelope.type, payload))
            else:
                rows.append((tail, None, "", payload))
        try:
            return await self._run(lambda: self._recorder.insert_rows(after, rows))
        except IntegrityError as error:
            raise Conflict(f"the journal {self._path} cannot take messages behind position {after}: {error}") from error

    async def head(self) -> int:
        return await self._run(self._recorder.last_position)

    async def close(self) -> None:
        """Ends every `follow` that still runs. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._appended.set()
        closed = self._worker.submit(self._datastore.close) if self._datastore is not None else None
        if closed is not None:
            await asyncio.wait([asyncio.wrap_future(closed)])
        self._worker.shutdown(wait=False)
