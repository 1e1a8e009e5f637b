"""A venue's past into an environment's archive: who asks, with which key, and where it goes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import date as calendar_date
from datetime import timedelta
from typing import Final, NamedTuple

from ssmd.application.handler import Application
from ssmd.archive.shelf_manifest import SCHEMA
from ssmd.clock import Clock, DayCalendar
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Misconfigured
from ssmd.identifiers import RandomBytes
from ssmd.services.kalshi_rest.backfill import Backfill, BackfilledDay, Destination
from ssmd.wiring.archive_access import reading_storage
from ssmd.wiring.backends import reading_journal
from ssmd.wiring.environment import ResolvedEnvironment

DAYS_MAX: Final = 3_660
SPOOL: Final = "spool-backfill"


class Wanted(NamedTuple):
    """Dates from `first` to `last` (inclusive, YYYY-MM-DD, in the environment's zone), of one market or ("") of all."""

    first: str
    last: str
    ticker: str = ""
    candle_minutes: int = 60


def dates_of(wanted: Wanted, today: str) -> list[str]:
    """The dates, oldest first.

    Raises:
        Misconfigured: they are the wrong way round, too many, or not over yet on `today`.
    """
    first, last = calendar_date.fromisoformat(wanted.first), calendar_date.fromisoformat(wanted.last)
    days = (last - first).days + 1
    if days < 1:
        raise Misconfigured(f"--from {wanted.first} is after --to {wanted.last}")
    if days > DAYS_MAX:
        raise Misconfigured(f"{days} days asked for; at most {DAYS_MAX}", mend="ask for a part of them")
    if wanted.last >= today:
        raise Misconfigured(f"{wanted.last} is not over (today is {today})", mend="--to a day before today")
    return [(first + timedelta(days=number)).isoformat() for number in range(days)]


async def run_backfill(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    wanted: Wanted,
    clock: Clock,
    random: RandomBytes,
    *,
    actor: str,
    progress: Callable[[str, int], None],
    on_day: Callable[[BackfilledDay], None],
    is_dry: bool = False,
) -> list[BackfilledDay]:
    """Bring the days that are not there; each is told to `on_day` when it is complete.

    Args:
        actor: who asked, for the journal.
        is_dry: look what is there and ask the venue nothing.

    Raises:
        Misconfigured: as `dates_of`; the environment has no such feed or storage.
        Unavailable, Rejected, Conflict: as `Backfill.day`; days told before are complete and stay so.
    """
    calendar = DayCalendar(environment.document.timezone)
    dates = dates_of(wanted, calendar.day_of(clock.now_ns())[0])
    days = []
    last_ns = calendar.day_of(calendar.start_ns(calendar_date.fromisoformat(wanted.last)))[1]
    async with _backfill(environment, variables, wanted, last_ns, clock, random, actor, progress) as backfill:
        for date in dates:
            if is_dry:
                day = BackfilledDay(date, await backfill.is_there(date, wanted.ticker))
            else:
                start_ns = calendar.start_ns(calendar_date.fromisoformat(date))
                day = await backfill.day(date, start_ns, calendar.day_of(start_ns)[1], wanted.ticker)
            on_day(day)
            days.append(day)
    return days


@asynccontextmanager
async def _backfill(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    wanted: Wanted,
    last_ns: int,
    clock: Clock,
    random: RandomBytes,
    actor: str,
    progress: Callable[[str, int], None],
) -> AsyncGenerator[Backfill]:
    from ssmd.services.kalshi_rest.history import VenueHistory  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.venue_rest import open_rest  # noqa: PLC0415 - as above

    async with (
        reading_storage(environment, variables) as storage,
        reading_journal(environment, variables) as journal,
        open_rest(environment, variables, clock, random) as client,
    ):
        application = Application(journal, CATALOGUE, clock, random, environment.config)
        destination = Destination(
            environment.name,
            environment.document.feed,
            SCHEMA,
            storage,
            application,
            environment.directory / SPOOL,
            actor,
        )
        yield Backfill(
            VenueHistory(client), destination, candle_minutes=wanted.candle_minutes, progress=progress, last_ns=last_ns
        )
