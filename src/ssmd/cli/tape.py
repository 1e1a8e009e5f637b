"""`ssmd tape`: what the connector's log holds, whether it is sound, and the streams made again from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, thousands, time_of

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="The connector's log: show it, verify it, make the streams again from it.",
)

ConnectionOption = Annotated[str, typer.Option("--connection", help="Whose tape; default: the environment's connection.")]
TapeOption = Annotated[
    Path | None, typer.Option("--tape", help="A tape's directory, in place of the environment's own.", exists=True)
]


def _directory(invocation: Invocation, connection: str, given: Path | None) -> Path:
    from ssmd.wiring.tape import tape_directory  # noqa: PLC0415 - keeps --help quick

    return given if given is not None else tape_directory(invocation.resolve(), connection)


@app.command("show", epilog=examples("ssmd tape show --env kalshi-dev", "ssmd tape show -o json"))
def show(
    ctx: typer.Context, connection: ConnectionOption = "", tape: TapeOption = None, output: OutputOption = Format.TABLE
) -> None:
    """Show the sessions on a tape: one for each connection made to the venue."""
    from ssmd.streams.tape_summary import summarize  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    summary = summarize(_directory(invocation, connection, tape))
    if output is Format.JSON:
        print_json(summary)
        return
    print_table(
        invocation,
        ["session", "from (UTC)", "to (UTC)", ">frames", ">commands", ">facts", ">blocks", ">bytes", "ended by"],
        [
            (
                one.session,
                time_of(one.first_recv_ns),
                time_of(one.last_recv_ns),
                thousands(one.frames),
                thousands(one.commands),
                thousands(one.facts),
                thousands(one.blocks),
                thousands(one.size_bytes),
                one.cause or "(goes on)",
            )
            for one in summary.sessions
        ],
        empty="the tape is empty",
    )


@app.command("verify", epilog=examples("ssmd tape verify --env kalshi-dev", "ssmd tape verify --tape /backup/tape/main"))
def verify(
    ctx: typer.Context, connection: ConnectionOption = "", tape: TapeOption = None, output: OutputOption = Format.TABLE
) -> int:
    """Check every block's digest, the chain between blocks, and that entries are numbered without a hole.

    Exit status: 0 sound, 1 damaged.
    """
    from ssmd.streams.tape_summary import summarize  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    summary = summarize(_directory(invocation, connection, tape))
    if output is Format.JSON:
        print_json(summary)
    elif summary.damages:
        print_table(
            invocation,
            ["file", ">byte", "what is wrong"],
            [(damage.file, damage.offset, damage.reason) for damage in summary.damages],
        )
    else:
        entries = sum(one.frames + one.commands + one.facts for one in summary.sessions)
        fields = [
            ("verdict", "sound"),
            ("blocks", thousands(summary.blocks)),
            ("entries", thousands(entries)),
            ("sessions", len(summary.sessions)),
            ("bytes", thousands(summary.size_bytes)),
            ("cut tails kept", ", ".join(summary.torn) or "none"),
        ]
        print_fields(invocation, fields)
    return NO if summary.damages else OK


@app.command(
    "republish", epilog=examples("ssmd tape republish --env kalshi-dev", "ssmd tape republish --tape /backup/tape/main")
)
def republish(
    ctx: typer.Context,
    connection: ConnectionOption = "",
    tape: TapeOption = None,
    again: Annotated[
        bool, typer.Option("--all", help="Publish everything, also what the streams hold (consumers drop repeats).")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Fill the running environment's raw and market streams from a tape, as its connector would.

    What the streams hold already is left out. The connector of that tape must not run: it does this by itself.
    """
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.tape import republish_into  # noqa: PLC0415

    invocation = invocation_of(ctx)
    directory = _directory(invocation, connection, tape)
    done = run(
        republish_into(
            directory, invocation.resolve(), invocation.variables, system_random, connection=connection, is_all=again
        )
    )
    if output is Format.JSON:
        print_json(done)
        return
    print_fields(
        invocation,
        [
            ("connection", done.connection),
            ("blocks published", thousands(done.blocks)),
            ("streams hold entries up to", f"{done.reached.session}/{done.reached.n}"),
        ],
    )
