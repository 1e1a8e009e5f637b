"""`ssmd commit`: the registry's changes as one git commit."""

from __future__ import annotations

from typing import Annotated

import typer

from ssmd.cli.exit_status import OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of
from ssmd.cli.output import say
from ssmd.cli.registry_output import DryRunOption

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("commit", epilog=examples("ssmd commit -m 'Capture the demo exchange'"))
def commit(
    ctx: typer.Context,
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="What the commit says.")],
    dry_run: DryRunOption = False,
) -> int:
    """Check the registry, then commit exchanges/ and nothing else. Never pushes.

    What else is changed or staged stays as it is. Refused: mistakes, a detached HEAD, conflicts, a merge under way.
    """
    from ssmd.registry.definition_check import definition_findings  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.findings import InvalidRegistry  # noqa: PLC0415
    from ssmd.registry.git import Git  # noqa: PLC0415
    from ssmd.registry.loader import load_registry  # noqa: PLC0415
    from ssmd.registry.tree import read_tree  # noqa: PLC0415

    if not message.strip():
        raise typer.BadParameter("the message is empty", param_hint="--message")
    invocation = invocation_of(ctx)
    workspace = invocation.workspace
    git = Git(workspace.root)
    git.need()
    git.check_committable()
    load_registry(workspace.registry, date=invocation.today)
    findings = definition_findings(read_tree(workspace.registry))
    if findings:
        raise InvalidRegistry(findings)
    dirty = git.dirty_files()
    if not dirty:
        say("nothing to commit")
        return OK
    for name in dirty:
        say(f"{'would commit' if dry_run else 'committing'} {name}")
    if not dry_run:
        say(f"commit {git.commit(message)[:12]}")
    return OK
