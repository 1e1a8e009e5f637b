"""`ssmd key`: the secrets an environment needs. They are set, checked and rotated here, and never shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, say, time_of
from ssmd.cli.time_span import checked_span, span_ns

if TYPE_CHECKING:
    from ssmd.keys.secret import Secret
    from ssmd.wiring.environment import ResolvedEnvironment
    from ssmd.wiring.keys import KeyInfo, Keys, Verdict

Answer = TypeVar("Answer")

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Secrets of an environment: set, check, rotate."
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A key that the environment defines.")]
FromFile = Annotated[list[str] | None, typer.Option("--from-file", metavar="FIELD=PATH", help="The field is in this file.")]
FromEnv = Annotated[
    list[str] | None, typer.Option("--from-env", metavar="FIELD=VARIABLE", help="The field is in this variable.")
]
Stdin = Annotated[str, typer.Option("--stdin", metavar="FIELD", help="The field is what standard input holds.")]
Insecure = Annotated[
    list[str] | None,
    typer.Option(
        "--insecure-argument", metavar="FIELD=VALUE", help="The field itself. Others on this machine can read it meanwhile."
    ),
]
Expires = Annotated[
    str, typer.Option("--expires", metavar="SPAN", callback=checked_span, help="12h, 30d, 8w: the venue ends it then.")
]
Online = Annotated[bool, typer.Option("--online", help="Ask the venue whether it takes the key.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _with_keys(ctx: typer.Context, work: Callable[[Keys], Awaitable[Answer]]) -> Answer:
    """Run `work` on the environment's keys."""
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.key_journal import opened_keys  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve()

    async def worked() -> Answer:
        variables, clock = invocation.variables, invocation.clock
        async with opened_keys(environment, variables, clock, system_random, invocation.actor(), say) as keys:
            return await work(keys)

    return run(worked())


def _expiry(ctx: typer.Context, span: str) -> int:
    return invocation_of(ctx).clock.now_ns() + span_ns(span) if span else 0


def _definition_fields(environment: ResolvedEnvironment, name: str) -> tuple[str, ...]:
    """Fields of a defined key. Raises Rejected."""
    from ssmd.errors import Rejected  # noqa: PLC0415 - keeps --help quick

    definition = environment.document.keys.get(name)
    if definition is None:
        known = ", ".join(environment.document.keys) or "none"
        raise Rejected(
            "key-not-defined",
            f"{environment.name} defines no such key",
            mend=f"define it first: ssmd env add-key {environment.name} NAME; known: {known}",
        )
    return definition.fields


def _values(
    ctx: typer.Context,
    name: str,
    from_file: list[str] | None,
    from_env: list[str] | None,
    stdin: str,
    insecure: list[str] | None,
) -> dict[str, Secret]:
    from ssmd.cli.key_input import given_fields  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    fields = _definition_fields(invocation.resolve(), name)
    if insecure:
        say("warning: what stands on a command line can be read by others, and stays in the shell's history")
    return given_fields(
        fields,
        invocation.variables,
        from_file=from_file or (),
        from_env=from_env or (),
        stdin_field=stdin,
        insecure=insecure or (),
    )


@app.command("init", epilog=examples("ssmd key init", "ssmd key init --env kalshi-prod"))
def init(ctx: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Make the environment's keys known to its journal, prepare the encrypted store, and show what is to be set."""
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.key_journal import prepare_local_store  # noqa: PLC0415

    invocation = invocation_of(ctx)
    made = prepare_local_store(invocation.resolve(), invocation.variables, system_random)

    async def defined(keys: Keys) -> list[KeyInfo]:
        await keys.define()
        return await keys.infos()

    _print_infos(invocation, _with_keys(ctx, defined), output)
    if made is not None:
        say(f"made {made}: it opens the encrypted store. Keep a copy where the store is not")


@app.command(
    "set",
    epilog=examples(
        "ssmd key set kalshi", "ssmd key set kalshi --from-env api_key=KALSHI_ID --from-file private_key=kalshi.pem"
    ),
)
def set_(
    ctx: typer.Context,
    name: NameArgument,
    from_file: FromFile = None,
    from_env: FromEnv = None,
    stdin: Stdin = "",
    insecure_argument: Insecure = None,
    expires: Expires = "",
) -> None:
    """Store a key's value. Fields that no option names are asked for, unseen."""
    values = _values(ctx, name, from_file, from_env, stdin, insecure_argument)
    expires_ns = _expiry(ctx, expires)
    where = _with_keys(ctx, lambda keys: keys.set(name, values, expires_ns=expires_ns))
    say(f"set {name}: {where}")


@app.command(
    "rotate",
    epilog=examples(
        "ssmd key rotate kalshi --online --from-env api_key=NEW_ID --from-file private_key=new.pem",
        "ssmd key rotate simulator",
    ),
)
def rotate(
    ctx: typer.Context,
    name: NameArgument,
    from_file: FromFile = None,
    from_env: FromEnv = None,
    stdin: Stdin = "",
    insecure_argument: Insecure = None,
    expires: Expires = "",
    online: Online = False,
) -> None:
    """Put another value in place of a key's. Running processes use it within 30 seconds, without a restart.

    With --online nothing is changed unless the venue takes the new one.
    """
    from ssmd.errors import Rejected  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.key_journal import ask_venue  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    _definition_fields(environment, name)
    is_generated = environment.document.keys[name].source == "generated"
    values = {} if is_generated else _values(ctx, name, from_file, from_env, stdin, insecure_argument)
    expires_ns = _expiry(ctx, expires)

    async def rotated(keys: Keys) -> str:
        if online and values:
            refusal = await ask_venue(environment, invocation.clock, name, values)
            if refusal:
                raise Rejected("key-refused", f'key "{name}" was not rotated: {refusal}')
        return await keys.rotate(name, values, expires_ns=expires_ns)

    say(f"rotated {name}: {_with_keys(ctx, rotated)}")


@app.command("list", epilog=examples("ssmd key list", "ssmd key list -o json"))
def list_(ctx: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Show every key: status, fingerprint, age. Never a value."""
    _print_infos(invocation_of(ctx), _with_keys(ctx, lambda keys: keys.infos()), output)


@app.command("show", epilog=examples("ssmd key show kalshi", "ssmd key show kalshi -o json"))
def show(ctx: typer.Context, name: NameArgument, output: OutputOption = Format.TABLE) -> None:
    """Show what is known of one key. Never a value."""
    info = _with_keys(ctx, lambda keys: keys.info(name))
    if output is Format.JSON:
        print_json(info)
        return
    shown: list[tuple[str, object]] = [
        ("name", info.name),
        ("status", info.status),
        ("type", info.type),
        ("fields", ", ".join(info.fields)),
        ("required", info.required),
        ("source", info.source),
        ("where", info.where),
        ("value here", _here(info)),
        ("fingerprint", info.fingerprint or "none"),
        ("set (UTC)", f"{time_of(info.set_ns)} by {info.set_by}" if info.set_ns else "never"),
        ("age", f"{info.age_days} days" if info.fingerprint else ""),
        ("rotate by (UTC)", time_of(info.rotate_by_ns) or "never"),
        ("expires (UTC)", time_of(info.expires_ns) or "never"),
        ("rotations", info.rotations),
        ("verified (UTC)", time_of(info.verified_ns) or "never"),
        ("detail", info.detail or info.trouble),
    ]
    if info.sealed_secret:
        shown.append(("sealed secret", info.sealed_secret))
    shown += [(f"loaded by {process}", time_of(ts_ns)) for process, ts_ns in info.loaded.items()]
    print_fields(invocation_of(ctx), shown)


def _here(info: KeyInfo) -> str:
    return "cannot be read" if info.is_here is None else "yes" if info.is_here else "no"


def _print_infos(invocation: Invocation, infos: list[KeyInfo], output: Format) -> None:
    if output is Format.JSON:
        print_json(infos)
        return
    columns = ["name", "status", "source", "here", "fingerprint", ">age (days)", "rotate by", "expires", "sealed secret"]
    rows = [
        (
            info.name,
            info.status,
            info.source,
            _here(info),
            info.fingerprint,
            info.age_days if info.fingerprint else "",
            time_of(info.rotate_by_ns)[:10],
            time_of(info.expires_ns)[:10] or "never",
            info.sealed_secret,
        )
        for info in infos
    ]
    print_table(invocation, columns, rows, empty="the environment defines no key")


@app.command("verify", epilog=examples("ssmd key verify", "ssmd key verify kalshi --online"))
def verify(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="One key; default: all of the environment.")] = "",
    online: Online = False,
    output: OutputOption = Format.TABLE,
) -> int:
    """Check that keys are set, can be read, are what their type asks for and have not expired.

    Exit status: 0 all are good, 1 one is not.
    """
    from ssmd.registry.integrity import KEY_REFERENCE  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.key_journal import ask_venue  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    signing = KEY_REFERENCE.fullmatch(environment.document.capture.key)

    async def verified(keys: Keys) -> list[Verdict]:
        verdicts = []
        for one in [name] if name else list(environment.document.keys):
            # Of all keys, only the venue's can be shown to the venue.
            is_asked = online and (bool(name) or (signing is not None and signing.group(1) == one))
            ask = (lambda key, fields: ask_venue(environment, invocation.clock, key, fields)) if is_asked else None
            verdicts.append(await keys.verify(one, ask=ask))
        return verdicts

    verdicts = _with_keys(ctx, verified)
    if output is Format.JSON:
        print_json(verdicts)
    else:
        rows = [
            (
                verdict.name,
                "good" if verdict.is_good else "bad",
                "asked" if verdict.is_online else "",
                "; ".join((*verdict.problems, *verdict.notes)),
            )
            for verdict in verdicts
        ]
        print_table(invocation, ["name", "verdict", "venue", "found"], rows, empty="the environment defines no key")
    return OK if all(verdict.is_good for verdict in verdicts) else NO


@app.command("delete", epilog=examples("ssmd key delete kalshi --yes --reason 'no longer used'"))
def delete(
    ctx: typer.Context,
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")] = "",
    yes: YesOption = False,
) -> None:
    """Remove a key's value. Its history stays."""
    import sys  # noqa: PLC0415 - keeps --help quick

    from ssmd.errors import Rejected  # noqa: PLC0415

    _definition_fields(invocation_of(ctx).resolve(), name)
    if not yes:
        if not sys.stdin.isatty():
            raise Rejected("not-confirmed", f"removing the value of {name} must be confirmed", mend="--yes")
        if typer.prompt(f"This removes the value for good. Type {name} to go on", err=True) != name:
            raise Rejected("not-confirmed", "nothing was removed")
    was_there = _with_keys(ctx, lambda keys: keys.delete(name, reason))
    say(f"deleted {name}" if was_there else f"{name} had no value")


@app.command(
    "export",
    epilog=examples(
        "ssmd key export kalshi --sealed-secret exchange-creds --certificate cluster.pem --to deploy/exchange-creds.yaml",
        "ssmd key export kalshi --variables --to kalshi.env",
    ),
)
def export(
    ctx: typer.Context,
    name: NameArgument,
    to: Annotated[Path, typer.Option("--to", metavar="PATH", help="The file to write.")],
    sealed_secret: Annotated[
        str, typer.Option("--sealed-secret", metavar="SECRET", help="Write a SealedSecret of this name.")
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", help="Of the SealedSecret.")] = "ssmd",
    scope: Annotated[str, typer.Option("--scope", help="strict, namespace-wide or cluster-wide.")] = "strict",
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="PATH", help="The cluster's: kubeseal --fetch-cert")
    ] = None,
    variables: Annotated[
        bool, typer.Option("--variables", help="Write SSMD_<KEY>_<FIELD> lines: the secret itself, mode 0600.")
    ] = False,
) -> None:
    """Write a key for somewhere else: sealed for a cluster, or as variables."""
    from ssmd.keys.private_files import write_private  # noqa: PLC0415 - keeps --help quick
    from ssmd.keys.sealing import SealedName  # noqa: PLC0415

    if bool(sealed_secret) == variables:
        raise typer.BadParameter("say one of --sealed-secret SECRET and --variables")
    if sealed_secret and certificate is None:
        raise typer.BadParameter("--sealed-secret needs --certificate PATH")

    async def exported(keys: Keys) -> None:
        if certificate is not None and sealed_secret:
            await keys.export_sealed(name, SealedName(sealed_secret, namespace, scope), certificate, to)
        else:
            write_private(to, (await keys.variable_lines(name)).encode())

    _with_keys(ctx, exported)
    say(f"wrote {to}" + ("" if sealed_secret else ": it holds the secret; remove it when it is where it belongs"))


@app.command("audit", epilog=examples("ssmd key audit", "ssmd key audit kalshi -o json"))
def audit(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="One key; default: all.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what happened to keys: defined, set, rotated, loaded, verified, deleted; by whom and when."""
    lines = _with_keys(ctx, lambda keys: keys.audit(name))
    if output is Format.JSON:
        print_json(lines)
        return
    print_table(
        invocation_of(ctx),
        ["time (UTC)", "key", "event", "by", "fingerprint", "detail"],
        [(time_of(line.ts_ns), line.key, line.event, line.actor, line.fingerprint, line.detail) for line in lines],
        empty="nothing happened to any key",
    )
