"""`/v1/days...`, history, inventory, gaps, quality, captures: answers of `projections.queries`, each with its coverage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ssmd.errors import Rejected, Unavailable
from ssmd.gateway.answers import json_answer
from ssmd.gateway.operations import CURSOR, DATE_FORM, LIMIT, Given, Operation, Parameter, page_of
from ssmd.projections import queries
from ssmd.projections.days import Day, HistoryLine
from ssmd.projections.quality import PartitionQuality
from ssmd.projections.queries import CaptureLine, GapLine, InventoryLine
from ssmd.projections.ticker_days import TickerDay
from ssmd.projections.views import Views

Answer = TypeVar("Answer")
OpenViews = Callable[[], AbstractAsyncContextManager[Views]]


class RecordsCoverage(msgspec.Struct, frozen=True):
    """What an answer rests on.

    Attributes:
        position: it includes every event of the journal up to this position, at least.
        source: cache, cache+journal, or journal: where it was read.
        warnings: what else one should know of it.
    """

    position: int
    source: str
    warnings: tuple[str, ...]


class Days(msgspec.Struct, frozen=True):
    days: tuple[Day, ...]
    cursor: str | None
    coverage: RecordsCoverage


class DayAnswer(msgspec.Struct, frozen=True):
    day: Day
    coverage: RecordsCoverage


class History(msgspec.Struct, frozen=True):
    """Who did what, when and why, in the order in which it was written."""

    date: str
    lines: tuple[HistoryLine, ...]
    cursor: str | None
    coverage: RecordsCoverage


class Inventory(msgspec.Struct, frozen=True):
    feed: str
    lines: tuple[InventoryLine, ...]
    cursor: str | None
    coverage: RecordsCoverage


class Gaps(msgspec.Struct, frozen=True):
    """Holes by start. `end_ns` null = open."""

    feed: str
    gaps: tuple[GapLine, ...]
    cursor: str | None
    coverage: RecordsCoverage


class Quality(msgspec.Struct, frozen=True):
    """`tickers`: what of the date is verified, unverifiable, missing and repaired, in nanoseconds, by ticker; `intervals` do
    not overlap, and the sums are theirs.
    """

    feed: str
    date: str
    partitions: tuple[PartitionQuality, ...]
    tickers: tuple[TickerDay, ...]
    cursor: str | None
    coverage: RecordsCoverage


class Captures(msgspec.Struct, frozen=True):
    feed: str
    captures: tuple[CaptureLine, ...]
    coverage: RecordsCoverage


_DATE: Final = Parameter("date", "UTC date YYYY-MM-DD", form=DATE_FORM)
DAYS: Final = Operation("listDays", "/v1/days", "records", "Trading days, oldest first", Days, (LIMIT, CURSOR))
DAY: Final = Operation(
    "getDay",
    "/v1/days/{date}",
    "records",
    "Where a trading day stands; one nobody started is pending",
    DayAnswer,
    (_DATE._replace(in_path=True),),
)
HISTORY: Final = Operation(
    "listHistory", "/v1/history", "records", "What happened on a trading day", History, (_DATE, LIMIT, CURSOR)
)
INVENTORY: Final = Operation(
    "listInventory",
    "/v1/inventory",
    "records",
    "What is stored, by date, type, partition and kind",
    Inventory,
    (
        Parameter("from", "first date, inclusive", form=DATE_FORM),
        Parameter("to", "last date, inclusive", form=DATE_FORM),
        LIMIT,
        CURSOR,
    ),
)
GAPS: Final = Operation(
    "listGaps",
    "/v1/gaps",
    "records",
    "Known holes in what was received",
    Gaps,
    (_DATE, Parameter("ticker", "only holes that concern it"), LIMIT, CURSOR),
)
QUALITY: Final = Operation(
    "listQuality", "/v1/quality", "records", "What a date's data is worth", Quality, (_DATE, LIMIT, CURSOR)
)
CAPTURES: Final = Operation("listCaptures", "/v1/captures", "records", "Connections and their sessions", Captures)
OPERATIONS: Final = (DAYS, DAY, HISTORY, INVENTORY, GAPS, QUALITY, CAPTURES)


class RecordRoutes:
    """The REST handlers over the projections.

    Args:
        open_views: views as fresh as the journal; None = this gateway has no journal.
        today: the date that is meant where none is given.
    """

    def __init__(self, feed: str, open_views: OpenViews | None, today: Callable[[], str]) -> None:
        self._feed = feed
        self._open_views = open_views
        self._today = today

    def routes(self) -> list[Route]:
        return [
            Route("/v1/days", self.days, methods=["GET"]),
            Route("/v1/days/{date}", self.day, methods=["GET"]),
            Route("/v1/history", self.history, methods=["GET"]),
            Route("/v1/inventory", self.inventory, methods=["GET"]),
            Route("/v1/gaps", self.gaps, methods=["GET"]),
            Route("/v1/quality", self.quality, methods=["GET"]),
            Route("/v1/captures", self.captures, methods=["GET"]),
        ]

    async def _ask(self, question: Callable[[Views], Awaitable[Answer]]) -> tuple[Answer, RecordsCoverage]:
        if self._open_views is None:
            raise Unavailable("this gateway has no journal to read from", mend="start it with its environment: ssmd up")
        async with self._open_views() as views:
            found = await question(views)
            return found, RecordsCoverage(views.position, views.source, views.warnings())

    async def days(self, request: Request) -> Response:
        given = Given(request, DAYS)
        found, coverage = await self._ask(queries.days)
        page = page_of(found, lambda day: (day.date,), given.number("limit"), given.text("cursor"))
        return json_answer(request, Days(page.items, page.cursor, coverage))

    async def day(self, request: Request) -> Response:
        Given(request, DAY)
        day = _checked(str(request.path_params["date"]))
        found, coverage = await self._ask(lambda views: queries.day_status(views, day))
        return json_answer(request, DayAnswer(found, coverage))

    async def history(self, request: Request) -> Response:
        given = Given(request, HISTORY)
        day = self._date(given)
        found, coverage = await self._ask(lambda views: queries.day_history(views, day))
        lines = sorted(enumerate(found.lines), key=lambda one: (one[1].position, one[0]))
        page = page_of(lines, lambda one: (one[1].position, one[0]), given.number("limit"), given.text("cursor"))
        return json_answer(request, History(day, tuple(line for _, line in page.items), page.cursor, coverage))

    async def inventory(self, request: Request) -> Response:
        given = Given(request, INVENTORY)
        first, last = (given.text(name) and _checked(given.text(name)) for name in ("from", "to"))
        found, coverage = await self._ask(lambda views: queries.inventory(views, self._feed, first, last))
        lines = sorted(found, key=_inventory_key)
        page = page_of(lines, _inventory_key, given.number("limit"), given.text("cursor"))
        return json_answer(request, Inventory(self._feed, page.items, page.cursor, coverage))

    async def gaps(self, request: Request) -> Response:
        given = Given(request, GAPS)
        day = given.text("date") and _checked(given.text("date"))
        ticker = given.text("ticker") or None
        found, coverage = await self._ask(lambda views: queries.gaps(views, self._feed, day, ticker))
        lines = sorted(found, key=_gap_key)
        page = page_of(lines, _gap_key, given.number("limit"), given.text("cursor"))
        return json_answer(request, Gaps(self._feed, page.items, page.cursor, coverage))

    async def quality(self, request: Request) -> Response:
        given = Given(request, QUALITY)
        day = self._date(given)
        (partitions, tickers), coverage = await self._ask(lambda views: queries.quality(views, self._feed, day))
        lines: Sequence[TickerDay] = sorted(tickers, key=lambda one: one.ticker)
        page = page_of(lines, lambda one: (one.ticker,), given.number("limit"), given.text("cursor"))
        return json_answer(request, Quality(self._feed, day, tuple(partitions), page.items, page.cursor, coverage))

    async def captures(self, request: Request) -> Response:
        Given(request, CAPTURES)
        found, coverage = await self._ask(lambda views: queries.captures(views, self._feed))
        return json_answer(request, Captures(self._feed, tuple(found), coverage))

    def _date(self, given: Given) -> str:
        return _checked(given.text("date") or self._today())


def _inventory_key(line: InventoryLine) -> tuple[Any, ...]:
    return line.date, line.type, line.partition, line.kind, line.status


def _gap_key(gap: GapLine) -> tuple[Any, ...]:
    return gap.start_ns, gap.connection, gap.session, gap.gap_id, gap.channel


def _checked(text: str) -> str:
    """`text` if there is such a day.

    Raises:
        Rejected: parameter-value.
    """
    try:
        is_day = len(text) == len("2026-05-14") and date.fromisoformat(text).year > 0
    except ValueError:
        is_day = False
    if not is_day:
        raise Rejected("parameter-value", f"not a calendar date YYYY-MM-DD: {text[:32]!r}")
    return text
