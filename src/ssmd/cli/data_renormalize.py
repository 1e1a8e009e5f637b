"""`ssmd data renormalize`: today's mapper over a day's raw lines; a new version of its records beside the old, and a diff."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.archive_options import DayOption, FeedOption, feed_of
from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, say, thousands
from ssmd.cli.progress import ProgressLine

if TYPE_CHECKING:
    from ssmd.cli.invocation import Invocation
    from ssmd.services.renormalizer import PartitionOutcome, Renormalization

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "renormalize",
    epilog=examples(
        "ssmd data renormalize --date 2026-05-14 --dry-run",
        "ssmd data renormalize --date 2026-05-14",
        "ssmd data renormalize --date 2026-05-14 --dry-run --mapper 1 -o json",
    ),
)
def renormalize(
    ctx: typer.Context,
    date: DayOption,
    feed: FeedOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the differences, write nothing.")] = False,
    mapper: Annotated[
        int, typer.Option("--mapper", min=0, help="Version whose records to compare with. Default: the current ones.")
    ] = 0,
    output: OutputOption = Format.TABLE,
) -> int:
    """Make a day's records again from its raw lines, show where they differ, and write them beside the old.

    Written is what an older version of the mapper made; readers take the new version from then on, and the old one with
    --mapper N. A day of today's version is only compared.

    Exit status 0: the new version is written, or there was nothing to do and all are equal; 1: some differ (with --dry-run,
    or of today's version), or a connection's day is open and was left as it is; 2: it could not be done.
    """
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.quality import Asker  # noqa: PLC0415
    from ssmd.wiring.renormalize import renormalize_day  # noqa: PLC0415

    if not date:
        raise typer.BadParameter("--date is needed")
    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)
    asker = Asker(invocation.variables, invocation.clock, system_random, invocation.actor(), say)
    line = ProgressLine()
    try:
        found = run(renormalize_day(environment, asker, date, is_dry=dry_run, mapper=mapper, progress=line))
    finally:
        line.end()
    if output is Format.JSON:
        print_json({"is_dry_run": dry_run, "comparison": found.comparison, "partitions": found.partitions})
    else:
        _print(invocation, found, is_dry=dry_run)
    return OK if found.is_well else NO


def _print(invocation: Invocation, found: Renormalization, *, is_dry: bool) -> None:
    compared = found.comparison
    versions = " and ".join(map(str, compared.mappers_archived))
    print_fields(
        invocation,
        [
            ("archived", f"mapper {versions}: {_counts(compared.archived)}"),
            ("made today", f"mapper {compared.mapper_today}: {_counts(compared.made)}"),
            ("differing", thousands(compared.differing)),
        ],
    )
    if compared.differences:
        print_table(
            invocation,
            ["session", ">n", ">index", "kind", "ticker", "archived", "made today"],
            [(d.session, d.n, d.index, d.kind, d.ticker, d.archived or "-", d.made or "-") for d in compared.differences],
        )
    print_table(
        invocation,
        ["partition", "made by mapper", "", ">segments", ">records", ">bytes", ">differing"],
        [
            (
                one.partition,
                ", ".join(map(str, one.mappers)),
                _outcome(one, compared.mapper_today),
                thousands(one.segments) if one.segments else "",
                thousands(one.records) if one.segments else "",
                thousands(one.size_bytes) if one.segments else "",
                thousands(one.differing),
            )
            for one in found.partitions
        ],
    )
    if is_dry and any(one.state == "due" for one in found.partitions):
        say("nothing was written: without --dry-run the new version is written beside the old")


def _outcome(one: PartitionOutcome, version: int) -> str:
    match one.state:
        case "current":
            return "nothing to do"
        case "due":
            return f"to be written as m{version}"
        case "written":
            return f"written as m{version}"
        case _:
            return f"left as it is: {one.why_not}"


def _counts(by_kind: dict[str, int]) -> str:
    return ", ".join(f"{thousands(count)} {kind}" for kind, count in sorted(by_kind.items())) or "nothing"
