"""`ssmd init`: a new workspace."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.output import say
from ssmd.cli.registry_output import DryRunOption

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Bootstrap(StrEnum):
    """Working data to begin with."""

    KALSHI = "kalshi"


@app.command("init", epilog=examples("ssmd init", "ssmd init trading --with kalshi"))
def init(
    path: Annotated[Path | None, typer.Argument(help="Directory of the workspace; default: the current one.")] = None,
    with_: Annotated[
        Bootstrap | None,
        typer.Option("--with", help="Begin with a feed, its record schema, and environments for simulator, demo and prod."),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Make a workspace: exchanges/ for documents, .ssmd/ for local state (ignored by git). What is there stays."""
    from ssmd.registry.workspace import create, planned  # noqa: PLC0415 - keeps --help quick

    root = (path or Path.cwd()).resolve()
    files, kept = planned(root, with_kalshi=with_ is Bootstrap.KALSHI)
    if not dry_run:
        create(root, files)
    for name in sorted(files):
        say(f"{'would write' if dry_run else 'wrote'} {name}")
    for name in kept:
        say(f"kept {name}, which holds something else")
    if not files:
        say("nothing to change")
    if with_ is Bootstrap.KALSHI and not dry_run:
        say("  try: ssmd up kalshi-dev")
