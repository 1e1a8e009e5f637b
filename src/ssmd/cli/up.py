"""`ssmd up`: an environment on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from ssmd.cli.completion import complete_environment
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of
from ssmd.cli.output import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("up", epilog=examples("ssmd up kalshi-dev"))
def up(
    ctx: typer.Context,
    env: Annotated[
        str, typer.Argument(metavar="[ENV]", help="Environment; default: the current one.", autocompletion=complete_environment)
    ] = "",
    no_day: Annotated[bool, typer.Option("--no-day", help="Do not start today's trading day.")] = False,
    no_temporal: Annotated[
        bool, typer.Option("--no-temporal", help="No workflows and schedules: days are started and ended in process.")
    ] = False,
) -> int:
    """Run an environment on this machine: embedded servers, simulator, and every component, until Ctrl-C."""
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.up import run_up  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve(env)
    return run_up(
        environment,
        invocation.variables,
        clock=invocation.clock,
        random=system_random,
        actor=invocation.actor(),
        say=say,
        with_day=not no_day,
        with_temporal=not no_temporal,
    )
