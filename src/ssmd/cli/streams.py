"""`ssmd streams`: the NATS streams of an environment, as they should be and as they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say, thousands

if TYPE_CHECKING:
    from ssmd.streams.connection import Connection
    from ssmd.streams.topology import Difference, Endpoint, StreamDefinition, StreamStatus
    from ssmd.wiring.environment import ResolvedEnvironment

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Create, compare and show the NATS streams."
)


def _desired(environment: ResolvedEnvironment) -> list[StreamDefinition]:
    """The definitions of the streams that are kept by NATS in this environment."""
    from ssmd.streams.topology import desired  # noqa: PLC0415 - keeps --help quick

    document = environment.document
    backends = {"journal": document.journal.backend, "transport": document.transport.backend}
    definitions = desired(
        environment.name,
        max_age_s=document.transport.max_age_hours * 3600,
        max_bytes=document.transport.max_bytes,
        replicas=document.transport.replicas,
        journal_replicas=document.journal.replicas,
    )
    return [definition for definition in definitions if backends[definition.endpoint] == "nats"]


@asynccontextmanager
async def _connections(
    invocation: Invocation, environment: ResolvedEnvironment, definitions: list[StreamDefinition]
) -> AsyncGenerator[dict[Endpoint, Connection]]:
    from ssmd.streams.connection import Connection  # noqa: PLC0415 - keeps --help quick

    opened: dict[Endpoint, Connection] = {}
    try:
        for endpoint in sorted({definition.endpoint for definition in definitions}):
            url = environment.server_url(endpoint, invocation.variables)
            opened[endpoint] = await Connection.open(url, name=f"ssmd {environment.name} streams", timeout_s=5.0)
        yield opened
    finally:
        for connection in opened.values():
            await connection.close()


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

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    definitions = _desired(environment)

    async def applied() -> list[Difference]:
        async with _connections(invocation, environment, definitions) as connections:
            return await topology.apply(connections, definitions)

    changed = run(applied())
    _print_differences(invocation, changed, output, "nothing to change")
    if changed:
        say(f"changed {len({one.stream for one in changed})} streams of {environment.name}")


@app.command("diff", epilog=examples("ssmd streams diff"))
def diff(ctx: typer.Context, output: OutputOption = Format.TABLE) -> int:
    """Compare the streams with their definitions. Exit status: 0 the same, 1 different."""
    from ssmd.streams import topology  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    definitions = _desired(environment)

    async def compared() -> list[Difference]:
        async with _connections(invocation, environment, definitions) as connections:
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

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    definitions = _desired(environment)

    async def asked() -> list[StreamStatus]:
        async with _connections(invocation, environment, definitions) as connections:
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
