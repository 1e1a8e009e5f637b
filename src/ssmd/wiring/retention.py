"""`ssmd data prune` and `ssmd data hold`: an environment's pruner, opened."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from ssmd.application.handler import Application
from ssmd.domain.catalogue import CATALOGUE
from ssmd.services.pruner import Pruner
from ssmd.wiring.archive_access import archive_of
from ssmd.wiring.archive_care import renew_manifests
from ssmd.wiring.backends import reading_journal
from ssmd.wiring.replica import open_replica

if TYPE_CHECKING:
    from ssmd.wiring.environment import ResolvedEnvironment
    from ssmd.wiring.quality import Asker


@asynccontextmanager
async def pruner_of(environment: ResolvedEnvironment, asker: Asker) -> AsyncGenerator[Pruner]:
    """The environment's pruner; manifests are as the journal says when it is left.

    Raises:
        Unavailable: journal or storage are away. Misconfigured: storage or replica cannot be opened.
    """
    async with AsyncExitStack() as stack:
        storage = archive_of(environment, asker.variables)
        stack.push_async_callback(storage.close)
        replica = open_replica(environment, asker.variables)
        if replica is not None:
            stack.push_async_callback(replica.close)
        journal = await stack.enter_async_context(reading_journal(environment, asker.variables, asker.say))
        application = Application(journal, CATALOGUE, asker.clock, asker.random, environment.config)
        before = await journal.head()
        yield Pruner(environment.name, environment.document.feed, storage, replica, journal, application, asker.actor)
        if await journal.head() != before:
            await renew_manifests(environment, journal, storage)


def retention_of(environment: ResolvedEnvironment) -> dict[str, int]:
    """Days by type as the environment says; types that are kept for ever are absent."""
    retention = environment.document.retention
    days = {"raw": retention.raw_days, "normalized": retention.normalized_days}
    return {type_: count for type_, count in days.items() if count}
