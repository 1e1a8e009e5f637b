"""What `ssmd journal` does to whole journals: verify against anchors, export into a file, import from one, count."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from ssmd.application.journal_copy import Copied, checked, exported, imported
from ssmd.application.journal_verify import Verification, verify
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Malformed, Misconfigured, Rejected
from ssmd.streams.journal import RecordedEvent
from ssmd.streams.journal_anchor import Anchor, anchor_prefix, decode_anchor
from ssmd.wiring.backends import JOURNAL_DIRECTORY, open_journal, open_storage, reading_journal
from ssmd.wiring.environment import ResolvedEnvironment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ssmd.streams.journal import Journal

Say = Callable[[str], None]
STDOUT: Final = "-"


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """A journal in numbers. `aggregates`, `types`, `actors`: events by kind, type and actor; times are the envelopes'."""

    head: int
    events: int
    unreadable: int
    payload_bytes: int
    histories: int
    first_ts_ns: int
    last_ts_ns: int
    aggregates: dict[str, int]
    types: dict[str, int]
    actors: dict[str, int]


async def anchors_of(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> tuple[list[Anchor], list[str]]:
    """The anchors of the environment's journal, and why some objects are none."""
    anchors: list[Anchor] = []
    unreadable: list[str] = []
    storage = open_storage(environment, variables)
    try:
        async for key in storage.list(anchor_prefix(environment.name)):
            data = await storage.get(key)
            try:
                anchors.append(decode_anchor(data or b""))
            except Malformed as error:
                unreadable.append(f"{key}: {error.message}")
    finally:
        await storage.close()
    return anchors, unreadable


async def verify_journal(
    environment: ResolvedEnvironment, variables: Mapping[str, str], say: Say
) -> tuple[Verification, list[str]]:
    """The journal against itself and its anchors, and which anchors cannot be read.

    Raises:
        as `reading_journal`.
    """
    anchors, unreadable = await anchors_of(environment, variables)
    async with reading_journal(environment, variables, say) as journal:
        return await verify(journal, environment.name, CATALOGUE, anchors), unreadable


async def journal_stats(environment: ResolvedEnvironment, variables: Mapping[str, str], say: Say) -> Stats:
    """Count everything. Raises as `reading_journal`."""
    aggregates, types, actors = Counter[str](), Counter[str](), Counter[str]()
    histories = set[tuple[str, str]]()
    times: list[int] = []
    unreadable = size = 0
    async with reading_journal(environment, variables, say) as journal:
        head = await journal.head()
        async for batch in journal.replay(until=head):
            for message in batch:
                size += len(message.payload)
                if not isinstance(message, RecordedEvent):
                    unreadable += 1
                    continue
                envelope = message.envelope
                aggregates[envelope.aggregate] += 1
                types[envelope.type] += 1
                actors[envelope.actor] += 1
                histories.add((envelope.aggregate, envelope.aggregate_id))
                times = [min(times[0], envelope.ts_ns), max(times[1], envelope.ts_ns)] if times else [envelope.ts_ns] * 2
    return Stats(
        head=head,
        events=sum(types.values()),
        unreadable=unreadable,
        payload_bytes=size,
        histories=len(histories),
        first_ts_ns=times[0] if times else 0,
        last_ts_ns=times[1] if times else 0,
        aggregates=dict(sorted(aggregates.items())),
        types=dict(sorted(types.items())),
        actors=dict(sorted(actors.items())),
    )


async def export_journal(environment: ResolvedEnvironment, variables: Mapping[str, str], target: str, say: Say) -> Copied:
    """Write the journal into the file `target` ("-" = stdout); a file is there whole or not at all.

    Raises:
        Rejected: the file exists.
        Misconfigured: it cannot be written.
        Malformed: the journal has a hole.
    """
    async with reading_journal(environment, variables, say) as journal:
        with _written(target) as file:
            async for lines in exported(journal, environment.name):
                file.write(lines)
    end = msgspec.json.decode(lines, type=dict[str, Any])
    return Copied(end["messages"], end["sha256"], end["messages"])


@contextmanager
def _written(target: str) -> Iterator[IO[bytes]]:
    if target == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    if path.exists():
        raise Rejected("file-exists", f"{target} exists; it was left alone", mend="name another file")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as error:
        raise Misconfigured(
            f"{target} cannot be written: {error.strerror}", mend="name a file in a writable directory"
        ) from error
    finally:
        part.unlink(missing_ok=True)


async def import_journal(environment: ResolvedEnvironment, variables: Mapping[str, str], source: Path, say: Say) -> Copied:
    """Write the file `source` into the environment's journal, which must be empty or hold the file's beginning.

    An embedded server that is off runs meanwhile, and is made if there is none.

    Raises:
        Malformed: the file is damaged; nothing was written.
        Rejected: the journal holds something else, or is kept in memory.
        Misconfigured: the file cannot be read.
    """
    if environment.document.journal.backend == "memory":
        raise Rejected("journal-in-memory", f"the journal of {environment.name} is kept in memory: nothing can be imported")

    def lines() -> Iterator[bytes]:
        try:
            with source.open("rb") as file:
                yield from file
        except OSError as error:
            raise Misconfigured(f"{source} cannot be read: {error.strerror}") from error

    checked(lines(), environment.name)
    async with writing_journal(environment, variables, say) as journal:
        return await imported(journal, environment.name, lines)


@asynccontextmanager
async def writing_journal(environment: ResolvedEnvironment, variables: Mapping[str, str], say: Say) -> AsyncGenerator[Journal]:
    journal: Journal
    is_off = environment.is_embedded("journal") and environment.run is None
    if environment.document.journal.backend == "nats" and is_off:
        from ssmd.services.embedded_servers import start_nats  # noqa: PLC0415 - keeps other commands quick
        from ssmd.streams.journal_nats import NatsJournal  # noqa: PLC0415 - as above

        server = await start_nats(environment.directory / JOURNAL_DIRECTORY, sync_always=True, say=say)
        try:
            journal = await NatsJournal.open(server.url, environment.name, ensure=True)
            try:
                yield journal
            finally:
                await journal.close()
        finally:
            await server.stop()
        return
    journal = await open_journal(environment, variables)
    try:
        yield journal
    finally:
        await journal.close()
