"""`ssmd data repair-gaps`: what was missed, asked for again."""

from __future__ import annotations

from typing import Annotated

import typer

from ssmd.cli.archive_options import FeedOption, feed_of
from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import checked_date, invocation_of, run
from ssmd.cli.output import Format, OutputOption, duration_of, print_json, print_table, say, time_of

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "repair-gaps",
    epilog=examples("ssmd data repair-gaps --dry-run", "ssmd data repair-gaps --feed kalshi --date 2026-05-14 -o json"),
)
def repair_gaps(
    ctx: typer.Context,
    feed: FeedOption = "",
    date: Annotated[
        str, typer.Option("--date", metavar="DATE", help="UTC date; default: the last 7 days.", callback=checked_date)
    ] = "",
    gap: Annotated[str, typer.Option("--gap", metavar="ID", help="Only this one, as `ssmd data gaps -o json` names it.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask nobody; say which gaps there are.")] = False,
    output: OutputOption = Format.TABLE,
) -> int:
    """Have the connectors ask the venue again for what was missed in gaps that are over and not repaired, the latest first.

    A connector does that by itself, some seconds after a gap; this is for those that it gave up. Where there is a
    Temporal, it is done every schedule.repair_minutes. A gap that somebody repaired meanwhile is left alone. Exit status 1:
    one could not be repaired.
    """
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring import gap_repair_run  # noqa: PLC0415 - as above
    from ssmd.wiring.gap_repair import Wanted  # noqa: PLC0415 - as above

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)
    outcomes = run(
        gap_repair_run.repair_gaps(
            environment,
            invocation.variables,
            Wanted(date, gap),
            invocation.clock,
            system_random,
            actor=invocation.actor(),
            say=say,
            is_dry=dry_run,
        )
    )
    if output is Format.JSON:
        print_json(outcomes)
    else:
        print_table(
            invocation,
            ["gap", "connection", "from", ">length", "cause", "result", "detail"],
            [
                (
                    one.gap_id,
                    one.connection,
                    time_of(one.start_ns),
                    duration_of(one.end_ns - one.start_ns),
                    one.cause,
                    one.result,
                    one.detail,
                )
                for one in outcomes
            ],
            empty=f"no gap{f' of {date}' if date else ' of the last 7 days'} is left to repair",
        )
    return OK if dry_run or all(one.is_done for one in outcomes) else NO
