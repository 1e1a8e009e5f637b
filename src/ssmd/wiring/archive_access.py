"""The archive of an environment, for those that read it: its storage, the mapper in force, a day's raw lines as a file."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ssmd.archive.reading import ALL_DAY, Wanted, Window, raw_chains, segment_content
from ssmd.archive.shelf_manifest import KINDS, raw_shelf, read_manifest
from ssmd.clock import SystemClock
from ssmd.errors import Misconfigured, Rejected, Unavailable
from ssmd.services.replayer import Replayer
from ssmd.wiring.backends import open_storage
from ssmd.wiring.environment import ResolvedEnvironment

if TYPE_CHECKING:
    from ssmd.archive.keys import Shelf
    from ssmd.archive.storage import Storage
    from ssmd.clock import Clock
    from ssmd.services.simulator.config import SimulatorConfig

CAPTURES_DIRECTORY: Final = "captures"


def archive_of(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> Storage:
    """The environment's storage, for reading; `close` it.

    Raises:
        Misconfigured: as `open_storage`; the archive is in the memory of another process.
    """
    if environment.document.storage.backend == "memory":
        raise Misconfigured(
            f"the archive of {environment.name} is kept in the memory of the process that writes it",
            mend=f"set storage.backend to local or s3 in exchanges/environments/{environment.name}.yaml",
        )
    return open_storage(environment, variables)


@asynccontextmanager
async def reading_storage(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> AsyncGenerator[Storage]:
    """As `archive_of`, closed at the end."""
    storage = archive_of(environment, variables)
    try:
        yield storage
    finally:
        await storage.close()


def wanted_of(
    environment: ResolvedEnvironment, date: str, kinds: tuple[str, ...] = (), tickers: tuple[str, ...] = (), mapper: int = 0
) -> Wanted:
    """The records of `date`: the current ones, or those that version `mapper` made."""
    return Wanted(environment.name, environment.document.feed, date, mapper, kinds or KINDS, frozenset(tickers))


@asynccontextmanager
async def day_as_capture(
    environment: ResolvedEnvironment, variables: Mapping[str, str], date: str, window: Window = ALL_DAY, ticker: str = ""
) -> AsyncGenerator[Path]:
    """A date's raw lines as one capture file that the simulated venue plays; removed at the end.

    Args:
        window, ticker: as of `Replayer.raw`.

    Raises:
        Rejected: "nothing-archived".
        Malformed, Unavailable: a segment is damaged or absent, or the storage is away.
    """
    shelf = raw_shelf(environment.name, environment.document.feed, date)
    directory = environment.directory / CAPTURES_DIRECTORY
    async with reading_storage(environment, variables) as storage:
        manifest = await read_manifest(storage, shelf)
        if manifest is None or not manifest.segments:
            raise Rejected(
                "nothing-archived",
                f"nothing of {shelf.feed} is archived for {date} in {environment.name}",
                mend="ssmd data inventory",
            )
        try:
            await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=directory, prefix=f"{date}-", suffix=".jsonl") as target:
                if window == ALL_DAY and not ticker:
                    pieces = _stored(storage, shelf)
                else:
                    player = Replayer(storage, shelf.env, shelf.feed, clock=SystemClock(), sleep=asyncio.sleep)
                    pieces = player.raw(date, window=window, ticker=ticker)
                async for content in pieces:
                    await asyncio.to_thread(target.write, content)
                target.flush()
                yield Path(target.name)
        except OSError as error:
            raise Unavailable(f"{directory}: {error.strerror or error}", mend="make room, or the directory writable") from error


async def _stored(storage: Storage, shelf: Shelf) -> AsyncIterator[bytes]:
    """What the segments hold, connection by connection: the simulated venue plays each by itself."""
    for chain in await raw_chains(storage, shelf):
        for one in chain:
            async for content in segment_content(storage, one.key, one.segment):
                yield content


def run_day(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    date: str,
    config: SimulatorConfig,
    clock: Clock,
    started: Callable[[Mapping[str, str]], None],
    window: Window = ALL_DAY,
    ticker: str = "",
) -> None:
    """`wiring.simulate.run_simulator` with an archived day for a capture; blocks. Raises as both."""
    from ssmd.wiring.simulate import run_simulator  # noqa: PLC0415 - needed here alone

    with asyncio.Runner() as runner:
        day = day_as_capture(environment, variables, date, window, ticker)
        path = runner.run(day.__aenter__())
        try:
            run_simulator(msgspec.structs.replace(config, capture=str(path)), clock, started)
        finally:
            runner.run(day.__aexit__(None, None, None))
