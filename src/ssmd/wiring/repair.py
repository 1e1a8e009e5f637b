"""`ssmd data verify --repair`: an environment's archive checked, mended from what there is, and checked again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

from ssmd.application.handler import Application
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import SsmdError, Unavailable
from ssmd.services import verifier
from ssmd.services.repair_sources import AbsentSource, Made, RawSource, ReplicaSource, Source, StreamSource, TapeSource
from ssmd.services.repairer import Repairer, journal_verified
from ssmd.wiring.archive_access import archive_of
from ssmd.wiring.archive_care import renew_manifests
from ssmd.wiring.backends import open_transport, reading_journal
from ssmd.wiring.own_spool import own_spool
from ssmd.wiring.replica import open_replica
from ssmd.wiring.tape import TAPES, mapper_of

if TYPE_CHECKING:
    from ssmd.archive.repair import Repair
    from ssmd.services.quality_assessor import Progress
    from ssmd.wiring.environment import ResolvedEnvironment
    from ssmd.wiring.quality import Asker


class Mended(NamedTuple):
    """What was found, what became of it, and what is found now (in a dry run: the same as before)."""

    before: verifier.Verification
    repairs: list[Repair]
    after: verifier.Verification


async def repair_archive(
    environment: ResolvedEnvironment, asker: Asker, scope: verifier.Scope, *, is_dry: bool, progress: Progress
) -> Mended:
    """Check, mend, check again; every damage, repair and sound partition is journaled.

    Raises:
        Unavailable: journal or storage are away. Misconfigured: another process repairs this archive.
    """
    async with AsyncExitStack() as stack:
        storage = archive_of(environment, asker.variables)
        stack.push_async_callback(storage.close)
        journal = await stack.enter_async_context(reading_journal(environment, asker.variables, asker.say))

        def checked(done: int, of: int) -> None:
            progress("objects read", done, of)

        before = await verifier.verify(storage, journal, scope, checked)
        application = Application(journal, CATALOGUE, asker.clock, asker.random, environment.config)
        spool = stack.enter_context(own_spool(environment, "repair"))
        repairs: list[Repair] = []
        if before.findings:
            made = Made(
                environment.name,
                environment.document.feed,
                environment.document.timezone,
                environment.document.archive.zstd_level,
                environment.document.archive.segment_bytes,
            )
            replica = open_replica(environment, asker.variables)
            if replica is not None:
                stack.push_async_callback(replica.close)
            sources: list[Source] = [
                *((ReplicaSource(replica),) if replica is not None else ()),
                await _stream(environment, asker.variables, made, stack),
                TapeSource(
                    lambda connection: environment.directory / TAPES / connection,
                    made,
                    mapper_of(environment.document.feed),
                ),
                RawSource(storage, made, mapper_of(environment.document.feed)),
            ]
            repairer = Repairer(storage, journal, application, sources, spool, asker.actor)
            repairs = await repairer.repair(scope, before, is_dry=is_dry, progress=progress)
        if is_dry:
            return Mended(before, repairs, before)
        if before.findings:
            await renew_manifests(environment, journal, storage)
        after = await verifier.verify(storage, journal, scope, checked) if before.findings else before
        await journal_verified(application, journal, scope, after, asker.actor)
        return Mended(before, repairs, after)


async def _stream(environment: ResolvedEnvironment, variables: Mapping[str, str], made: Made, stack: AsyncExitStack) -> Source:
    """The streams; where their server does not run, a source that says so."""
    try:
        if environment.document.transport.backend != "nats":
            raise Unavailable("the streams live in the process that runs the environment")
        transport = await open_transport(environment, variables)
    except SsmdError as error:
        return AbsentSource("stream", error.message)
    stack.push_async_callback(transport.close)
    return StreamSource(transport, made)
