"""`ssmd status`: the whole of an environment on one screen."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.exit_status import NO, OK, TROUBLE
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import (
    Format,
    OutputOption,
    duration_of,
    has_color,
    print_json,
    print_json_line,
    print_table,
    thousands,
    time_of,
)

if TYPE_CHECKING:
    from ssmd.wiring.system_status import ServiceLine, SystemStatus

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_CLEAR = "\x1b[H\x1b[2J"
# What a line says of a component's counters, by name; the rest is in -o json.
_TOLD = (
    ("frames", "frames"),
    ("unacked", "not acknowledged"),
    ("facts_waiting", "facts not journaled"),
    ("records", "records"),
    ("open_segments", "open segments"),
    ("lag", "events behind"),
    ("lag_messages", "messages behind"),
    ("clients", "clients"),
)


@app.command("status", epilog=examples("ssmd status", "ssmd status --watch", "ssmd status -o json | jq .alerts"))
def status(
    ctx: typer.Context,
    is_watched: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.2, max=3600, help="How often, with --watch.")
    ] = 2.0,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show who runs, how far each is, the day, open gaps and what needs a hand.

    Exit status 0 = all is well, 1 = something needs a hand, 2 = something could not be asked.
    """
    invocation = invocation_of(ctx)
    if is_watched:
        _watch(invocation, interval_s, output)
        return
    found = _ask(invocation)
    if output is Format.JSON:
        print_json(found)
    else:
        _show(invocation, found)
    exit_status = TROUBLE if found.unknown else NO if found.alerts else OK
    if exit_status:
        raise typer.Exit(exit_status)


def _ask(invocation: Invocation) -> SystemStatus:
    from ssmd.wiring.system_status import system_status  # noqa: PLC0415 - keeps --help quick

    return run(system_status(invocation.resolve(), invocation.variables, invocation.clock))


def _watch(invocation: Invocation, interval_s: float, output: Format) -> None:
    import asyncio  # noqa: PLC0415 - keeps --help quick

    from ssmd.wiring.system_status import system_status  # noqa: PLC0415 - as above

    async def watched() -> None:
        while True:
            # Resolved each time: the environment may be stopped and started meanwhile.
            found = await system_status(invocation.resolve(), invocation.variables, invocation.clock)
            if output is Format.JSON:
                print_json_line(found)
            else:
                sys.stdout.write(_CLEAR if sys.stdout.isatty() else "")
                _show(invocation, found)
                sys.stdout.flush()
            await asyncio.sleep(interval_s)

    run(watched())


def _show(invocation: Invocation, found: SystemStatus) -> None:
    where = "runs on this machine" if found.is_run_here else "does not run on this machine"
    sys.stdout.write(f"{found.env}: feed {found.feed}, {where}, {time_of(found.at_ns)} UTC\n\n")
    print_table(
        invocation,
        ["server", "state", "where", "why"],
        [(one.name, "ok" if one.ok else "away", one.url, one.reason) for one in found.servers],
        empty="no servers",
    )
    sys.stdout.write("\n")
    print_table(
        invocation,
        ["component", "instance", "state", "version", "how far, and why"],
        [(one.component, one.instance, one.state, one.version, _words(one)) for one in found.services],
        empty="no component answers",
    )
    sys.stdout.write("\n")
    for name, value in _facts(found):
        sys.stdout.write(f"{name.ljust(12)}{value}\n")
    red, yellow, plain = ("\x1b[31m", "\x1b[33m", "\x1b[0m") if has_color(invocation) else ("", "", "")
    for alert in found.alerts:
        sys.stdout.write(f"{red}alert{plain}       {alert}\n")
    for one in found.unknown:
        sys.stdout.write(f"{yellow}unknown{plain}     {one}\n")
    if not found.alerts and not found.unknown:
        sys.stdout.write("all is well\n")


def _words(service: ServiceLine) -> str:
    told = [
        f"{thousands(number) if isinstance(number, int) else number} {words}"
        for name, words in _TOLD
        if (number := service.stats.get(name)) is not None
    ]
    waits_for = service.stats.get("stands_by_for")
    waiting = [f"waits for {waits_for}"] if waits_for else []
    return "; ".join(part for part in (service.reason, *waiting, ", ".join(told)) if part)


def _facts(found: SystemStatus) -> list[tuple[str, str]]:
    facts = []
    if found.day is not None:
        since = found.day.completed_ns or found.day.activated_ns or found.day.start_requested_ns
        facts.append(("day", f"{found.day.date} is {found.day.status}{f' since {time_of(since)}' if since else ''}"))
    for one in found.connections:
        state = "connected" if one.is_connected else f"not connected ({one.cause or 'never was'})"
        lasts = f" for {duration_of(max(0, found.at_ns - one.since_ns))}" if one.since_ns else ""
        facts.append(
            (
                "connection",
                f"{one.connection} {state}{lasts}; {one.sessions} sessions, {one.gaps_opened} gaps, {one.drifts} drifts",
            )
        )
    facts.append(("open gaps", thousands(len(found.gaps_open))))
    return facts
