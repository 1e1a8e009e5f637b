"""`ssmd config`: which configuration was live when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.completion import complete_environment
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import checked_date, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say, time_of

if TYPE_CHECKING:
    from ssmd.projections.config_history import ConfigSpan

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Which configuration was live when.")


@app.callback()
def group() -> None:
    """Which configuration was live when."""


@app.command("history", epilog=examples("ssmd config history kalshi-dev", "ssmd config history --date 2026-05-14 -o json"))
def history(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Environment; default: the current one.", autocompletion=complete_environment)
    ] = "",
    date: Annotated[
        str, typer.Option("--date", metavar="DATE", help="Only what was live on this UTC date.", callback=checked_date)
    ] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show each configuration that was applied or used, from when until when, with its git commit."""
    from ssmd.projections.config_history import live_during  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.git import Git  # noqa: PLC0415
    from ssmd.wiring.config_history import config_history, day_bounds  # noqa: PLC0415
    from ssmd.wiring.environment import registry_commit  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve(name)
    spans = run(config_history(environment, invocation.variables, say))
    if date:
        spans = live_during(spans, *day_bounds(date))
    workspace = invocation.workspace
    is_git = bool(registry_commit(workspace))
    subjects = {one.commit: one.subject for one in Git(workspace.root).changes()} if is_git else {}
    if output is Format.JSON:
        print_json([{**span._asdict(), "subject": subjects.get(span.config, "")} for span in spans])
        return
    print_table(
        invocation,
        ["from (UTC)", "until (UTC)", "what", "commit", "subject", "who", "uncommitted"],
        [_row(span, subjects.get(span.config, "")) for span in spans],
        empty=f"no configuration of {environment.name} was live{f' on {date}' if date else ' yet'}",
    )


def _row(span: ConfigSpan, subject: str) -> tuple[object, ...]:
    until = time_of(span.until_ns) if span.until_ns is not None else "now"
    return (time_of(span.from_ns), until, span.what, span.config[:12], subject, span.actor, "; ".join(span.uncommitted))
