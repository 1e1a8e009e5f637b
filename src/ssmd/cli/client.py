"""`ssmd client`: who may ask the gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, say, time_of
from ssmd.cli.time_span import checked_span, span_ns

if TYPE_CHECKING:
    from ssmd.application.handler import Application
    from ssmd.domain.client import ClientCommand, State

Answer = TypeVar("Answer")

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="API keys of the gateway, and their connections."
)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The client's id: `ssmd client list`.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")]
_MODES: Final = ("realtime", "conflated", "latest")


def _with_clients(invocation: Invocation, work: Callable[[Application], Awaitable[Answer]]) -> Answer:
    """Run `work` on the environment's journal, whether the environment runs or not."""
    from ssmd.application.handler import Application  # noqa: PLC0415 - keeps --help quick
    from ssmd.domain.catalogue import CATALOGUE  # noqa: PLC0415
    from ssmd.identifiers import system_random  # noqa: PLC0415
    from ssmd.wiring.backends import reading_journal  # noqa: PLC0415

    environment = invocation.resolve()

    async def worked() -> Answer:
        async with reading_journal(environment, invocation.variables, say) as journal:
            return await work(Application(journal, CATALOGUE, invocation.clock, system_random, environment.config))

    return run(worked())


def _tell(ctx: typer.Context, client_id: str, command: ClientCommand, output: Format) -> None:
    """Have a command decided, and show the client after it."""
    from ssmd.domain.client import DECIDER  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)

    async def told(application: Application) -> State:
        return (await application.handle(DECIDER, (client_id,), command, actor=invocation.actor())).state

    _show(invocation, client_id, _with_clients(invocation, told), output)


def _facts(client_id: str, state: State, now_ns: int) -> dict[str, Any]:
    created = state.created
    if created is None:
        from ssmd.errors import Rejected  # noqa: PLC0415 - keeps --help quick

        raise Rejected("no-such-client", f"there is no client {client_id}", mend="ssmd client list")
    status = "revoked" if state.is_revoked else "expired" if 0 < created.expires_ns <= now_ns else "active"
    return {
        "id": client_id,
        "name": created.name,
        "status": status,
        "scopes": created.scopes,
        "feeds": created.feeds,
        "mode": created.mode,
        "expires_ns": created.expires_ns,
        "requests_per_s": created.requests_per_s,
        "connections_max": created.connections_max,
    }


def _show(invocation: Invocation, client_id: str, state: State, output: Format, **more: str) -> None:
    facts = _facts(client_id, state, invocation.clock.now_ns()) | more
    if output is Format.JSON:
        print_json(facts)
        return
    shown = facts | {
        "scopes": ", ".join(facts["scopes"]),
        "feeds": ", ".join(facts["feeds"]) or "all",
        "expires": time_of(facts["expires_ns"]) if facts["expires_ns"] else "never",
        "requests_per_s": facts["requests_per_s"] or "as the gateway has it",
        "connections_max": facts["connections_max"] or "as the gateway has it",
    }
    del shown["expires_ns"]
    print_fields(invocation, list(shown.items()))


@app.command(
    "create",
    epilog=examples("ssmd client create my-bot --scope stream --expires 30d", "ssmd client create desk -o json"),
)
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is, for people.")],
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="stream, markets or records; may be repeated. Default: all.")
    ] = None,
    feed: Annotated[list[str] | None, typer.Option("--feed", help="Only this feed; may be repeated. Default: all.")] = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="SPAN", callback=checked_span, help="12h, 30d, 8w. Default: never.")
    ] = "",
    rate: Annotated[int, typer.Option("--rate", min=0, help="Requests, and commands of a connection, a second.")] = 0,
    connections: Annotated[int, typer.Option("--connections", min=0, help="WebSockets at the same time.")] = 0,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make an API key. It is shown here and never again: only its hash is kept."""
    from ssmd.domain.client import DECIDER, CreateClient  # noqa: PLC0415 - keeps --help quick
    from ssmd.gateway.api_keys import SCOPES, make_key  # noqa: PLC0415
    from ssmd.identifiers import system_random  # noqa: PLC0415

    invocation = invocation_of(ctx)
    scopes = tuple(dict.fromkeys(scope or SCOPES))
    for one in scopes:
        if one not in SCOPES:
            raise typer.BadParameter(f"no scope {one!r}; there are {', '.join(SCOPES)}", param_hint="--scope")
    key = make_key(system_random)
    command = CreateClient(
        name=name,
        fingerprint=key.fingerprint,
        scopes=scopes,
        expires_ns=invocation.clock.now_ns() + span_ns(expires) if expires else 0,
        feeds=tuple(dict.fromkeys(feed or ())),
        requests_per_s=rate,
        connections_max=connections,
    )

    async def created(application: Application) -> State:
        return (await application.handle(DECIDER, (key.client_id,), command, actor=invocation.actor())).state

    _show(invocation, key.client_id, _with_clients(invocation, created), output, key=key.text)
    say("Keep the key now: it is not shown again. Send it as the header  Authorization: Bearer KEY")


@app.command("list", epilog=examples("ssmd client list", "ssmd client list -o json"))
def list_(ctx: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Show every client."""
    from ssmd.cli.data import ask  # noqa: PLC0415 - keeps --help quick
    from ssmd.projections import queries  # noqa: PLC0415

    invocation = invocation_of(ctx)
    rows = ask(invocation, invocation.resolve(), queries.clients, "clients")
    if output is Format.JSON:
        print_json(rows)
        return
    print_table(
        invocation,
        ["id", "name", "status", "scopes", "created (UTC)", "by", "expires (UTC)"],
        [
            (
                row.id,
                row.name,
                row.status,
                ", ".join(row.scopes),
                time_of(row.created_ns),
                row.created_by,
                time_of(row.expires_ns) if row.expires_ns else "never",
            )
            for row in rows
        ],
        empty="there are no clients",
    )


@app.command("show", epilog=examples("ssmd client show k3x9w2m7qp4t"))
def show(ctx: typer.Context, client_id: IdArgument, output: OutputOption = Format.TABLE) -> None:
    """Show what a client may do."""
    from ssmd.domain.client import DECIDER  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    state = _with_clients(invocation, lambda application: application.state(DECIDER, (client_id,)))
    _show(invocation, client_id, state, output)


@app.command("revoke", epilog=examples("ssmd client revoke k3x9w2m7qp4t --reason 'laptop lost'"))
def revoke(ctx: typer.Context, client_id: IdArgument, reason: ReasonOption = "", output: OutputOption = Format.TABLE) -> None:
    """Take a key back for good; its connections end at once."""
    from ssmd.domain.client import RevokeClient  # noqa: PLC0415 - keeps --help quick

    _tell(ctx, client_id, RevokeClient(reason), output)


@app.command("disconnect", epilog=examples("ssmd client disconnect k3x9w2m7qp4t --reason noisy"))
def disconnect(
    ctx: typer.Context, client_id: IdArgument, reason: ReasonOption = "", output: OutputOption = Format.TABLE
) -> None:
    """Cut a client's connections; it may come back."""
    from ssmd.domain.client import DisconnectClient  # noqa: PLC0415 - keeps --help quick
    from ssmd.identifiers import system_random, uuid7  # noqa: PLC0415

    request_id = uuid7(invocation_of(ctx).clock.now_ns(), system_random)
    _tell(ctx, client_id, DisconnectClient(request_id, reason), output)


@app.command("set-mode", epilog=examples("ssmd client set-mode k3x9w2m7qp4t conflated"))
def set_mode(
    ctx: typer.Context,
    client_id: IdArgument,
    mode: Annotated[str, typer.Argument(metavar="MODE", help="realtime, conflated or latest.")],
    output: OutputOption = Format.TABLE,
) -> None:
    """Choose how a client's connections are served: every message, or of each market and kind the newest."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    from ssmd.domain.client import SetMode  # noqa: PLC0415

    if mode not in _MODES:
        raise typer.BadParameter(f"no mode {mode!r}; there are {', '.join(_MODES)}", param_hint="MODE")
    _tell(ctx, client_id, msgspec.convert({"mode": mode}, SetMode), output)
