"""`ssmd data`: what is stored for good, what is missing, what the connections do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ssmd.cli import (
    data_backfill,
    data_book,
    data_export,
    data_index,
    data_intervals,
    data_prune,
    data_quality,
    data_renormalize,
    data_repair_gaps,
    data_replay,
    data_verify,
)
from ssmd.cli.as_of import AsOfOption, as_of_given
from ssmd.cli.completion import complete_feed
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, checked_date, invocation_of, run
from ssmd.cli.output import Format, OutputOption, duration_of, print_json, print_table, say, thousands, time_of

if TYPE_CHECKING:
    from ssmd.projections.queries import DayInventory, GapLine, InventoryLine
    from ssmd.projections.views import Views
    from ssmd.wiring.environment import ResolvedEnvironment

Answer = TypeVar("Answer")
WHOLE_CHANNEL = "*"
"""`schemas.records.WHOLE_CHANNEL`, which would make --help slow."""

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="What is stored, and what is missing."
)

FeedOption = Annotated[
    str, typer.Option("--feed", metavar="NAME", help="Default: the environment's feed.", autocompletion=complete_feed)
]
DateOption = Annotated[str, typer.Option("--date", metavar="DATE", help="UTC date YYYY-MM-DD.", callback=checked_date)]


def ask(
    invocation: Invocation,
    environment: ResolvedEnvironment,
    question: Callable[[Views], Awaitable[Answer]],
    *projections: str,
    as_of: str = "",
) -> Answer:
    """The answer to a question on the named projections; what one should know about it goes to stderr.

    Args:
        as_of: as given on the command line, "" = now.
    """
    from ssmd.projections.views import QUERIED  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.views import asking_views  # noqa: PLC0415 - as above

    moment = as_of_given(as_of)
    needed = [one for one in QUERIED if one.name in projections]

    async def answered() -> Answer:
        async with asking_views(environment, invocation.variables, say, projections=needed, as_of=moment) as views:
            for warning in views.warnings():
                say(f"note: {warning}")
            return await question(views)

    return run(answered())


def feed_of(environment: ResolvedEnvironment, given: str) -> str:
    """The feed that is meant.

    Raises:
        Misconfigured: the environment captures another one.
    """
    from ssmd.errors import Misconfigured  # noqa: PLC0415 - keeps --help quick

    feed = environment.document.feed
    if given not in {"", feed}:
        raise Misconfigured(f'environment {environment.name} captures feed "{feed}", not "{given}"', mend=f"--feed {feed}")
    return feed


class By(StrEnum):
    """How an inventory is summed."""

    DAY = "day"
    KIND = "kind"


@app.command(
    "inventory",
    epilog=examples(
        "ssmd data inventory --feed kalshi",
        "ssmd data inventory --by day --from 2026-05-01 --to 2026-05-31",
        "ssmd data inventory --date 2026-05-14 -o json",
    ),
)
def inventory(
    ctx: typer.Context,
    feed: FeedOption = "",
    date: DateOption = "",
    date_from: Annotated[str, typer.Option("--from", metavar="DATE", help="First date.", callback=checked_date)] = "",
    date_to: Annotated[str, typer.Option("--to", metavar="DATE", help="Last date, inclusive.", callback=checked_date)] = "",
    by: Annotated[By | None, typer.Option("--by", help="One line a day, or a kind and connection. Default: both.")] = None,
    as_of: AsOfOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what is stored: sizes, records, status, quality and gaps by day, and by type, kind and connection.

    With -o json: an array of days (--by day), else of lines by kind.
    """
    from ssmd.projections import queries  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    name = feed_of(environment, feed)
    first, last = date or date_from, date or date_to

    async def asked(views: Views) -> tuple[list[DayInventory], list[InventoryLine]]:
        wants_days = by is By.DAY or (by is None and output is not Format.JSON)
        days = await queries.days_inventory(views, name, first, last) if wants_days else []
        return days, [] if by is By.DAY else await queries.inventory(views, name, first, last)

    days, lines = ask(invocation, environment, asked, "inventory", "quality", "gaps", as_of=as_of)
    if output is Format.JSON:
        print_json(days if by is By.DAY else lines)
        return
    empty = f"nothing of {name} is stored{f' for {date}' if date else ''}"
    if by is not By.KIND:
        _print_days(invocation, days, empty)
    if by is not By.DAY and (lines or by is By.KIND):
        _print_kinds(invocation, lines, empty)


def _print_days(invocation: Invocation, days: Sequence[DayInventory], empty: str) -> None:
    print_table(
        invocation,
        ["date", "status", ">raw lines", ">records", ">segments", ">bytes", ">quality", "gaps"],
        [
            (
                day.date,
                f"{day.status}, held by {', '.join(day.holds)}" if day.holds else day.status,
                thousands(day.lines),
                thousands(day.records),
                thousands(day.segments),
                thousands(day.size_bytes),
                "not assessed"
                if day.quality_ppm is None
                else f"{day.quality_ppm // 10_000}.{day.quality_ppm // 100 % 100:02} %",
                f"{day.gaps}, {day.open_gaps} of them open" if day.open_gaps else str(day.gaps),
            )
            for day in days
        ],
        empty=empty,
    )


def _print_kinds(invocation: Invocation, lines: Sequence[InventoryLine], empty: str) -> None:
    print_table(
        invocation,
        [
            "date",
            "type",
            "kind",
            "partition",
            "mapper",
            "status",
            ">segments",
            ">records",
            ">bytes",
            "first received",
            "last received",
        ],
        [
            (
                line.date,
                line.type,
                line.kind or "nothing sealed yet",
                line.partition,
                str(line.mapper) if line.mapper else "older" if line.status == "superseded" else "",
                line.status,
                thousands(line.segments),
                thousands(line.records),
                thousands(line.size_bytes),
                time_of(line.ts_recv_first_ns),
                time_of(line.ts_recv_last_ns),
            )
            for line in lines
        ],
        empty=empty,
    )


@app.command("gaps", epilog=examples("ssmd data gaps --feed kalshi --date 2026-05-14", "ssmd data gaps --ticker TICKER"))
def gaps(
    ctx: typer.Context,
    feed: FeedOption = "",
    date: DateOption = "",
    ticker: Annotated[str, typer.Option("--ticker", metavar="TICKER", help="Only holes that concern it, as it saw them.")] = "",
    as_of: AsOfOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show every known hole: from when to when, whom it concerned, why, and what shows it."""
    from ssmd.projections import queries  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    name = feed_of(environment, feed)
    lines = ask(invocation, environment, lambda views: queries.gaps(views, name, date, ticker or None), "gaps", as_of=as_of)
    if output is Format.JSON:
        print_json(lines)
        return
    print_table(
        invocation,
        ["from", "to", ">length", "connection", "tickers", "repaired", "cause", "evidence"],
        [
            (
                time_of(line.start_ns),
                "open" if line.end_ns is None else time_of(line.end_ns),
                "" if line.end_ns is None else duration_of(line.end_ns - line.start_ns),
                line.connection,
                scope_of(line),
                _repaired(line),
                line.cause,
                line.evidence,
            )
            for line in lines
        ],
        empty=f"no known gap of {ticker or name}{f' on {date}' if date else ''}",
    )


def scope_of(line: GapLine) -> str:
    """Whom a hole concerned, in words."""
    named = [ticker for ticker in line.tickers if ticker != WHOLE_CHANNEL]
    if not named:
        return f"all tickers of channel {line.channel}" if line.channel else "all tickers of the session"
    shown = ", ".join(named) if len(named) <= 3 else f"{', '.join(named[:2])} and {len(named) - 2} more"
    if len(named) < len(line.tickers):
        where = f"channel {line.channel}" if line.channel else "the channels without a ticker filter"
        return f"{shown}, and all tickers of {where}"
    return f"{shown}, on channel {line.channel}" if line.channel else shown


def _repaired(line: GapLine) -> str:
    if not line.repairs:
        return "no"
    records = sum(repair.records for repair in line.repairs)
    sources = ", ".join(sorted({repair.source for repair in line.repairs}))
    return f"{thousands(records)} records from {sources}"


@app.command("connections", epilog=examples("ssmd data connections --feed kalshi"))
def connections(ctx: typer.Context, feed: FeedOption = "", as_of: AsOfOption = "", output: OutputOption = Format.TABLE) -> None:
    """Show the sessions of each connection to the venue, and how each ended."""
    from ssmd.projections import queries  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    name = feed_of(environment, feed)
    lines = ask(invocation, environment, lambda views: queries.captures(views, name), "captures", as_of=as_of)
    if output is Format.JSON:
        print_json(lines)
        return
    print_table(
        invocation,
        ["connection", "session", "connected", "ended", "cause", "wire", "channels", ">gaps", ">findings", "url"],
        [
            (
                session.connection,
                session.session,
                time_of(session.connected_ns),
                time_of(session.ended_ns) or "lasts",
                session.cause,
                session.wire,
                ", ".join(sorted({one.channel for one in session.subscriptions})),
                session.gaps_opened,
                session.drifts,
                session.url,
            )
            for line in lines
            for session in line.sessions
        ],
        empty=f"no connection of {name} was ever made",
    )


for _module in (
    data_backfill,
    data_prune,
    data_quality,
    data_verify,
    data_replay,
    data_book,
    data_export,
    data_renormalize,
    data_repair_gaps,
    data_index,
    data_intervals,
):
    app.registered_commands.extend(_module.app.registered_commands)
app.add_typer(data_prune.hold_app, name="hold")
