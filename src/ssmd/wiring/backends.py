"""The backends an environment document names, opened. Each is imported when it is asked for, so that commands start quickly."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ssmd.errors import Misconfigured, Unavailable
from ssmd.identifiers import RandomBytes, system_random
from ssmd.services.run_file import live_run
from ssmd.wiring.environment import ResolvedEnvironment

if TYPE_CHECKING:
    from ssmd.archive.storage import Storage
    from ssmd.archive.storage_s3 import S3Access
    from ssmd.projections.store import RowStore
    from ssmd.streams.journal import Journal
    from ssmd.streams.journal_snapshots import Snapshots
    from ssmd.streams.transport import Transport

JOURNAL_DIRECTORY: Final = "nats-journal"
JOURNAL_FILE: Final = "journal.sqlite"
LOCK_WAIT_S: Final = 20.0
"""How long a query waits for another one that runs the journal's server for itself."""


def _not_built(environment: ResolvedEnvironment, section: str, backend: str, known: str) -> Misconfigured:
    return Misconfigured(
        f'{section}.backend of {environment.name} is "{backend}", which this version of ssmd does not have',
        mend=f"set {section}.backend to {known} in exchanges/environments/{environment.name}.yaml",
    )


async def open_journal(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> Journal:
    """The environment's journal.

    Raises:
        Unavailable: its server does not answer, or is embedded and not running.
    """
    match environment.document.journal.backend:
        case "nats":
            from ssmd.streams.journal_nats import NatsJournal  # noqa: PLC0415 - see the module

            return await NatsJournal.open(environment.server_url("journal", variables), environment.name)
        case "memory":
            from ssmd.streams.journal_memory import MemoryJournal  # noqa: PLC0415 - see the module

            return MemoryJournal(environment.name)
        case "sqlite":
            from ssmd.streams.journal_sqlite import SqliteJournal  # noqa: PLC0415 - see the module

            return await SqliteJournal.open(environment.directory / JOURNAL_FILE, environment.name)


def open_snapshots(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> Snapshots:
    """Where the environment's long histories are abbreviated; nothing is connected before it is used. `close` it."""
    if environment.document.journal.backend == "nats":
        from ssmd.streams.journal_snapshots import NatsSnapshots  # noqa: PLC0415 - see the module

        return NatsSnapshots(environment.server_url("journal", variables), environment.name)
    from ssmd.streams.journal_snapshots import MemorySnapshots  # noqa: PLC0415 - see the module

    return MemorySnapshots()


async def open_transport(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> Transport:
    """The environment's raw and market streams. Raises as `open_journal`."""
    match environment.document.transport.backend:
        case "nats":
            from ssmd.streams.transport_nats import NatsTransport  # noqa: PLC0415 - see the module

            return await NatsTransport.open(environment.server_url("transport", variables), environment.name)
        case "memory":
            from ssmd.streams.transport_memory import MemoryTransport  # noqa: PLC0415 - see the module

            return MemoryTransport()


def open_storage(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> Storage:
    """Where the environment's segments and manifests are; nothing is connected before it is used. `close` it.

    Raises:
        Misconfigured: the key of the bucket is not named, or has no value.
    """
    match environment.document.storage.backend:
        case "local":
            from ssmd.archive.storage_local import LocalStorage  # noqa: PLC0415 - see the module

            return LocalStorage(environment.archive_directory)
        case "s3":
            from ssmd.archive.storage_s3 import S3Storage  # noqa: PLC0415 - see the module

            return S3Storage(_s3_access(environment, variables))
        case backend:
            raise _not_built(environment, "storage", backend, "local or s3")


def _s3_access(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> S3Access:
    from ssmd.archive.storage_s3 import S3Access  # noqa: PLC0415 - see the module

    settings = environment.document.storage
    fields = environment.storage_key(variables)
    missing = [name for name in ("access_key", "secret_key") if name not in fields]
    if missing:
        raise Misconfigured(
            f'storage.key of {environment.name} is "{settings.key}", which gives no {" and no ".join(missing)}',
            mend="define a key of type opaque with fields: [access_key, secret_key], and write storage.key: $key:NAME",
        )
    return S3Access(
        bucket=settings.bucket,
        access_key=fields["access_key"].reveal(),
        secret_key=fields["secret_key"].reveal(),
        url=settings.url,
        region=settings.region,
        prefix=settings.prefix,
    )


def open_rows_store(
    environment: ResolvedEnvironment, variables: Mapping[str, str], random: RandomBytes = system_random
) -> RowStore:
    """Where the environment's views are kept.

    Raises:
        Unavailable: the cache is embedded and not running.
    """
    match environment.document.cache.backend:
        case "redis":
            from ssmd.projections.store_redis import RedisRowStore  # noqa: PLC0415 - see the module

            return RedisRowStore(environment.server_url("cache", variables), environment.name, random=random)
        case "memory":
            from ssmd.projections.store_memory import MemoryRowStore  # noqa: PLC0415 - see the module

            return MemoryRowStore()


@asynccontextmanager
async def reading_journal(
    environment: ResolvedEnvironment, variables: Mapping[str, str], say: Callable[[str], None] | None = None
) -> AsyncGenerator[Journal]:
    """The journal for questions, whether the environment runs or not: an embedded server that is off runs meanwhile.

    Args:
        say: told when a server of a crashed run was stopped.

    Raises:
        Unavailable: the environment has no journal yet, or its server does not answer.
    """
    settings = environment.document.journal
    if settings.backend == "memory":
        raise Misconfigured(
            f"the journal of {environment.name} is kept in the memory of the process that runs it: nothing can be read here",
            mend=f"set journal.backend to nats or sqlite in exchanges/environments/{environment.name}.yaml",
        )
    if settings.backend == "sqlite" and not (environment.directory / JOURNAL_FILE).is_file():
        raise Unavailable(f"{environment.name} has no journal yet", mend=f"ssmd up {environment.name}")
    if settings.backend != "nats" or not environment.is_embedded("journal"):
        journal = await open_journal(environment, variables)
        try:
            yield journal
        finally:
            await journal.close()
        return
    async with _embedded_journal(environment, say) as url:
        from ssmd.streams.journal_nats import NatsJournal  # noqa: PLC0415 - see the module

        journal = await NatsJournal.open(url, environment.name)
        try:
            yield journal
        finally:
            await journal.close()


@asynccontextmanager
async def _embedded_journal(environment: ResolvedEnvironment, say: Callable[[str], None] | None) -> AsyncGenerator[str]:
    """The url of the embedded journal's server: the running one, or one that runs for the block."""
    directory = environment.directory / JOURNAL_DIRECTORY
    from ssmd.services.embedded_servers import start_nats  # noqa: PLC0415 - see the module

    deadline_s = asyncio.get_running_loop().time() + LOCK_WAIT_S
    while True:
        url = await _running_url(environment, directory)
        if url:
            yield url
            return
        try:
            server = await start_nats(directory, sync_always=True, say=say)
        except Misconfigured as error:
            # Another question came between the look and the start: wait for it, too.
            if "in use by another" not in error.message or asyncio.get_running_loop().time() > deadline_s:
                raise
            await asyncio.sleep(0.05)
        else:
            break
    try:
        yield server.url
    finally:
        await server.stop()


async def _running_url(environment: ResolvedEnvironment, directory: Path) -> str:
    """Url of the server that runs, "" once none does and its directory is free; waits for others, with a limit."""
    try:
        async with asyncio.timeout(LOCK_WAIT_S):
            while True:
                run = live_run(environment.directory)
                if run is not None and run.endpoints.journal_url:
                    return run.endpoints.journal_url
                if not (directory / "jetstream").is_dir():
                    raise Unavailable(f"{environment.name} has no journal yet", mend=f"ssmd up {environment.name}")
                if not _is_locked(directory / "lock"):
                    return ""
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Unavailable(
            f"{directory} has been in use by another ssmd process for {LOCK_WAIT_S:g} s, which is no `ssmd up`",
            mend="wait for the other command, or stop it",
        ) from None


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock of an embedded server's directory."""
    try:
        with path.open("a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise Misconfigured(f"{path} cannot be opened: {error.strerror}", mend="choose a writable workspace") from error
    return False
