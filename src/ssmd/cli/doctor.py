"""`ssmd doctor`: is this machine, and is this environment, fit to run?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say

if TYPE_CHECKING:
    from ssmd.errors import SsmdError
    from ssmd.wiring.environment import ResolvedEnvironment

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("doctor", epilog=examples("ssmd doctor", "ssmd doctor --env kalshi-prod -o json", "ssmd doctor --machine"))
def doctor(
    ctx: typer.Context,
    machine: Annotated[bool, typer.Option("--machine", help="Look at the machine only.")] = False,
    output: OutputOption = Format.TABLE,
) -> int:
    """Check this machine and an environment, and say what to do. Changes nothing.

    The machine: Python, server programs, git, disk, memory, open files, clock, locale. The environment: registry, keys,
    storage, tape disk, certificate, port, servers, streams, components and their lag.
    Exit status: 0 all is well, 1 warnings, 2 something will not work.
    """
    from ssmd.errors import SsmdError  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.doctor import examine, status_of  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment: ResolvedEnvironment | SsmdError | None = None
    if not machine:
        try:
            environment = invocation.resolve()
        except SsmdError as error:
            environment = error
    findings = run(examine(invocation.workspace, environment, invocation.variables, invocation.clock))
    status = status_of(findings)
    if output is Format.JSON:
        print_json({"verdict": ("ok", "warn", "fail")[status], "findings": findings})
        return status
    print_table(invocation, ["check", "verdict", "found"], [(one.check, one.verdict, one.found) for one in findings])
    for one in findings:
        if one.mend:
            say(f"{one.verdict}: {one.check}: {one.found}\n  try: {one.mend}")
    return status
