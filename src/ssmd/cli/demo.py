"""`ssmd demo`: the whole main job, in a workspace of its own."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, duration_of, has_color, print_json, print_table, say, thousands, time_of

if TYPE_CHECKING:
    from ssmd.projections.queries import GapLine
    from ssmd.wiring.demo import DemoReport

app = typer.Typer(add_completion=False, rich_markup_mode=None)

PROGRESS_EVERY = 8
"""Without a terminal only each so-many-th progress line is shown."""


class _Teller:
    """Tells the demo on stderr; the answers go to stdout."""

    def __init__(self, invocation: Invocation) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bold = ("\x1b[1m", "\x1b[0m") if self._is_terminal and has_color(invocation) else ("", "")
        self._lines = 0
        self._has_progress = False

    def step(self, text: str) -> None:
        self._end_progress()
        say(f"\n{self._bold[0]}==> {text}{self._bold[1]}")

    def say(self, text: str) -> None:
        self._end_progress()
        say(f"    {text}")

    def progress(self, text: str) -> None:
        self._lines += 1
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[2K    {text}")
            sys.stderr.flush()
            self._has_progress = True
        elif self._lines % PROGRESS_EVERY == 1:
            say(f"    {text}")

    def _end_progress(self) -> None:
        if self._has_progress:
            sys.stderr.write("\n")
            self._has_progress = False

    def gaps(self, gaps: tuple[GapLine, ...]) -> None:
        for gap in gaps:
            until = "and is still open" if gap.end_ns is None else f"to {time_of(gap.end_ns)}"
            length = "" if gap.end_ns is None else f" ({duration_of(gap.end_ns - gap.start_ns)})"
            self.say(f"missing from {time_of(gap.start_ns)} {until}{length}, {_tickers_of(gap)} tickers")
            self.say(f"because: {gap.cause}; {gap.evidence}")


@app.command("demo", epilog=examples("ssmd demo", "ssmd demo --capture frames.jsonl.zst -o json"))
def demo(
    ctx: typer.Context,
    capture: Annotated[
        Path | None,
        typer.Option("--capture", help="Capture these frames (.jsonl, .jsonl.zst) instead of a seeded market; kills nothing."),
    ] = None,
    keep: Annotated[Path | None, typer.Option("--keep", help="Where its data stays; default: .ssmd/demo.")] = None,
    output: OutputOption = Format.TABLE,
) -> int:
    """Capture a simulated market, kill the connector, name the hole, rebuild the views, show what is held."""
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.telemetry.logging import configure_logging  # noqa: PLC0415
    from ssmd.wiring.demo import Demo  # noqa: PLC0415

    invocation = invocation_of(ctx)
    configure_logging("demo", invocation.clock, sys.stderr, level="warning")
    directory = keep if keep is not None else invocation.workspace.state / "demo"
    staged = Demo(invocation.variables, invocation.clock, system_random, invocation.actor(), _Teller(invocation))
    report = run(staged.run(directory, capture))
    if output is Format.JSON:
        print_json(report)
    else:
        _show(invocation, report)
    return 1 if report.is_rebuilt_equal is False else 0


def _show(invocation: Invocation, report: DemoReport) -> None:
    answers = report.answers
    for history in answers.history:
        print_heading(f"What happened on {history.day.date} (ssmd day history)")
        print_table(
            invocation,
            ["time (UTC)", "who", "what"],
            # The date is in the heading, and whom it concerns nearly always is who says it.
            [(time_of(line.at_ns).partition(" ")[2], line.actor, line.what) for line in history.lines],
        )
    print_heading("What there is (ssmd data inventory)")
    print_table(
        invocation,
        ["date", "type", "kind", "status", ">segments", ">records", ">bytes", "first received", "last received"],
        [
            (
                line.date,
                line.type,
                line.kind,
                line.status,
                thousands(line.segments),
                thousands(line.records),
                thousands(line.size_bytes),
                time_of(line.ts_recv_first_ns),
                time_of(line.ts_recv_last_ns),
            )
            for line in answers.inventory
        ],
    )
    print_heading("What is missing (ssmd data gaps)")
    print_table(
        invocation,
        ["from", "to", ">length", ">tickers", "cause", "evidence"],
        [
            (
                time_of(gap.start_ns),
                "open" if gap.end_ns is None else time_of(gap.end_ns),
                "" if gap.end_ns is None else duration_of(gap.end_ns - gap.start_ns),
                _tickers_of(gap),
                gap.cause,
                gap.evidence,
            )
            for gap in answers.gaps
        ],
        empty="no known gap",
    )
    _show_where(report)


def _show_where(report: DemoReport) -> None:
    """Where to look next, as commands to paste."""
    raw = next((one.path for one in report.segments if one.path.endswith(".jsonl.zst")), "")
    book = next((one.path for one in report.segments if "/book/" in one.path), "")
    workspace = Path(report.workspace)
    shown = workspace.relative_to(Path.cwd()) if workspace.is_relative_to(Path.cwd()) else workspace
    print_heading("Where to look")
    ssmd = f"{_own_name()} --workspace {shlex.quote(str(shown))}"
    lines = [f"{ssmd} day history", f"{ssmd} data gaps --feed kalshi", f"{ssmd} journal show"]
    if raw:
        lines.append(f"zstdcat {_short(raw)} | jq .frame")
    if book:
        definition = _short(str(workspace / "exchanges" / "schemas" / "market.capnp"))
        lines.append(f"zstdcat {_short(book)} | capnp decode {definition} Record")
    for line in lines:
        sys.stdout.write(f"  {line}\n")
    if report.is_rebuilt_equal is not None:
        verdict = "the same answers" if report.is_rebuilt_equal else "DIFFERENT answers"
        sys.stdout.write(f"\nThe cache and all manifests were deleted and rebuilt from the journal: {verdict}.\n")


def print_heading(text: str) -> None:
    """A heading between tables."""
    sys.stdout.write(f"\n{text}\n\n")


def _tickers_of(gap: GapLine) -> int | str:
    """How many; "all" where it concerns a channel as a whole and names none."""
    return sum(1 for ticker in gap.tickers if ticker != "*") or "all"


def _own_name() -> str:
    """How this program is called from here: by its name where the shell finds it, else by its path (`.venv/bin/ssmd`)."""
    called = Path(sys.argv[0])
    found = shutil.which("ssmd")
    if called.name != "ssmd" or (found is not None and Path(found).resolve() == called.resolve()):
        return "ssmd"
    return _short(str(called.absolute()))


def _short(path: str) -> str:
    """From the current directory where it lies below, and as a shell takes it."""
    given = Path(path)
    return shlex.quote(str(given.relative_to(Path.cwd())) if given.is_relative_to(Path.cwd()) else path)
