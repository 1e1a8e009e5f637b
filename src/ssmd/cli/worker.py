"""`ssmd worker`: the worker process alone, as `ssmd up` and Kubernetes start it."""

from __future__ import annotations

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Run the worker process alone.")


@app.callback()
def _group() -> None:
    """Run the worker process alone."""


@app.command("run", epilog=examples("ssmd worker run --env kalshi-dev"))
def run(ctx: typer.Context) -> None:
    """Do what Temporal's workflows ask for: trading days, syncs, checks. Several may run. Until SIGTERM or Ctrl-C."""
    from ssmd.wiring.process import run_component  # noqa: PLC0415 - keeps --help quick

    run_component("worker", invocation_of(ctx).resolve())
