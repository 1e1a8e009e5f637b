"""`ssmd connector`: the connector process alone, as `ssmd up` and Kubernetes start it, and how it stands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of
from ssmd.cli.invocation import run as run_async
from ssmd.cli.output import Format, OutputOption, print_json, print_table
from ssmd.errors import Unavailable

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Run the connector process alone, ask how it is."
)


@app.callback()
def _group() -> None:
    """Run the connector process alone, ask how it is."""


@app.command("run", epilog=examples("ssmd connector run --env kalshi-dev", "ssmd connector run --shard crypto"))
def run(
    ctx: typer.Context,
    shard: Annotated[
        str, typer.Option("--shard", metavar="NAME", help="Only this shard of the environment; default: SSMD_SHARD, else all.")
    ] = "",
) -> None:
    """Capture the environment's feed: venue to tape to streams. Until SIGTERM or Ctrl-C."""
    from ssmd.wiring.process import run_component  # noqa: PLC0415 - keeps --help quick

    run_component("connector", invocation_of(ctx).resolve(), shard=shard)


@app.command(
    "status", epilog=examples("ssmd connector status", "ssmd connector status -o json | jq '.[0].stats.clock_offset_ms'")
)
def status(ctx: typer.Context, output: OutputOption = Format.TABLE) -> int:
    """How the connectors of the environment stand, by their own word. Exit status 1 where one does not do its job."""
    found = run_async(_asked(invocation_of(ctx)))
    if output is Format.JSON:
        print_json(found)
    else:
        rows = []
        for one in found:
            stats = one["stats"]
            figures = [f"{stats.get(name, 0):,}" for name in ("connections", "markets", "frames", "unplaced", "unacked")]
            verdict = "good" if one["ok"] else "NOT WELL"
            rows.append((one["instance"], verdict, *figures, stats.get("clock_offset_ms", 0), one["reason"]))
        names = ["connection", "state", ">connections", ">markets", ">frames", ">unplaced", ">unacked", ">clock ms", "reason"]
        print_table(invocation_of(ctx), names, rows, empty="no connector answers")
    return 0 if found and all(one["ok"] for one in found) else 1


async def _asked(invocation: Invocation) -> list[dict[str, Any]]:
    """The health of every connector (shard) that the environment should have."""
    from ssmd.streams.control import ControlClient  # noqa: PLC0415 - keeps --help quick

    environment = invocation.resolve()
    connection = environment.document.capture.connection
    shards = [f"{connection}-{name}" for name in environment.document.shards]
    client = await ControlClient.open(environment.server_url("transport", invocation.variables), environment.name)
    found = []
    try:
        for instance in (connection, *shards):
            try:
                answer = dict(await client.request("connector", instance, "health", 2.0))
            except Unavailable as error:
                if shards and instance == connection:
                    continue  # either one process has all of it, or each shard has one
                answer = {"ok": False, "reason": error.message, "stats": {}}
            found.append({"instance": instance, **answer})
    finally:
        await client.close()
    if shards and any(one["instance"] == connection for one in found):
        found = found[:1]
    return found
