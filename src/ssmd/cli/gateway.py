"""`ssmd gateway`: the gateway process alone, as `ssmd up` and Kubernetes start it."""

from __future__ import annotations

from typing import Annotated

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Run the gateway process alone.")


@app.callback()
def _group() -> None:
    """Run the gateway process alone."""


@app.command("run", epilog=examples("ssmd gateway run --env kalshi-dev", "ssmd gateway run --dev"))
def run(
    ctx: typer.Context,
    dev: Annotated[bool, typer.Option("--dev", help="Ask nobody for a key; only on loopback.")] = False,
) -> None:
    """Serve live data over WebSocket and REST, and the dashboard. Until SIGTERM or Ctrl-C."""
    import dataclasses  # noqa: PLC0415 - keeps --help quick

    import msgspec  # noqa: PLC0415

    from ssmd.wiring.process import run_component  # noqa: PLC0415

    environment = invocation_of(ctx).resolve()
    if dev:
        replace = msgspec.structs.replace
        document = environment.document
        open_to_all = replace(document, gateway=replace(document.gateway, auth="dev"))
        environment = dataclasses.replace(environment, document=open_to_all)
    run_component("gateway", environment)
