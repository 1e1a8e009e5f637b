"""`ssmd env`: which environments there are, and which one commands mean."""

from __future__ import annotations

from typing import Annotated

import typer

from ssmd.cli.completion import complete_environment
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, say

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Choose and show environments.")


@app.command("use", epilog=examples("ssmd env use kalshi-dev"))
def use(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Environment.", autocompletion=complete_environment)],
) -> None:
    """Make NAME the environment that commands mean, until told otherwise."""
    from ssmd.wiring.environment import store_current  # noqa: PLC0415 - keeps --help quick

    store_current(invocation_of(ctx).workspace, name)
    say(f"commands now mean {name}")


@app.command("list", epilog=examples("ssmd env list", "ssmd env list -o json"))
def list_environments(ctx: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """List the environments of the registry."""
    from ssmd.registry.loader import load_registry  # noqa: PLC0415 - keeps --help quick
    from ssmd.services.run_file import live_run  # noqa: PLC0415
    from ssmd.wiring.environment import read_current  # noqa: PLC0415

    invocation = invocation_of(ctx)
    workspace = invocation.workspace
    registry = load_registry(workspace.registry, date=invocation.today)
    current = read_current(workspace)
    rows = [
        {
            "name": name,
            "feed": document.feed,
            "endpoint": document.capture.endpoint,
            "schema": document.schema,
            "status": document.status,
            "is_current": name == current,
            "is_running": live_run(workspace.environment(name)) is not None,
        }
        for name, document in registry.environments.items()
    ]
    if output is Format.JSON:
        print_json(rows)
        return
    print_table(
        invocation,
        ["name", "feed", "endpoint", "schema", "status", "current", "running"],
        [list(row.values()) for row in rows],
        empty="the registry holds no environment",
    )


@app.command("show", epilog=examples("ssmd env show kalshi-dev"))
def show(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Environment; default: the current one.", autocompletion=complete_environment)
    ] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show one environment with every default filled in, and where it runs. Secrets are not part of it."""
    invocation = invocation_of(ctx)
    environment = invocation.resolve(name)
    if output is Format.JSON:
        print_json(
            {
                "environment": environment.document,
                "feed_version": environment.feed_version,
                "schema_sha256": environment.schema.sha256,
                "config": environment.config,
                "directory": str(environment.directory),
                "run": environment.run,
            }
        )
        return
    fields: list[tuple[str, object]] = []
    _flatten("", environment.document, fields)
    fields += [
        ("wire", environment.feed_version.wire),
        ("schema sha256", environment.schema.sha256),
        ("registry commit", environment.config or "not under git"),
        ("state", environment.directory),
        ("running", f"process {environment.run.pid}" if environment.run else "no"),
    ]
    if environment.run is not None:
        _flatten("run.", environment.run.endpoints, fields)
    print_fields(invocation, fields)


def _flatten(prefix: str, value: object, fields: list[tuple[str, object]]) -> None:
    """Add the leaves of a document as (dotted name, value)."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    items = value.items() if isinstance(value, dict) else msgspec.structs.asdict(value).items()  # type: ignore[arg-type]
    for name, part in items:
        if isinstance(part, dict | msgspec.Struct):
            _flatten(f"{prefix}{name}.", part, fields)
        else:
            fields.append((f"{prefix}{name}", ", ".join(map(str, part)) if isinstance(part, tuple) else part))
