"""`ssmd data verify`: whether every archived object is there and is what was sealed; `--repair` mends what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.archive_options import AnyDayOption, FeedOption, feed_of
from ssmd.cli.exit_status import NO, OK, TROUBLE
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say, thousands
from ssmd.cli.progress import ProgressLine

if TYPE_CHECKING:
    from ssmd.archive.repair import Repair
    from ssmd.cli.invocation import Invocation
    from ssmd.services.verifier import Scope, Verification
    from ssmd.wiring.environment import ResolvedEnvironment

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "verify",
    epilog=examples(
        "ssmd data verify",
        "ssmd data verify --feed kalshi --date 2026-05-14 -o json",
        "ssmd data verify --repair --dry-run",
        "ssmd data verify --repair",
    ),
)
def verify(
    ctx: typer.Context,
    feed: FeedOption = "",
    date: AnyDayOption = "",
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is damaged, and journal it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --repair: say what would mend it, change nothing.")] = False,
    output: OutputOption = Format.TABLE,
) -> int:
    """Read and hash every object, and compare with the journal's seals and the manifests.

    --repair takes a damaged object from the replica, the streams or the tape (the very object that was sealed), or makes
    its records again from the raw archive (a revision beside it). What is whole is never touched.

    Exit status 0: all is as sealed (after a repair: again); 1: something is damaged, missing or extra; 2: it could not be
    told.
    """
    from ssmd.services import verifier  # noqa: PLC0415 - keeps --help quick

    if dry_run and not repair:
        raise typer.BadParameter("--dry-run goes with --repair")
    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    scope = verifier.Scope(environment.name, feed_of(environment, feed), date)
    if repair:
        return _repair(invocation, environment, scope, is_dry=dry_run, output=output)
    found = _checked(invocation, environment, scope)
    if output is Format.JSON:
        print_json(found)
    else:
        _print(invocation, found)
    return _status(found)


def _checked(invocation: Invocation, environment: ResolvedEnvironment, scope: Scope) -> Verification:
    from ssmd.services import verifier  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.archive_access import reading_storage  # noqa: PLC0415
    from ssmd.wiring.backends import reading_journal  # noqa: PLC0415

    line = ProgressLine()

    async def checked() -> Verification:
        async with (
            reading_storage(environment, invocation.variables) as storage,
            reading_journal(environment, invocation.variables, say) as journal,
        ):
            return await verifier.verify(storage, journal, scope, lambda done, of: line("objects read", done, of))

    try:
        return run(checked())
    finally:
        line.end()


def _repair(invocation: Invocation, environment: ResolvedEnvironment, scope: Scope, *, is_dry: bool, output: Format) -> int:
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.quality import Asker  # noqa: PLC0415
    from ssmd.wiring.repair import repair_archive  # noqa: PLC0415

    line = ProgressLine()
    asker = Asker(invocation.variables, invocation.clock, system_random, invocation.actor(), say)
    try:
        mended = run(repair_archive(environment, asker, scope, is_dry=is_dry, progress=line))
    finally:
        line.end()
    if output is Format.JSON:
        print_json({"is_dry_run": is_dry, "before": mended.before, "repairs": mended.repairs, "after": mended.after})
    else:
        if mended.repairs:
            print_table(
                invocation,
                ["object", "problem", "would be mended from" if is_dry else "mended from", "as", "tried"],
                [_line(one) for one in mended.repairs],
            )
        _print(invocation, mended.after)
    return _status(mended.after)


def _line(one: Repair) -> tuple[str, ...]:
    beside = f" ({one.key_now.rpartition('/')[2]})" if one.key_now != one.key else ""
    tried = "; ".join(f"{source}: {why}" for source, why in one.tried.items())
    return one.key, one.problem, one.source or "nothing left to repair from", f"{one.fit}{beside}", tried


def _print(invocation: Invocation, found: Verification) -> None:
    print_table(
        invocation,
        ["problem", "object", "detail"],
        [(finding.problem, finding.key, finding.detail) for finding in found.findings],
        empty=f"all is as sealed: {thousands(found.objects)} objects, {thousands(found.size_bytes)} bytes, "
        f"{thousands(found.manifests)} manifests",
    )


def _status(found: Verification) -> int:
    if not found.is_certain:
        return TROUBLE
    return OK if found.is_clean else NO
