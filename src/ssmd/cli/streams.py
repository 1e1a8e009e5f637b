"""`ssmd streams`: the NATS streams of an environment, as they should be and as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say, thousands

if TYPE_CHECKING:
    from ssmd.streams.topology import Difference, StreamStatus

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Create, compare and show the NATS streams."
)


def _print_differences(invocation: Invocation, found: list[Difference], output: Format, empty: str) -> None:
    if output is Format.JSON:
        print_json([difference._asdict() for difference in found])
        return
    print_table(
        invocation,
        ["stream", "setting", "found", "wanted"],
        [(one.stream, one.field or "the stream", one.found, one.wanted) for one in found],
        empty=empty,
    )


@app.command("apply", epilog=examples("ssmd streams apply --env kalshi-dev"))
def apply(ctx: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Create what is missing and change what differs; shows what was changed. Doing it again changes nothing."""
    from ssmd.streams import topology  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.stream_servers import stream_connections, stream_definitions  # noqa: PLC0415 - as above

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    definitions = stream_definitions(environment)

    async def applied() -> list[Difference]:
        async with stream_connections(environment, invocation.variables, definitions) as connections:
            return await topology.apply(connections, definitions)

    changed = run(applied())
    _print_differences(invocation, changed, output, "nothing to change")
    if changed:
        say(f"changed {len({one.stream for one in changed})} streams of {environment.name}")


@app.command("diff", epilog=examples("ssmd streams diff"))
def diff(ctx: typer.Context, output: OutputOption = Format.TABLE) -> int:
    """Compare the streams with their definitions. Exit status: 0 the same, 1 different."""
    from ssmd.streams import topology  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.stream_servers import stream_connections, stream_definitions  # noqa: PLC0415 - as above

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    definitions = stream_definitions(environment)

    async def compared() -> list[Difference]:
        async with stream_connections(environment, invocation.variables, definitions) as connections:
            return await topology.diff(connections, definitions)

    found = run(compared())
    _print_differences(invocation, found, output, "the streams are as defined")
    if found:
        say(f"  try: ssmd streams apply --env {environment.name}")
    return NO if found else OK


@app.command("status", epilog=examples("ssmd streams status", "ssmd streams status -o json"))
def status(ctx: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Show what each stream holds."""
    from ssmd.streams import topology  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.stream_servers import stream_connections, stream_definitions  # noqa: PLC0415 - as above

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    definitions = stream_definitions(environment)

    async def asked() -> list[StreamStatus]:
        async with stream_connections(environment, invocation.variables, definitions) as connections:
            return await topology.status(connections, definitions)

    found = run(asked())
    if output is Format.JSON:
        print_json([one._asdict() for one in found])
        return
    print_table(
        invocation,
        ["stream", "server", "exists", ">messages", ">bytes", ">first", ">last", ">consumers"],
        [
            (
                one.name,
                one.endpoint,
                one.exists,
                thousands(one.messages),
                thousands(one.size_bytes),
                one.first_seq,
                one.last_seq,
                one.consumers,
            )
            for one in found
        ],
        empty=f"{environment.name} keeps no stream in NATS",
    )


@app.command("auth", epilog=examples("ssmd streams auth", "ssmd streams auth kalshi-prod kalshi-demo --to deploy/nats"))
def auth(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ENV]...", help="Environments that share the servers; default: the current one."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Write journal-auth.conf and transport-auth.conf there.")
    ] = None,
    rotate: Annotated[
        list[str] | None, typer.Option("--rotate", metavar="ROLE", help="Make this role's key pair anew.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a key pair for each component, and the servers' accounts with what each may do.

    Seeds stay in .ssmd/ENV/keys/nats (0600); a process gets its own by SSMD_NATS_NKEY_FILE. The servers' files hold
    public keys only.
    """
    from ssmd.errors import Misconfigured  # noqa: PLC0415 - keeps --help quick
    from ssmd.identifiers import system_random  # noqa: PLC0415
    from ssmd.streams.permissions import ROLES  # noqa: PLC0415
    from ssmd.wiring import nats_auth  # noqa: PLC0415

    invocation = invocation_of(ctx)
    for role in rotate or ():
        if role not in ROLES:
            raise Misconfigured(f"there is no role {role!r}", mend=f"one of: {', '.join(ROLES)}")
    environments = [invocation.resolve(name) for name in dict.fromkeys(names or [""])]
    users = [nats_auth.auth_users(environment, system_random, rotate=rotate or ()) for environment in environments]
    if to is not None:
        configs = nats_auth.auth_configs(list(zip(environments, users, strict=True)))
        for path in nats_auth.write_configs(configs, to):
            say(f"wrote {path}: include it in the server's configuration, then nats-server --signal reload")
    rows = [user for found in users for user in found]
    if output is Format.JSON:
        print_json([user._asdict() for user in rows])
        return
    print_table(
        invocation,
        ["environment", "role", "public key", "seed"],
        [(user.environment, user.role, user.public, f"{user.seed_file}{' (new)' if user.is_new else ''}") for user in rows],
    )
