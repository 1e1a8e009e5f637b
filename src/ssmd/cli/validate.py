"""`ssmd validate`: every mistake of every document, with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import checked_date, invocation_of
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("validate", epilog=examples("ssmd validate", "ssmd validate ./exchanges -o json"))
def validate(
    ctx: typer.Context,
    path: Annotated[
        Path | None, typer.Argument(help="The exchanges/ directory, or what holds it; default: the workspace's.")
    ] = None,
    date: Annotated[str, typer.Option("--date", help="Judge feed versions as of this UTC date.", callback=checked_date)] = "",
    output: OutputOption = Format.TABLE,
) -> int:
    """Check every document of the registry, each on its own and against the others.

    Exit status: 0 no mistake, 1 mistakes, 2 there is no registry.
    """
    from ssmd.registry.loader import check_registry  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    root = invocation.workspace.registry if path is None else path.resolve()
    if not (root / "environments").is_dir() and (root / "exchanges").is_dir():
        root /= "exchanges"
    registry, findings = check_registry(root, date=date or invocation.today)
    if output is Format.JSON:
        print_json([finding._asdict() for finding in findings])
    elif findings:
        print_table(
            invocation,
            ["place", "rule", "message", "mend"],
            [
                (f"{one.file}:{one.line}:{one.column}" if one.line else one.file, one.rule, one.message, one.mend)
                for one in findings
            ],
        )
    documents = len(registry.feeds) + len(registry.schemas) + len(registry.environments)
    if findings:
        say(f"{len(findings)} mistake{'' if len(findings) == 1 else 's'}")
        return NO
    say(f"no mistake in {documents} documents")
    return OK
