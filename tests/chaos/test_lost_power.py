"""Power failures of the servers: their stores come back as they were some time ago, under a running system."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ssmd.clock import SystemClock, date_of
from ssmd.errors import Malformed
from ssmd.identifiers import system_random
from ssmd.projections.views import freshest_views
from ssmd.registry.bootstrap import write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services.chaos.checks import check_archive, check_seals
from ssmd.services.chaos.reference import contents, reference
from ssmd.services.connector.tape_follower import Names
from ssmd.services.processes import mark_of
from ssmd.services.supervisor import RestartPolicy
from ssmd.settings import Workspace, variables
from ssmd.streams.control import ControlClient
from ssmd.streams.journal import Journal, RecordedEvent
from ssmd.wiring.backends import JOURNAL_DIRECTORY, open_journal, open_rows_store, open_storage
from ssmd.wiring.chaos import ENV, ENVIRONMENT
from ssmd.wiring.environment import resolve_environment
from ssmd.wiring.system import TRANSPORT_DIRECTORY, LocalSystem
from ssmd.wiring.tape import mapper_of, tape_directory

CLOCK = SystemClock()
SLOW_RESTART = RestartPolicy(limit=1000, first_s=1.0, max_s=1.0)
"""Time to change a store before its server is started again."""


@asynccontextmanager
async def system_in(directory: Path) -> AsyncIterator[LocalSystem]:
    text = ENVIRONMENT.format(seed=3, markets=6, rate=400)
    write_registry(directory, {ENV: text}, definition_sha256())
    environment = resolve_environment(Workspace(directory), ENV, date_of(CLOCK.now_ns()))
    async with LocalSystem(environment, dict(variables()), CLOCK, lambda _: None, policy=SLOW_RESTART) as system:
        await system.until_capturing()
        yield system


def store_of(system: LocalSystem, server: str) -> Path:
    return system.environment.directory / server / "jetstream"


async def copy_store(system: LocalSystem, server: str) -> Path:
    """What a power failure now would leave."""
    copy = store_of(system, server).with_name("older")
    async with asyncio.timeout(60):
        while True:
            try:
                await asyncio.to_thread(shutil.copytree, store_of(system, server), copy)
            except shutil.Error:  # a file went away while it was copied
                shutil.rmtree(copy)
            else:
                return copy


async def replace_by(system: LocalSystem, server: str, copy: Path) -> None:
    """The power goes, and the server comes back with the older store."""
    pid = system.supervisor.kill(server)
    async with asyncio.timeout(30):
        while mark_of(pid) is not None:
            await asyncio.sleep(0.005)
    store = store_of(system, server)
    store.rename(store.with_name("lost"))
    copy.rename(store)
    await asyncio.sleep(0.1)
    await system.supervisor.wait_ready(server, deadline_s=30)


async def frames(system: LocalSystem) -> int:
    return int((await system.health("connector"))["stats"]["frames"])


async def until_frames(system: LocalSystem, count: int) -> None:
    async with asyncio.timeout(60):
        while True:
            stats = (await system.health("connector"))["stats"]
            if int(stats["frames"]) >= count and stats["unacked"] == 0:
                return
            await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
async def test_older_stores_a_transport_is_filled_again_from_the_tape_and_a_journal_stops_queries(tmp_path: Path) -> None:
    """One system for both: the journal's power fails when that of the transport is got over."""
    async with system_in(tmp_path) as system:
        environment = system.environment
        await until_frames(system, 600)
        copy = await copy_store(system, TRANSPORT_DIRECTORY)
        await until_frames(system, await frames(system) + 800)
        await replace_by(system, "nats-transport", copy)
        await system.until_capturing()
        await until_frames(system, await frames(system) + 400)
        assert int((await system.health("connector"))["stats"]["refills"]) >= 1
        journal = await open_journal(environment, system.variables)
        early = await journal.head()
        copy = await copy_store(system, JOURNAL_DIRECTORY)
        async with asyncio.timeout(60):
            while await journal.head() < early + 6:
                await asyncio.sleep(0.05)
        await system.supervisor.stop("connector")
        await check_refilled(system, journal, tmp_path)
        # Nothing may be written to the older journal before it is looked at: what writes is stopped.
        for component in ("raw-archiver", "normalized-archiver"):
            await system.supervisor.stop(component)
        await check_lost(system, journal, early, copy)


async def check_refilled(system: LocalSystem, journal: Journal, directory: Path) -> None:
    """What the connector captured until it was stopped is archived as without the failure, and each archiver told of it."""
    environment = system.environment
    client = await ControlClient.open(environment.server_url("transport", system.variables), ENV)
    for archiver in ("raw-archiver", "normalized-archiver"):
        assert (await client.request(archiver, "main", "flush", 60.0))["ok"]
    await client.close()
    storage = open_storage(environment, system.variables)
    seals = await check_seals(journal, storage)
    assert seals.is_ok, seals.detail
    regressed = 0
    async for batch in journal.replay(filters=["archive"]):
        envelopes = [one.envelope for one in batch if isinstance(one, RecordedEvent)]
        regressed += sum("stream-regressed" in envelope.type for envelope in envelopes)
    assert regressed == 2, "each archiver says that its stream lost what was sealed"
    expected = await reference(
        tape_directory(environment),
        Names(ENV, "kalshi", "main"),
        mapper_of("kalshi"),
        clock=CLOCK,
        random=system_random,
        spool=directory / "reference",
        settings=environment.document.archive,
    )
    checks = check_archive(expected, await contents(storage))
    assert [check.detail for check in checks if not check.is_ok] == []
    assert len(checks) == 6


async def check_lost(system: LocalSystem, journal: Journal, early: int, copy: Path) -> None:
    """The journal comes back as it was at `early`: queries stop, and all name what was lost."""
    head = await journal.head()
    async with asyncio.timeout(60):
        while (await system.health("projector"))["stats"]["position"] < head:
            await asyncio.sleep(0.05)
    await journal.close()
    await replace_by(system, "nats-journal", copy)
    journal = await open_journal(system.environment, system.variables)
    store = open_rows_store(system.environment, system.variables)
    left = await journal.head()
    assert early <= left < head
    with pytest.raises(Malformed, match=rf"events {left + 1}\.\.{head} are lost from the journal"):
        await freshest_views(store, journal)
    async with asyncio.timeout(60):
        while "are lost from the journal" not in (await system.health("projector"))["reason"]:
            await asyncio.sleep(0.05)
    await store.close()
    await journal.close()
