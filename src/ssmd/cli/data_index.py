"""`ssmd data index`: the archive's sidecars, made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ssmd.cli.archive_options import DayOption, FeedOption, feed_of
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, say, thousands

if TYPE_CHECKING:
    from ssmd.archive.reindexing import Reindexed

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("index", epilog=examples("ssmd data index --date 2026-05-14", "ssmd data index --date 2026-05-14 -o json"))
def index(ctx: typer.Context, date: DayOption, feed: FeedOption = "", output: OutputOption = Format.TABLE) -> None:
    """Write the sidecars of a day that are absent or damaged; they make `ssmd data book` quick.

    The archivers write them behind each seal. They follow from the segments, which are not touched.
    """
    from ssmd.archive.reindexing import reindex  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.archive_access import reading_storage, wanted_of  # noqa: PLC0415

    if not date:
        raise typer.BadParameter("--date is needed")
    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)

    async def made() -> Reindexed:
        async with reading_storage(environment, invocation.variables) as storage:
            return await reindex(storage, wanted_of(environment, date))

    found = run(made())
    if output is Format.JSON:
        print_json({"date": date, "looked_at": found.looked_at, "written": found.written})
    else:
        say(f"{thousands(found.looked_at)} sidecars looked at, {thousands(len(found.written))} written")
