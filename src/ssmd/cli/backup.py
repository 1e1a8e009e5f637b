"""`ssmd backup`: journal and registry out of harm's way, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, say, thousands, time_of

if TYPE_CHECKING:
    from ssmd.services.backup_format import Backup
    from ssmd.wiring.environment import ResolvedEnvironment

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Copy journal, anchors and registry somewhere else, and bring them back.",
)

_PLACE = "storage (the environment's own), s3://BUCKET/PREFIX (with AWS_* variables), or a directory."
FromOption = Annotated[str, typer.Option("--from", metavar="PLACE", help=f"Where backups are: {_PLACE}")]
IdArgument = Annotated[str, typer.Argument(metavar="[ID]", help="Which backup; default: the newest.")]


@app.command("create", epilog=examples("ssmd backup create", "ssmd backup create --to /mnt/backups"))
def create(
    ctx: typer.Context,
    to: Annotated[str, typer.Option("--to", metavar="PLACE", help=f"Where to: {_PLACE}")] = "storage",
    output: OutputOption = Format.TABLE,
) -> None:
    """Write a backup: the whole journal, its anchors, exchanges/ with its history, and which archive objects there are.

    Works while the environment runs. Keys and the archive's segments are not in it.
    """
    from ssmd.wiring.backup import create_backup  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    backup = run(create_backup(invocation.resolve(), invocation.variables, invocation.clock, to, say))
    if output is Format.JSON:
        print_json(backup)
    else:
        _print_backup(invocation, backup)


@app.command("list", epilog=examples("ssmd backup list", "ssmd backup list --from s3://ssmd-backups/desk"))
def list_(ctx: typer.Context, place: FromOption = "storage", output: OutputOption = Format.TABLE) -> None:
    """Show the backups in a place, the oldest first."""
    from ssmd.wiring.backup import list_backups  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    found = run(list_backups(_environment(invocation, place), invocation.variables, place, _env(invocation)))
    if output is Format.JSON:
        print_json(found)
        return
    rows = [
        (
            one.env,
            one.id,
            time_of(one.created_ns),
            thousands(one.messages),
            thousands(sum(file.size_bytes for file in one.files)),
        )
        for one in found
    ]
    print_table(invocation, ["env", "id", "made (UTC)", ">messages", ">bytes"], rows, empty=f"no backup in {place}")


@app.command("verify", epilog=examples("ssmd backup verify", "ssmd backup verify --from /mnt/backups"))
def verify(
    ctx: typer.Context, identity: IdArgument = "", place: FromOption = "storage", output: OutputOption = Format.TABLE
) -> None:
    """Read one backup whole: every file by its SHA-256, the journal by its digest and its anchors.

    Exit status 2: it is damaged.
    """
    from ssmd.wiring.backup import verify_backup  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = _environment(invocation, place)
    backup = run(verify_backup(environment, invocation.variables, place, _env(invocation), identity))
    if output is Format.JSON:
        print_json(backup)
    else:
        _print_backup(invocation, backup)
        say("whole")


@app.command(
    "restore",
    epilog=examples("ssmd backup restore --from /mnt/backups --into new-place", "ssmd backup restore --from storage --dry-run"),
)
def restore(
    ctx: typer.Context,
    place: Annotated[str, typer.Option("--from", metavar="PLACE", help=f"Where the backup is: {_PLACE}")],
    identity: IdArgument = "",
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", metavar="DIR", help="An empty directory that becomes a workspace; default: this workspace's environment."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the backup, write nothing.")] = False,
    output: OutputOption = Format.TABLE,
) -> int:
    """Make a workspace or an empty journal again from a backup, then compare projections and anchors with it.

    Nothing is written where the journal holds anything else. Interrupted, the same command goes on.
    Exit status: 0 equal, 1 different or refused.
    """
    from ssmd.wiring.backup import restore_backup  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    restored = run(
        restore_backup(
            invocation.variables,
            invocation.clock,
            place,
            say,
            here=invocation.workspace,
            env=_env(invocation) if into is None else invocation.env,
            identity=identity,
            into=into,
            dry_run=dry_run,
        )
    )
    verdict = "not written" if dry_run else "equal" if restored.is_equal else "different"
    if output is Format.JSON:
        print_json({"verdict": verdict, "restored": restored})
    else:
        compared = f"{restored.projections} projections and {restored.anchors} anchors compared"
        print_fields(
            invocation,
            [
                ("backup", f"{restored.env} {restored.id}"),
                ("workspace", restored.workspace or "none (dry run)"),
                ("journal", f"{thousands(restored.written)} of {thousands(restored.messages)} messages written"),
                ("verdict", verdict if dry_run else f"{verdict}: {compared}"),
                *(("different", one) for one in restored.differences),
                ("archive", f"{thousands(restored.objects_missing)} of {thousands(restored.objects)} objects are not there"),
            ],
        )
        for note in restored.notes:
            say(note)
        for key in restored.keys:
            say(f"set key {key.name} again ({key.source}: {', '.join(key.fields)}): ssmd key set {key.name}")
    return OK if restored.is_equal else NO


def _env(invocation: Invocation) -> str:
    """Which environment's backups: the one that is meant; of a place outside of any workspace, all unless --env says."""
    from ssmd.errors import Misconfigured  # noqa: PLC0415 - keeps --help quick

    try:
        return invocation.environment_name()
    except Misconfigured:
        return invocation.env


def _environment(invocation: Invocation, place: str) -> ResolvedEnvironment | None:
    return invocation.resolve() if place == "storage" else None


def _print_backup(invocation: Invocation, backup: Backup) -> None:
    print_fields(
        invocation,
        [
            ("backup", backup.id),
            ("environment", backup.env),
            ("made (UTC)", time_of(backup.created_ns)),
            ("registry", backup.config or "not under git"),
            ("journal", f"{thousands(backup.messages)} messages, digest {backup.journal_sha256}"),
            ("projections", len(backup.projections)),
            ("archive", f"{thousands(backup.objects)} objects of {thousands(backup.object_bytes)} bytes are named, not held"),
            ("keys to set again", ", ".join(key.name for key in backup.keys) or "none"),
        ],
    )
