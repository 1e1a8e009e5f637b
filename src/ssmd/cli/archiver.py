"""`ssmd archiver`: an archiver process alone, as `ssmd up` and Kubernetes start it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Run one archiver process alone.")


class ArchiveType(StrEnum):
    """What is archived."""

    RAW = "raw"
    NORMALIZED = "normalized"


@app.callback()
def _group() -> None:
    """Run one archiver process alone."""


@app.command("run", epilog=examples("ssmd archiver run --type raw --env kalshi-dev"))
def run(ctx: typer.Context, type_: Annotated[ArchiveType, typer.Option("--type", help="Which data.")]) -> None:
    """Write segments of the raw or the normalized stream, or stand by where another does. Until SIGTERM or Ctrl-C."""
    from ssmd.wiring.process import run_component  # noqa: PLC0415 - keeps --help quick

    run_component(f"{type_.value}-archiver", invocation_of(ctx).resolve())
