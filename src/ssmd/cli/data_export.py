"""`ssmd data export`: a day's records as files for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.archive_options import (
    DayOption,
    DuplicatesOption,
    FeedOption,
    FromOption,
    KindsOption,
    MapperOption,
    TickersOption,
    ToOption,
    feed_of,
    window_of,
)
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, thousands

if TYPE_CHECKING:
    from ssmd.transforms.export import Exported

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class FileFormat(StrEnum):
    """What `transforms.export` writes."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"
    CAPNP = "capnp"


@app.command(
    "export",
    epilog=examples(
        "ssmd data export --date 2026-05-14 --format parquet --into data",
        "ssmd data export --date 2026-05-14 --format csv --kind trade --ticker T",
    ),
)
def export(
    ctx: typer.Context,
    date: DayOption,
    feed: FeedOption = "",
    file_format: Annotated[
        FileFormat, typer.Option("--format", help="Parquet needs the extra ssmd[export].")
    ] = FileFormat.PARQUET,
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="Where the files go.")] = Path(),
    kind: KindsOption = None,
    ticker: TickersOption = None,
    start: FromOption = "",
    end: ToOption = "",
    mapper: MapperOption = 0,
    duplicates: DuplicatesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Write a day's records, one file a kind, in order, with exact prices and sizes."""
    from ssmd.archive.shelf_manifest import check_kinds  # noqa: PLC0415 - keeps --help quick
    from ssmd.transforms.export import Request  # noqa: PLC0415
    from ssmd.transforms.export import export as export_files  # noqa: PLC0415
    from ssmd.wiring.archive_access import reading_storage, wanted_of  # noqa: PLC0415

    if not date:
        raise typer.BadParameter("--date is needed")
    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)
    check_kinds(kind or ())
    wanted = wanted_of(environment, date, tuple(kind or ()), tuple(ticker or ()), mapper)
    wanted = wanted._replace(window=window_of(date, start, end), keeps_duplicates=duplicates)
    request = Request(wanted, file_format.value, into)

    async def exported() -> list[Exported]:
        async with reading_storage(environment, invocation.variables) as storage:
            return await export_files(storage, request)

    made = run(exported())
    if output is Format.JSON:
        print_json(made)
        return
    print_table(
        invocation,
        ["kind", ">records", ">bytes", "file"],
        [(one.kind, thousands(one.records), thousands(one.size_bytes), one.path) for one in made],
        empty=f"no such record is archived for {date}",
    )
