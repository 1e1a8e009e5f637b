"""What a whole trading day does besides asking its components: the security master's sync, the archive's verification."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from ssmd.clock import Clock
from ssmd.errors import Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.services.verifier import Scope, verify
from ssmd.streams.journal import Journal
from ssmd.wiring.archive_access import reading_storage
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.schedules import SYNCED_FEEDS
from ssmd.wiring.secmaster import SyncPlan, run_sync

_DAMAGE: Final = frozenset({"missing", "truncated", "longer", "flipped", "swapped", "unreadable"})
"""What keeps a day from completing. Manifests are written behind the seals, and what was never sealed harms nobody."""


def sync_of(
    environment: ResolvedEnvironment, variables: Mapping[str, str], clock: Clock, random: RandomBytes, actor: str
) -> Callable[[], Awaitable[str]] | None:
    """Asks the venue for what changed; None = the feed has no security master."""
    if environment.document.feed not in SYNCED_FEEDS:
        return None

    async def synced() -> str:
        return await sync_words(environment, variables, clock, random, actor, is_full=False)

    return synced


async def sync_words(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    actor: str,
    *,
    is_full: bool,
) -> str:
    """Sync, and say what it came to. Raises as `run_sync`."""
    counts = await run_sync(
        environment,
        variables,
        SyncPlan(is_full=is_full),
        clock=clock,
        random=random,
        actor=actor,
        say=lambda _done, _of: None,
    )
    return ", ".join(f"{name} {value}" for name, value in msgspec.structs.asdict(counts).items() if value)


def verify_of(
    environment: ResolvedEnvironment, variables: Mapping[str, str], journal: Journal
) -> Callable[[str], Awaitable[str]] | None:
    """Reads all that is archived of a date; None = the archive is in another process's memory."""
    if environment.document.storage.backend == "memory":
        return None

    async def verified(date: str) -> str:
        scope = Scope(environment.name, environment.document.feed, date)
        async with reading_storage(environment, variables) as storage:
            found = await verify(storage, journal, scope, lambda _done, _of: None)
        damage = [one for one in found.findings if one.problem in _DAMAGE]
        if damage:
            raise Unavailable(
                f"the archive of {date} is not whole: {len(damage)} objects, first {damage[0].key}: {damage[0].problem}",
                mend=f"ssmd data verify --date {date} --repair",
            )
        return f"{found.objects} objects"

    return verified
