"""`ssmd data verify`: whether every archived object is there and is what was sealed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from ssmd.cli.archive_options import AnyDayOption, FeedOption, feed_of
from ssmd.cli.exit_status import NO, OK, TROUBLE
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say, thousands

if TYPE_CHECKING:
    from ssmd.services.verifier import Verification

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "verify",
    epilog=examples("ssmd data verify", "ssmd data verify --feed kalshi --date 2026-05-14 -o json"),
)
def verify(ctx: typer.Context, feed: FeedOption = "", date: AnyDayOption = "", output: OutputOption = Format.TABLE) -> int:
    """Read and hash every object, and compare with the journal's seals and the manifests.

    Exit status 0: all is as sealed; 1: something is damaged, missing or extra; 2: it could not be told.
    """
    from ssmd.services import verifier  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.archive_access import reading_storage  # noqa: PLC0415
    from ssmd.wiring.backends import reading_journal  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    scope = verifier.Scope(environment.name, feed_of(environment, feed), date)
    shows = sys.stderr.isatty()

    def progress(done: int, of: int) -> None:
        if shows:
            sys.stderr.write(f"\r{done:,} of {of:,} objects{'' if done < of else chr(10)}")

    async def checked() -> Verification:
        async with (
            reading_storage(environment, invocation.variables) as storage,
            reading_journal(environment, invocation.variables, say) as journal,
        ):
            return await verifier.verify(storage, journal, scope, progress)

    found = run(checked())
    if output is Format.JSON:
        print_json(found)
    else:
        print_table(
            invocation,
            ["problem", "object", "detail"],
            [(finding.problem, finding.key, finding.detail) for finding in found.findings],
            empty=f"all is as sealed: {thousands(found.objects)} objects, {thousands(found.size_bytes)} bytes, "
            f"{thousands(found.manifests)} manifests",
        )
    if not found.is_certain:
        return TROUBLE
    return OK if found.is_clean else NO
