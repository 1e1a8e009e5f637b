"""`ssmd data intervals`: an account of a date, ticker by ticker: what is verified, unverifiable, missing, repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.archive_options import FeedOption, feed_of
from ssmd.cli.as_of import AsOfOption, as_of_given
from ssmd.cli.data_quality import strip
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import checked_date, invocation_of
from ssmd.cli.output import Format, OutputOption, duration_of, print_json, print_table, time_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssmd.cli.invocation import Invocation
    from ssmd.projections.ticker_days import TickerDay
    from ssmd.projections.views import Views

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "intervals",
    epilog=examples(
        "ssmd data intervals --date 2026-05-14",
        "ssmd data intervals --date 2026-05-14 --ticker TICKER",
        "ssmd data intervals --date 2026-05-14 --ticker TICKER --channel trade -o json",
    ),
)
def intervals(
    ctx: typer.Context,
    date: Annotated[str, typer.Option("--date", metavar="DATE", help="UTC date YYYY-MM-DD.", callback=checked_date)],
    feed: FeedOption = "",
    ticker: Annotated[str, typer.Option("--ticker", metavar="TICKER", help="Only it, interval by interval.")] = "",
    channel: Annotated[
        str, typer.Option("--channel", metavar="NAME", help="Default: its book's, else its trades', else its quotes'.")
    ] = "",
    as_of: AsOfOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Account for every moment of a date: verified by the venue's count, unverifiable, missing, or repaired since.

    Intervals do not overlap; between them nothing was captured, or it is not assessed yet: a connection assesses what it
    holds each full hour, and whenever something ends. Answers from the journal; `data quality` reads the archive.
    """
    from ssmd.cli.data import ask  # noqa: PLC0415 - it imports this module
    from ssmd.projections.ticker_days import ticker_day, ticker_days  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    name = feed_of(environment, feed)
    moment = as_of_given(as_of)
    known_ns = invocation.clock.now_ns() if moment is None else moment.ts_ns or 0

    async def asked(views: Views) -> list[TickerDay]:
        if not ticker:
            return await ticker_days(views, name, date, channel=channel, known_ns=known_ns)
        found = await ticker_day(views, name, date, ticker, channel=channel, known_ns=known_ns)
        return [] if found is None else [found]

    days = ask(invocation, environment, asked, "quality", "gaps", as_of=as_of)
    if output is Format.JSON:
        print_json(days)
    elif ticker and days:
        _print_intervals(invocation, days[0])
    else:
        _print_tickers(invocation, days, f"nothing is known of {ticker or name} on {date}")


def _print_intervals(invocation: Invocation, day: TickerDay) -> None:
    print_table(
        invocation,
        ["from", "to", ">length", "verdict", "cause"],
        [
            (time_of(one.start_ns), time_of(one.end_ns), duration_of(one.end_ns - one.start_ns), one.verdict, one.cause)
            for one in day.intervals
        ],
    )


def _print_tickers(invocation: Invocation, days: Sequence[TickerDay], empty: str) -> None:
    first_ns = min((day.intervals[0].start_ns for day in days), default=0)
    last_ns = max((day.intervals[-1].end_ns for day in days), default=0)
    print_table(
        invocation,
        ["ticker", "channel", ">verified", ">unverifiable", ">missing", ">repaired", "# verified ? unverifiable ! missing"],
        [
            (
                day.ticker,
                day.channel,
                *(duration_of(ns) for ns in (day.verified_ns, day.unverifiable_ns, day.missing_ns, day.repaired_ns)),
                strip(tuple((one.start_ns, one.end_ns, one.verdict) for one in day.intervals), first_ns, last_ns),
            )
            for day in days
        ],
        empty=empty,
    )
