"""`ssmd data renormalize`: an environment's day made anew from its raw lines, compared, written, journaled."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ssmd.application.handler import Application
from ssmd.clock import DayCalendar
from ssmd.domain.catalogue import CATALOGUE
from ssmd.services.renormalizer import Progress, Renormalization, Renormalizer
from ssmd.wiring.archive_access import archive_of
from ssmd.wiring.archive_care import renew_manifests
from ssmd.wiring.backends import reading_journal
from ssmd.wiring.own_spool import own_spool
from ssmd.wiring.tape import mapper_of

if TYPE_CHECKING:
    from ssmd.wiring.environment import ResolvedEnvironment
    from ssmd.wiring.quality import Asker


async def renormalize_day(
    environment: ResolvedEnvironment, asker: Asker, date: str, *, is_dry: bool, mapper: int, progress: Progress
) -> Renormalization:
    """Compare `date`, and write its records anew where an older mapper made them.

    Args:
        mapper: version to compare with, 0 = the current records.

    Raises:
        As `Renormalizer.run` and `own_spool`.
    """
    document = environment.document
    calendar = DayCalendar(document.timezone)
    async with AsyncExitStack() as stack:
        spool = stack.enter_context(own_spool(environment, "renormalize"))
        storage = archive_of(environment, asker.variables)
        stack.push_async_callback(storage.close)
        journal = await stack.enter_async_context(reading_journal(environment, asker.variables, asker.say))
        renormalizer = Renormalizer(
            environment.name,
            document.feed,
            storage,
            journal,
            Application(journal, CATALOGUE, asker.clock, asker.random, environment.config),
            mapper_of(document.feed),
            lambda ns: calendar.day_of(ns)[0],
            document.archive.zstd_level,
            document.archive.segment_bytes,
            spool,
            asker.actor,
        )
        found = await renormalizer.run(date, is_dry=is_dry, mapper=mapper, progress=progress)
        if not is_dry:
            await renew_manifests(environment, journal, storage)  # also what a run that was killed left unwritten
        return found
