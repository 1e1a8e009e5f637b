"""`ssmd data quality`: an environment's day measured, held against its venue, and journaled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from ssmd.application.handler import Application
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import SsmdError
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.identifiers import RandomBytes
from ssmd.projections import queries
from ssmd.projections.gaps import GAPS
from ssmd.projections.views import fold_views
from ssmd.quality.report import QualityReport, Told
from ssmd.services.quality_assessor import (
    Progress,
    assessed,
    changed_at,
    journal_quality,
    measure_day,
    reconcile,
    repairs_of,
)
from ssmd.wiring.archive_access import archive_of
from ssmd.wiring.archive_care import renew_manifests
from ssmd.wiring.backends import reading_journal

if TYPE_CHECKING:
    from ssmd.clock import Clock
    from ssmd.services.venue_trades import VenueTrades
    from ssmd.wiring.environment import ResolvedEnvironment


class Asker(NamedTuple):
    """Who wants it, with what."""

    variables: Mapping[str, str]
    clock: Clock
    random: RandomBytes
    actor: str
    say: Callable[[str], None]


async def assess_quality(
    environment: ResolvedEnvironment, asker: Asker, date: str, *, is_reconciled: bool, is_journaled: bool, progress: Progress
) -> QualityReport:
    """Measure `date`, and journal what it came to.

    Args:
        is_reconciled: ask the venue for its trades; one that cannot be asked is told in the report.

    Raises:
        Rejected: "nothing-archived".
        Malformed, Unavailable: a segment is damaged or absent, or storage or journal are away.
    """
    feed = environment.document.feed
    storage = archive_of(environment, asker.variables)
    try:
        async with reading_journal(environment, asker.variables, asker.say) as journal:
            position = await changed_at(journal, CATALOGUE.decode, feed, date)
            views = await fold_views(journal, None, [GAPS])
            repairs = repairs_of(await queries.gaps(views, feed, date))
            measures = await measure_day(
                storage,
                environment.name,
                feed,
                date,
                environment.document.timezone,
                lambda session: KalshiMapper(feed, session),
                progress,
            )
            told = Told(None, "it was not asked for")
            if is_reconciled:
                try:
                    async with _venue(environment, asker) as venue:
                        told = await reconcile(measures, venue, progress)
                except SsmdError as error:
                    told = Told(None, f"the venue could not be asked: {error.message}")
            found = await asyncio.to_thread(assessed, feed, date, measures, told, repairs)
            if is_journaled:
                application = Application(journal, CATALOGUE, asker.clock, asker.random, environment.config)
                if await journal_quality(application, found, position, asker.actor):
                    await renew_manifests(environment, journal, storage)
            return found.report
    finally:
        await storage.close()


@asynccontextmanager
async def _venue(environment: ResolvedEnvironment, asker: Asker) -> AsyncGenerator[VenueTrades]:
    """Whom to ask for the venue's trades. Raises as `open_rest`."""
    from ssmd.services.kalshi_rest.client import RestSettings  # noqa: PLC0415 - needed here alone
    from ssmd.services.venue_trades import VenueTrades  # noqa: PLC0415 - as above
    from ssmd.wiring.venue_rest import open_rest  # noqa: PLC0415 - as above

    settings = RestSettings(tries_max=5, deadline_s=60.0)
    async with open_rest(environment, asker.variables, asker.clock, asker.random, settings) as client:
        yield VenueTrades(client)
