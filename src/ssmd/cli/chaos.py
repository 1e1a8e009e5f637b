"""`ssmd chaos`: kill a running system on purpose, by a seed, and prove that nothing is lost."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say

if TYPE_CHECKING:
    from ssmd.wiring.chaos import ChaosReport

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Kill processes on purpose.")


@app.callback()
def _group() -> None:
    """Kill processes on purpose, and prove that nothing is lost."""


@app.command("run", epilog=examples("ssmd chaos run", "ssmd chaos run --seed 42 --rounds 10 --kill connector,nats-transport"))
def chaos_run(
    ctx: typer.Context,
    seed: Annotated[int, typer.Option("--seed", help="Of the market and of the kills; a failed one can be run again.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=0, help="Waves in which every target dies at a random instant.")] = 3,
    kill: Annotated[str, typer.Option("--kill", help="What dies, with commas between; default: everything.")] = "",
    points: Annotated[bool, typer.Option("--points/--no-points", help="Also kill at every named crash point.")] = True,
    keep: Annotated[Path | None, typer.Option("--keep", help="Where its data stays; default: it is deleted.")] = None,
    output: OutputOption = Format.TABLE,
) -> int:
    """Capture a simulated market in a workspace of its own while its processes and servers are killed with SIGKILL.

    Then compare tape, archive, journal and answers with what an undisturbed run would hold. Exit status: 0 all holds,
    1 something does not; its data is kept then.
    """
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.services.chaos.plan import checked_targets, every_crash_point, random_kills  # noqa: PLC0415
    from ssmd.telemetry.logging import configure_logging  # noqa: PLC0415
    from ssmd.wiring.chaos import Chaos  # noqa: PLC0415

    invocation = invocation_of(ctx)
    configure_logging("chaos", invocation.clock, sys.stderr, level="error")
    targets = checked_targets([name.strip() for name in kill.split(",") if name.strip()])
    waves = [*(every_crash_point(targets, seed) if points else []), *random_kills(rounds, targets, seed)]
    directory = keep if keep is not None else Path(tempfile.mkdtemp(prefix="ssmd-chaos-"))
    say(f"seed {seed}: {sum(len(wave) for wave in waves)} kills in {len(waves)} waves, in {directory}")
    chaos = Chaos(invocation.variables, invocation.clock, system_random, say, seed=seed)
    report = run(chaos.run(directory, waves))
    if output is Format.JSON:
        print_json({"is_ok": report.is_ok, "report": report})
    else:
        _show(invocation, report)
    if report.is_ok and keep is None:
        shutil.rmtree(directory, ignore_errors=True)
    if not report.is_ok:
        say(f"what it left is in {directory}; again: ssmd chaos run --seed {seed} --rounds {rounds}")
    return OK if report.is_ok else NO


def _show(invocation: Invocation, report: ChaosReport) -> None:
    killed: dict[tuple[str, str], list[float]] = {}
    for strike in report.strikes:
        killed.setdefault((strike.target, strike.point or "at random instants"), []).append(strike.back_s)
    print_table(
        invocation,
        ["killed", "where", ">times", ">back after, longest"],
        [(target, where, len(times), f"{max(times):.1f} s") for (target, where), times in sorted(killed.items())],
        empty="nothing was killed",
    )
    sys.stdout.write("\n")
    print_table(
        invocation,
        ["verdict", "what must hold", "detail"],
        [("holds" if check.is_ok else "BROKEN", check.name, check.detail) for check in report.checks],
    )
    sys.stdout.write(f"\nseed {report.seed}: {'everything holds' if report.is_ok else 'BROKEN'}\n")
