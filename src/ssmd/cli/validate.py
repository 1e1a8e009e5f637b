"""`ssmd validate`: every mistake of every document, with its line."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import checked_date, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say

if TYPE_CHECKING:
    from ssmd.registry.findings import Finding

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Report(StrEnum):
    """For whom mistakes are written."""

    TEXT = "text"
    GITHUB = "github"


@app.command("validate", epilog=examples("ssmd validate", "ssmd validate ./exchanges -o json"))
def validate(
    ctx: typer.Context,
    path: Annotated[
        Path | None, typer.Argument(help="The exchanges/ directory, or what holds it; default: the workspace's.")
    ] = None,
    date: Annotated[str, typer.Option("--date", help="Judge feed versions as of this UTC date.", callback=checked_date)] = "",
    online: Annotated[
        bool, typer.Option("--online", help="Also reach the venues and servers that active environments name.")
    ] = False,
    report: Annotated[Report, typer.Option("--format", help="github: workflow annotations, one a line.")] = Report.TEXT,
    output: OutputOption = Format.TABLE,
) -> int:
    """Check every document of the registry, each on its own and against the others.

    Exit status: 0 no mistake, 1 mistakes, 2 there is no registry.
    """
    from ssmd.registry.definition_check import definition_findings  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.loader import check_tree  # noqa: PLC0415
    from ssmd.registry.tree import read_tree  # noqa: PLC0415

    invocation = invocation_of(ctx)
    root = invocation.workspace.registry if path is None else path.resolve()
    if not (root / "environments").is_dir() and (root / "exchanges").is_dir():
        root /= "exchanges"
    tree = read_tree(root)
    registry, findings = check_tree(tree, date=date or invocation.today)
    findings += definition_findings(tree)
    if online:
        from ssmd.wiring.reachability import unreachable  # noqa: PLC0415 - keeps --help quick

        findings += run(unreachable(tree, invocation.variables, date=date or invocation.today))
    if report is Report.GITHUB:
        _print_annotations(root, findings)
    elif output is Format.JSON:
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


def _print_annotations(root: Path, findings: Sequence[Finding]) -> None:
    """https://docs.github.com/actions/reference/workflow-commands (read 2026-11-22); files from the repository's top."""
    from ssmd.registry.git import Git  # noqa: PLC0415 - keeps --help quick

    git = Git(root.parent, root.name)
    prefix = git.prefix() if git.is_there() else ""
    for one in findings:
        place = f",line={one.line},col={one.column}" if one.line else ""
        message = f"{one.message} ({one.mend})" if one.mend else one.message
        typer.echo(f"::error file={_escaped(prefix + one.file, ':,')}{place},title={one.rule}::{_escaped(message)}")


def _escaped(text: str, also: str = "") -> str:
    for char in "%\r\n" + also:
        text = text.replace(char, f"%{ord(char):02X}")
    return text
