"""`ssmd env render`: what a deployment must know of an environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssmd.cli.completion import complete_environment
from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of
from ssmd.cli.output import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "render",
    epilog=examples(
        "ssmd env render kalshi-demo",
        "ssmd env render kalshi-prod --replicas 3 --to deploy/rendered/kalshi-prod --check",
    ),
)
def render(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Environment; default: the current one.", autocompletion=complete_environment)
    ] = "",
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Where to; default: deploy/rendered/NAME.")] = None,
    replicas: Annotated[
        int, typer.Option("--replicas", min=1, max=5, help="On how many NATS servers of the deployment each stream is.")
    ] = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit status 1 where it would change something.")
    ] = False,
) -> int:
    """Write an environment for containers: its registry with the servers' addresses, and a Kustomize component."""
    from ssmd.keys.private_files import write_private  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.deployment import check_rendered_name, rendered  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve(name)
    directory = to or invocation.workspace.root / "deploy" / "rendered" / environment.name
    changed = []
    for path, text in rendered(environment, replicas).items():
        target = directory / check_rendered_name(path)
        if target.is_symlink() or not target.is_file() or target.read_bytes() != text.encode():
            changed.append(target)
            if not check:
                write_private(target, text.encode(), mode=0o644)
    for target in changed:
        say(f"{'would write' if check else 'wrote'} {target}")
    if not changed:
        say(f"{directory} is as the registry says")
    return NO if check and changed else OK
