"""`ssmd projector`: the projector process alone, as `ssmd up` and Kubernetes start it."""

from __future__ import annotations

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Run the projector process alone.")


@app.callback()
def _group() -> None:
    """Run the projector process alone."""


@app.command("run", epilog=examples("ssmd projector run --env kalshi-dev"))
def run(ctx: typer.Context) -> None:
    """Keep the views and manifests up to the journal. Until SIGTERM or Ctrl-C."""
    from ssmd.wiring.process import run_component  # noqa: PLC0415 - keeps --help quick

    run_component("projector", invocation_of(ctx).resolve())
