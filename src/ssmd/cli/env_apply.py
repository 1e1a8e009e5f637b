"""`ssmd env apply|teardown`: what an environment keeps in servers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.completion import complete_environment
from ssmd.cli.exit_status import OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, checked_date, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say
from ssmd.cli.registry_output import DryRunOption

if TYPE_CHECKING:
    from ssmd.wiring.apply import Step
    from ssmd.wiring.environment import ResolvedEnvironment

app = typer.Typer(add_completion=False, rich_markup_mode=None)

NameArgument = Annotated[
    str, typer.Argument(help="Environment; default: the current one.", autocompletion=complete_environment)
]


def _print_steps(invocation: Invocation, steps: list[Step], output: Format, empty: str) -> None:
    if output is Format.JSON:
        print_json([step._asdict() for step in steps])
        return
    rows = [(step.action, step.kind, step.name, step.detail) for step in steps]
    print_table(invocation, ["action", "what", "name", "detail"], rows, empty=empty)


@app.command("apply", epilog=examples("ssmd env apply kalshi-dev --dry-run", "ssmd env apply kalshi-dev"))
def apply(
    ctx: typer.Context,
    name: NameArgument = "",
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="Apply changes that are not committed; the journal records them.")
    ] = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Format.TABLE,
) -> int:
    """Bring streams and storage to what the documents say, and journal that. Doing it again changes nothing.

    Embedded servers that are off are run meanwhile.
    """
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring import apply as applying  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve(name)
    uncommitted = applying.uncommitted_changes(environment)
    if not allow_dirty and not dry_run:
        applying.refuse_uncommitted(environment, uncommitted)

    async def applied() -> tuple[list[Step], bool]:
        async with applying.reached_servers(environment, invocation.variables, say) as servers:
            plan = await applying.plan_apply(servers)
            _print_steps(invocation, plan, output, "nothing to change")
            if dry_run:
                return [], False
            return await applying.apply(
                servers, uncommitted, clock=invocation.clock, random=system_random, actor=invocation.actor()
            )

    steps, is_new = run(applied())
    if dry_run:
        for words in uncommitted:
            say(f"not committed: {words}")
        return OK
    say(f"{environment.name}: {len(steps)} changes done")
    commit = environment.config[:12] or "no commit"
    say(f"recorded environment.applied ({commit})" if is_new else f"applied before, as it is ({commit})")
    return OK


@app.command(
    "teardown", epilog=examples("ssmd env teardown kalshi-dev --dry-run", "ssmd env teardown kalshi-dev --date 2026-05-14")
)
def teardown(
    ctx: typer.Context,
    name: NameArgument = "",
    date: Annotated[
        str,
        typer.Option("--date", metavar="DATE", help="Remove only the archived objects of this day.", callback=checked_date),
    ] = "",
    archive: Annotated[bool, typer.Option("--archive", help="Remove all archived objects too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Format.TABLE,
) -> int:
    """Remove what the environment keeps in servers: its streams and its cache; archived data only with --date or --archive.

    The journal stays, and records it. Nothing outside of the environment's own names is touched. The tape stays too.
    """
    from ssmd.errors import Rejected  # noqa: PLC0415 - keeps --help quick
    from ssmd.identifiers import system_random  # noqa: PLC0415
    from ssmd.wiring import apply as applying  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve(name)
    if environment.run is not None and not dry_run:
        raise Rejected("environment-running", f"{environment.name} is running", mend=f"stop it: kill {environment.run.pid}")

    async def torn_down() -> list[Step] | None:
        async with applying.reached_servers(environment, invocation.variables, say) as servers:
            plan = await applying.plan_teardown(servers, date, with_archive=archive)
            _print_steps(invocation, plan, output, "nothing to remove")
            if dry_run or not plan:
                return None
            if not yes:
                _confirm(environment, len(plan))
            return await applying.teardown(
                servers, date, with_archive=archive, clock=invocation.clock, random=system_random, actor=invocation.actor()
            )

    removed = run(torn_down())
    if removed is not None:
        say(f"removed {len(removed)}; the journal of {environment.name} stays, and says so")
    return OK


def _confirm(environment: ResolvedEnvironment, count: int) -> None:
    """Ask for the environment's name. Raises Rejected for another answer, or where nobody can be asked."""
    from ssmd.errors import Rejected  # noqa: PLC0415 - keeps --help quick

    if not sys.stdin.isatty():
        raise Rejected("not-confirmed", f"removing {count} of {environment.name} must be confirmed", mend="--yes")
    answer = typer.prompt(f"This removes all of the above for good. Type {environment.name} to go on", err=True)
    if answer != environment.name:
        raise Rejected("not-confirmed", f"nothing was removed: {answer!r} is not {environment.name!r}")
