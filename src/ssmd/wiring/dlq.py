"""The dead letters of an environment, with today's code to try them with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from ssmd.application.handler import Application
from ssmd.clock import Clock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.services.dead_letters import DeadLetterOffice
from ssmd.streams.transport import Transport
from ssmd.wiring.backends import open_rows_store, open_transport, reading_journal
from ssmd.wiring.environment import ResolvedEnvironment


@asynccontextmanager
async def dead_letter_office(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    say: Callable[[str], None],
    clock: Clock,
    random: RandomBytes,
    actor: str,
) -> AsyncGenerator[DeadLetterOffice]:
    """Opened for one command. An environment that does not run has its events; frames are said to be out of reach.

    Raises:
        as `backends.reading_journal`.
    """
    from ssmd.exchanges.kalshi.normalize import KalshiMapper  # noqa: PLC0415 - see wiring.backends
    from ssmd.projections.troubles import DEAD_LETTERS  # noqa: PLC0415 - as above
    from ssmd.projections.views import freshest_views  # noqa: PLC0415 - as above
    from ssmd.services.normalized_archiver import MarketIntake  # noqa: PLC0415 - as above
    from ssmd.services.raw_archiver import RawIntake  # noqa: PLC0415 - as above

    document = environment.document
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(reading_journal(environment, variables, say))
        transport: Transport | None = None
        try:
            transport = await open_transport(environment, variables)
            stack.push_async_callback(transport.close)
        except Unavailable as error:
            say(f"note: frames and messages on streams are not told: {error.message}")
        is_away = environment.is_embedded("cache") and environment.run is None
        rows = open_rows_store(environment, variables) if document.cache.backend == "redis" and not is_away else None
        if rows is not None:
            stack.push_async_callback(rows.close)
        yield DeadLetterOffice(
            journal=journal,
            views=await freshest_views(rows, journal, [DEAD_LETTERS]),
            transport=transport,
            rows=rows,
            application=Application(journal, CATALOGUE, clock, random, environment.config),
            new_mapper=KalshiMapper,
            intakes={
                "raw": RawIntake(environment.name, document.feed, zone=document.timezone),
                "market": MarketIntake(environment.name, document.feed, zone=document.timezone),
            },
            actor=actor,
        )
