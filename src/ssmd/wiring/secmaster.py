"""The security master of one environment: its sync wired to the venue, and questions on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import NamedTuple

from ssmd.application.handler import Application
from ssmd.application.listings import Listings
from ssmd.clock import Clock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.secmaster_sync import Counts
from ssmd.errors import Misconfigured
from ssmd.identifiers import RandomBytes, uuid7
from ssmd.projections import queries
from ssmd.projections.secmaster import SECMASTER
from ssmd.services.secmaster.kalshi_markets import KalshiMarkets
from ssmd.services.secmaster.lifecycle import LifecycleFollower
from ssmd.services.secmaster.sync import SyncParts, sync
from ssmd.services.secmaster.venue import Scope
from ssmd.wiring.backends import open_journal, open_transport
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.venue_rest import open_rest
from ssmd.wiring.views import asking_views


class SyncPlan(NamedTuple):
    """What a sync is to do. Not `is_full` = only what changed since the last one was completed; `is_dry`: write nothing."""

    is_full: bool = True
    series: tuple[str, ...] = ()
    is_dry: bool = False


async def run_sync(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    plan: SyncPlan,
    *,
    clock: Clock,
    random: RandomBytes,
    actor: str,
    say: Callable[[int, int], None],
) -> Counts:
    """One comparison with the venue; what it came to.

    Raises:
        as `services.secmaster.sync.sync`, `open_rest` and `backends.open_journal`.
    """
    feed = environment.document.feed
    if feed != "kalshi":
        raise Misconfigured(f"feed {feed} has no security master yet, only kalshi has")
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_rest(environment, variables, clock, random))
        journal = await open_journal(environment, variables)
        stack.push_async_callback(journal.close)
        started_ns = clock.now_ns()
        parts = SyncParts(
            feed=feed,
            venue=KalshiMarkets(client, started_ns),
            listings=Listings(journal, CATALOGUE, clock, random, feed, environment.config, is_dry=plan.is_dry),
            application=Application(journal, CATALOGUE, clock, random, environment.config),
            say=say,
        )
        since_ns = 0 if plan.is_full else await _covered_ns(environment, variables)
        scope = Scope(since_ns, plan.series)
        return await sync(parts, scope, uuid7(started_ns, random), actor=actor, is_dry=plan.is_dry)


async def _covered_ns(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> int:
    """Up to when all changes are known; 0 = no run was completed: everything must be asked."""
    async with asking_views(environment, variables, projections=[SECMASTER]) as views:
        row = await queries.sync_status(views, environment.document.feed)
        return 0 if row is None else row.covered_ns


async def lifecycle_follower(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    stack: AsyncExitStack,
) -> LifecycleFollower | None:
    """What brings lifecycle messages into the security master, not started; None = this environment has no use for it.

    Raises:
        as `open_rest`, `backends.open_journal` and `backends.open_transport`.
    """
    document = environment.document
    if document.feed != "kalshi" or document.transport.backend != "nats" or document.journal.backend != "nats":
        return None
    client = await stack.enter_async_context(open_rest(environment, variables, clock, random))
    journal = await open_journal(environment, variables)
    stack.push_async_callback(journal.close)
    transport = await open_transport(environment, variables)
    stack.push_async_callback(transport.close)
    listings = Listings(journal, CATALOGUE, clock, random, document.feed, environment.config)
    return LifecycleFollower(
        transport, listings, KalshiMarkets(client), clock, random, env=environment.name, feed=document.feed
    )
