"""`ssmd data backfill`: a venue's past into the archive."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.archive_options import FeedOption, feed_of
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import checked_date, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, thousands

if TYPE_CHECKING:
    from ssmd.services.kalshi_rest.backfill import BackfilledDay

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "backfill",
    epilog=examples(
        "ssmd data backfill --feed kalshi --from 2026-05-01 --to 2026-05-14 --dry-run",
        "ssmd data backfill --from 2026-05-14 --to 2026-05-14 --ticker KXBTCD-26MAY1417-T73499.99 --candles 1",
    ),
)
def backfill(
    ctx: typer.Context,
    date_from: Annotated[str, typer.Option("--from", metavar="DATE", help="First date.", callback=checked_date)],
    date_to: Annotated[str, typer.Option("--to", metavar="DATE", help="Last date, before today.", callback=checked_date)],
    feed: FeedOption = "",
    ticker: Annotated[str, typer.Option("--ticker", metavar="TICKER", help="Only this market.")] = "",
    candles: Annotated[str, typer.Option("--candles", metavar="1|60|1440|none", help="Minutes of a candlestick.")] = "60",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the venue nothing; say what is there.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Fetch trades, settled markets and candlesticks of past days by REST, and archive them as backfilled.

    They stand in partitions of their own (backfill:all, backfill:TICKER), beside what was captured, never in its place;
    their records have no sid and no seq. There is no history of order books. A day that is complete is not fetched again;
    after an interruption the same command goes on.
    """
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.backfill import Wanted, run_backfill  # noqa: PLC0415 - as above

    if candles not in {"1", "60", "1440", "none"}:
        raise typer.BadParameter(f"--candles {candles!r} is none of 1, 60, 1440, none")
    if not date_from or not date_to:
        raise typer.BadParameter("--from and --to are needed")
    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)
    shows = sys.stderr.isatty()

    def progress(date: str, rows: int) -> None:
        if shows:
            sys.stderr.write(f"\r{date}: {rows:,} rows")

    def on_day(day: BackfilledDay) -> None:
        if shows:
            sys.stderr.write(f"\r{day.date}: {'there already' if day.was_there else 'to do' if dry_run else 'done'}\n")

    wanted = Wanted(date_from, date_to, ticker, 0 if candles == "none" else int(candles))
    days = run(
        run_backfill(
            environment,
            invocation.variables,
            wanted,
            invocation.clock,
            system_random,
            actor=invocation.actor(),
            progress=progress,
            on_day=on_day,
            is_dry=dry_run,
        )
    )
    if output is Format.JSON:
        print_json([day._asdict() for day in days])
        return
    print_table(
        invocation,
        ["date", "", ">trades", ">settled markets", ">candles"],
        [
            (day.date, "there already", "", "", "")
            if day.was_there
            else (day.date, "to do", "", "", "")
            if dry_run
            else (day.date, "fetched", thousands(day.trades), thousands(day.markets), thousands(day.candles))
            for day in days
        ],
    )
