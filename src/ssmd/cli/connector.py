"""`ssmd connector`: the connector process alone, as `ssmd up` and Kubernetes start it."""

from __future__ import annotations

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Run the connector process alone.")


@app.callback()
def _group() -> None:
    """Run the connector process alone."""


@app.command("run", epilog=examples("ssmd connector run --env kalshi-dev"))
def run(ctx: typer.Context) -> None:
    """Capture the environment's feed: venue to tape to streams. Until SIGTERM or Ctrl-C."""
    from ssmd.wiring.process import run_component  # noqa: PLC0415 - keeps --help quick

    run_component("connector", invocation_of(ctx).resolve())
