"""`ssmd data renormalize`: today's mapper over a day's raw lines, held against the archived records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.archive_options import DayOption, FeedOption, feed_of
from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, thousands

if TYPE_CHECKING:
    from ssmd.transforms.renormalize import Comparison

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "renormalize", epilog=examples("ssmd data renormalize --date 2026-05-14", "ssmd data renormalize --date 2026-05-14 -o json")
)
def renormalize(
    ctx: typer.Context,
    date: DayOption,
    feed: FeedOption = "",
    mapper: Annotated[int, typer.Option("--mapper", min=0, help="Version whose records to compare with; 0 = today's.")] = 0,
    output: OutputOption = Format.TABLE,
) -> int:
    """Make a day's records again from its raw lines, and show where they differ from the archived ones.

    Nothing is written. Exit status 0: all are equal; 1: some differ.
    """
    from ssmd.exchanges.kalshi.normalize import KalshiMapper  # noqa: PLC0415 - keeps --help quick
    from ssmd.transforms.renormalize import compare  # noqa: PLC0415
    from ssmd.wiring.archive_access import reading_storage, wanted_of  # noqa: PLC0415

    if not date:
        raise typer.BadParameter("--date is needed")
    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    name = feed_of(environment, feed)
    wanted = wanted_of(environment, date)
    wanted = wanted._replace(mapper=mapper or wanted.mapper)

    async def compared() -> Comparison:
        async with reading_storage(environment, invocation.variables) as storage:
            return await compare(storage, wanted, lambda session: KalshiMapper(name, session))

    found = run(compared())
    if output is Format.JSON:
        print_json(found)
    else:
        print_fields(
            invocation,
            [
                ("archived", f"mapper {found.mapper_archived}: {_counts(found.archived)}"),
                ("made today", f"mapper {found.mapper_today}: {_counts(found.made)}"),
                ("differing", thousands(found.differing)),
            ],
        )
        if found.differences:
            print_table(
                invocation,
                ["session", ">n", ">index", "kind", "ticker", "archived", "made today"],
                [(d.session, d.n, d.index, d.kind, d.ticker, d.archived or "-", d.made or "-") for d in found.differences],
            )
    return OK if found.is_equal else NO


def _counts(by_kind: dict[str, int]) -> str:
    return ", ".join(f"{thousands(count)} {kind}" for kind, count in sorted(by_kind.items())) or "nothing"
