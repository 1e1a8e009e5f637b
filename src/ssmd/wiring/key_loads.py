"""Which keys a process loaded, and how the journal hears of it: later, so that no start waits for the journal."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from ssmd.application.handler import Application
from ssmd.clock import Clock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Rejected, SsmdError
from ssmd.identifiers import RandomBytes
from ssmd.keys.definition import KeyDefinition
from ssmd.keys.fingerprint import fingerprint
from ssmd.keys.journaling import record_load
from ssmd.keys.secret import Secret
from ssmd.streams.backoff import backoff_s
from ssmd.telemetry.structured import structlog
from ssmd.wiring.backends import open_journal
from ssmd.wiring.environment import ResolvedEnvironment

LOADS_MAX: Final = 64
"""Loads not told yet; the oldest go first."""
ATTEMPTS_MAX: Final = 20
RETRY_MAX_S: Final = 30.0


class Load(NamedTuple):
    """One loading. `access_id` identifies it towards the journal."""

    name: str
    definition: KeyDefinition
    fields: Mapping[str, Secret]
    access_id: str


class KeyLoads:
    """Collects the loads of one process. Loading the same value again is no news."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Load] = asyncio.Queue(LOADS_MAX)
        self._known: dict[str, Mapping[str, Secret]] = {}

    def note(self, name: str, definition: KeyDefinition, fields: Mapping[str, Secret]) -> None:
        """Key `name` was loaded. From the loop's thread only."""
        if not fields or self._known.get(name) == fields:
            return
        self._known[name] = fields
        if self._waiting.full():
            self._waiting.get_nowait()
        self._waiting.put_nowait(Load(name, definition, fields, secrets.token_hex(16)))

    async def next(self) -> Load:
        """Wait for one."""
        return await self._waiting.get()

    @asynccontextmanager
    async def journaled(
        self, environment: ResolvedEnvironment, variables: Mapping[str, str], clock: Clock, random: RandomBytes, process: str
    ) -> AsyncGenerator[None]:
        """Tell the journal of every load while the block lasts, in the name of `process` ("connector:main")."""
        if environment.document.journal.backend == "memory":
            yield  # its journal is another process's memory, or this one's component's own
            return
        telling = asyncio.create_task(self._tell(environment, variables, clock, random, process), name="key loads")
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell(
        self, environment: ResolvedEnvironment, variables: Mapping[str, str], clock: Clock, random: RandomBytes, process: str
    ) -> None:
        log = structlog.get_logger("keys")
        while True:
            load = await self.next()
            mark = await asyncio.to_thread(fingerprint, environment.name, load.name, load.fields)
            for attempt in range(1, ATTEMPTS_MAX + 1):
                try:
                    await _record(environment, variables, clock, random, process, load, mark)
                    break
                except Rejected as error:
                    log.warning("key-load-not-journaled", key=load.name, reason=error.message)
                    break
                except SsmdError as error:
                    if attempt == ATTEMPTS_MAX:
                        log.warning("key-load-not-journaled", key=load.name, reason=error.message)
                await asyncio.sleep(backoff_s(attempt, random, max_s=RETRY_MAX_S))


async def _record(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    process: str,
    load: Load,
    mark: str,
) -> None:
    journal = await open_journal(environment, variables)
    try:
        application = Application(journal, CATALOGUE, clock, random, environment.config)
        await record_load(application, load.name, load.definition, mark, process=process, access_id=load.access_id)
    finally:
        with suppress(SsmdError):
            await journal.close()
