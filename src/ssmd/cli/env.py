"""`ssmd env`: which environments there are, and which one commands mean."""

from __future__ import annotations

from typing import Annotated

import typer

from ssmd.cli import env_apply, env_edit, env_render
from ssmd.cli.completion import complete_environment
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of
from ssmd.cli.output import print_json, print_table, say
from ssmd.cli.registry_output import AsOfOption, DocumentFormat, DocumentOutput, known, print_document, print_yaml

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Create, change, choose, show, apply and tear down environments.",
)
app.registered_commands += [
    *env_edit.app.registered_commands,
    *env_apply.app.registered_commands,
    *env_render.app.registered_commands,
]


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
def list_environments(ctx: typer.Context, output: DocumentOutput = DocumentFormat.TABLE) -> None:
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
    if output is DocumentFormat.JSON:
        print_json(rows)
        return
    if output is DocumentFormat.YAML:
        print_yaml(rows)
        return
    print_table(
        invocation,
        ["name", "feed", "endpoint", "schema", "status", "current", "running"],
        [list(row.values()) for row in rows],
        empty="the registry holds no environment",
    )


@app.command("show", epilog=examples("ssmd env show kalshi-dev", "ssmd env show kalshi-dev --as-of 2026-05-14 -o yaml"))
def show(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Environment; default: the current one.", autocompletion=complete_environment)
    ] = "",
    as_of: AsOfOption = "",
    output: DocumentOutput = DocumentFormat.TABLE,
) -> None:
    """Show one environment with every default filled in, and where it runs. Secrets are not part of it.

    With --as-of: as git had it at the end of that UTC day, with the feed version in force then.
    """
    invocation = invocation_of(ctx)
    if as_of:
        _show_past(invocation, name or invocation.env, as_of, output)
        return
    environment = invocation.resolve(name)
    if output is DocumentFormat.JSON:
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
    fields: list[tuple[str, object]] = [
        ("wire", environment.feed_version.wire),
        ("schema sha256", environment.schema.sha256),
        ("registry commit", environment.config or "not under git"),
        ("state", environment.directory),
        ("running", f"process {environment.run.pid}" if environment.run else "no"),
    ]
    if environment.run is not None:
        from ssmd.registry.meaning import leaves  # noqa: PLC0415 - keeps --help quick

        fields += [(f"run.{name}", value) for name, value in leaves(environment.run.endpoints)]
    print_document(invocation, environment.document, output, fields)


def _show_past(invocation: Invocation, given: str, as_of: str, output: DocumentFormat) -> None:
    """The environment as git had it at the end of the day `as_of`; as it is now where there is no git."""
    from ssmd.registry.integrity import version_in_force  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.sources import read_sources  # noqa: PLC0415
    from ssmd.wiring.past_registry import tree_on  # noqa: PLC0415

    tree, commit = tree_on(invocation.workspace, as_of)
    sources = read_sources(tree)[0]
    name = known("environment", given or invocation.environment_name(), sources.environments)
    document = sources.environments[name].document
    feed = sources.feeds.get(document.feed)
    version = version_in_force(feed.document, as_of) if feed is not None else None
    if output is DocumentFormat.JSON:
        print_json({"environment": document, "feed_version": version, "config": commit})
        return
    fields = [("wire", version.wire if version else f"no version of {document.feed} was in force")]
    print_document(invocation, document, output, [*fields, ("registry commit", commit or "not under git: as it is now")])
