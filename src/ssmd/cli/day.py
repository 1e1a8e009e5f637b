"""`ssmd day`: start, end and show trading days."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ssmd.cli.as_of import AsOfOption
from ssmd.cli.data import ask
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, checked_date, invocation_of, run
from ssmd.cli.output import Format, OutputOption, duration_of, print_fields, print_json, print_table, say, thousands, time_of

if TYPE_CHECKING:
    from ssmd.projections.days import Day
    from ssmd.projections.queries import AuditLine, DayInventory
    from ssmd.projections.views import Views
    from ssmd.wiring.day_asking import Verb
    from ssmd.wiring.environment import ResolvedEnvironment

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Start, end and show trading days.")

FOLLOW_POLL_S = 0.5
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DateOption = Annotated[
    str,
    typer.Option("--date", metavar="DATE", help="YYYY-MM-DD; default: today in the environment's zone.", callback=checked_date),
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")]
FollowOption = Annotated[
    bool, typer.Option("--follow/--no-follow", help="Tell each step until it is done, or leave it to its workflow.")
]
NoTemporalOption = Annotated[
    bool, typer.Option("--no-temporal", help="Do the steps in this process, whatever Temporal there is.")
]


def _date_of(invocation: Invocation, environment: ResolvedEnvironment, given: str) -> str:
    from ssmd.wiring.trading_day import today_in  # noqa: PLC0415 - keeps --help quick

    return given or today_in(environment.document.timezone, invocation.clock)


def _proceed(
    ctx: typer.Context, verb: Verb, given: str, reason: str, output: Format, *, force: bool, follow: bool, no_temporal: bool
) -> None:
    """Have it done, telling each step on stderr; then show where the day stands."""
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.day_asking import DayAsker  # noqa: PLC0415
    from ssmd.wiring.trading_day import refuse_date, today_in  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    date = _date_of(invocation, environment, given)
    today = today_in(environment.document.timezone, invocation.clock)
    if verb != "recover":
        refuse_date("end" if verb == "end" else "start", date, today, is_forced=force, reason=reason)
    asker = DayAsker(
        environment,
        invocation.variables,
        invocation.clock,
        system_random,
        invocation.actor(),
        say,
        by_workflow=not no_temporal,
        follows=follow,
    )
    state = run(asker.force_end(date, reason) if force and verb == "end" else asker.go(verb, date, reason))
    if output is Format.JSON:
        print_json(state)
    elif state.totals is not None:
        print_fields(invocation, _totals(state.totals))


@app.command("start", epilog=examples("ssmd day start", "ssmd day start --no-follow"))
def start(
    ctx: typer.Context,
    date: DateOption = "",
    reason: ReasonOption = "",
    force: Annotated[bool, typer.Option("--force", help="Start yesterday still; needs --reason.")] = False,
    follow: FollowOption = True,
    no_temporal: NoTemporalOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Start today's trading day: the security master is synced, and once every component is healthy the day is active.

    Starting an active day does nothing; one that somebody else starts at this moment is refused, and who it is is told.
    """
    _proceed(ctx, "start", date, reason, output, force=force, follow=follow, no_temporal=no_temporal)


@app.command("end", epilog=examples("ssmd day end", "ssmd day end --force --reason 'the machine burnt down'"))
def end(
    ctx: typer.Context,
    date: DateOption = "",
    reason: ReasonOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="End it without its steps, its totals unknown; any past day; needs --reason.")
    ] = False,
    follow: FollowOption = True,
    no_temporal: NoTemporalOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """End today's or yesterday's trading day: publish, seal and project what is held by now, read the archive, count.

    The capture goes on.
    """
    _proceed(ctx, "end", date, reason, output, force=force, follow=follow, no_temporal=no_temporal)


@app.command("roll", epilog=examples("ssmd day roll"))
def roll(
    ctx: typer.Context,
    date: DateOption = "",
    reason: ReasonOption = "",
    follow: FollowOption = True,
    no_temporal: NoTemporalOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """End the day before, where it is still on, and start today's."""
    _proceed(ctx, "roll", date, reason, output, force=False, follow=follow, no_temporal=no_temporal)


@app.command("recover", epilog=examples("ssmd day recover", "ssmd day recover --date 2026-05-14"))
def recover(
    ctx: typer.Context,
    date: DateOption = "",
    reason: ReasonOption = "",
    follow: FollowOption = True,
    no_temporal: NoTemporalOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Go on with a day where an error, a failure or a dead process left it; a workflow that waits tries again at once."""
    _proceed(ctx, "recover", date, reason, output, force=False, follow=follow, no_temporal=no_temporal)


@app.command("status", epilog=examples("ssmd day status", "ssmd day status --date 2026-05-14 -o json"))
def status(
    ctx: typer.Context,
    date: DateOption = "",
    as_of: AsOfOption = "",
    follow: Annotated[bool, typer.Option("--follow", help="Tell each step as it is done, until the day stands still.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show where a trading day stands."""
    from ssmd.projections import queries  # noqa: PLC0415 - keeps --help quick

    if follow and as_of:
        raise typer.BadParameter("--follow tells what is done from now on: not with --as-of")
    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    day = _date_of(invocation, environment, date)
    found = ask(invocation, environment, lambda views: queries.day_status(views, day), "days", as_of=as_of)
    if follow:
        found = _followed(invocation, environment, found)
    if output is Format.JSON:
        print_json(found)
        return
    print_fields(invocation, _day_fields(found))


def _followed(invocation: Invocation, environment: ResolvedEnvironment, found: Day) -> Day:
    """The day once it is neither starting nor ending, or nobody is there who would go on; each step is told when it is done."""
    import time  # noqa: PLC0415 - keeps --help quick

    from ssmd.projections import queries  # noqa: PLC0415
    from ssmd.services.run_file import live_run  # noqa: PLC0415

    told, date = len(found.steps), found.date
    while found.status in {"starting", "ending"}:
        if environment.is_embedded("journal") and live_run(environment.directory) is None:
            say(f"{environment.name} does not run, the day stays so: ssmd up {environment.name}, then ssmd day recover")
            break
        time.sleep(FOLLOW_POLL_S)
        found = ask(invocation, environment, lambda views: queries.day_status(views, date), "days")
        for step in found.steps[min(told, len(found.steps)) :]:
            say(f"{step.step}{f' ({step.detail})' if step.detail else ''}")
        told = len(found.steps)
    return found


def _day_fields(found: Day) -> list[tuple[str, object]]:
    fields: list[tuple[str, object]] = [("date", found.date), ("status", found.status)]
    if found.error:
        fields.append(("error", found.error))
    for name, moment, actor, reason in (
        ("start requested", found.start_requested_ns, found.started_by, found.start_reason),
        ("active since", found.activated_ns, "", ""),
        ("end requested", found.end_requested_ns, found.ended_by, found.end_reason),
        ("complete since", found.completed_ns, "", ""),
    ):
        if moment:
            by = f" by {actor}" if actor else ""
            fields.append((name, f"{time_of(moment)}{by}{f': {reason}' if reason else ''}"))
    fields += [(f"{phase} took", duration_of(nanoseconds)) for phase, nanoseconds in _took(found)]
    fields += [
        (f"{step.phase} step", f"{time_of(step.ts_ns)} {step.step}{f' ({step.detail})' if step.detail else ''}")
        for step in found.steps
    ]
    if found.totals is not None:
        fields += _totals(found.totals)
    return fields


def _took(found: Day) -> Iterator[tuple[str, int]]:
    """How long each phase took that is over, in nanoseconds."""
    for phase, begun_ns, done_ns in (
        ("start", found.start_requested_ns, found.activated_ns),
        ("end", found.end_requested_ns, found.completed_ns),
    ):
        if begun_ns and done_ns >= begun_ns:
            yield phase, done_ns - begun_ns


def _archive_fields(found: DayInventory | None) -> list[tuple[str, object]]:
    if found is None:
        return [("archive", "nothing is stored")]
    counts = f"{thousands(found.lines)} raw lines, {thousands(found.records)} records, {thousands(found.segments)} segments"
    open_gaps = f", {thousands(found.open_gaps)} of them open" if found.open_gaps else ""
    return [("archive", f"{found.status}: {counts}"), ("holes", f"{thousands(found.gaps)}{open_gaps}")]


@app.command(
    "show", epilog=examples("ssmd day show --date 2026-05-14", "ssmd day show --date 2026-05-14 --as-of 2026-05-14T18:00Z")
)
def show(ctx: typer.Context, date: DateOption = "", as_of: AsOfOption = "", output: OutputOption = Format.TABLE) -> None:
    """Show where a trading day stands and how it came to that: who did what to it, when, how long it took, and for which
    request (a workflow's is its name); what of its data is archived, and how many holes there are.
    """
    from ssmd.projections import queries  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    day = _date_of(invocation, environment, date)

    async def asked(views: Views) -> tuple[queries.DayHistory, list[queries.DayInventory]]:
        feed = environment.document.feed
        return await queries.day_history(views, day), await queries.days_inventory(views, feed, day, day)

    found, inventory = ask(invocation, environment, asked, "days", "inventory", "quality", "gaps", as_of=as_of)
    archive = inventory[0] if inventory else None
    subject = f"trading-day/{day}"
    lines = [one for one in queries.audit(found) if one.line.subject == subject]
    if output is Format.JSON:
        took = dict(_took(found.day))
        print_json({"day": found.day, "took_ns": took, "archive": archive, "lines": lines})
        return
    print_fields(invocation, [*_day_fields(found.day), *_archive_fields(archive)])
    print_table(
        invocation,
        [">position", "time (UTC)", "who", "what", "request", "correlation", "causation"],
        [
            (
                one.line.position,
                time_of(one.line.at_ns),
                one.line.actor,
                one.line.what,
                one.request,
                one.line.correlation_id,
                one.line.causation_id,
            )
            for one in lines
        ],
        empty=f"nobody did anything to {day}",
    )


@app.command(
    "history",
    epilog=examples("ssmd day history --date 2026-05-14", "ssmd day history --as-of 812", "ssmd day history -o json"),
)
def history(ctx: typer.Context, date: DateOption = "", as_of: AsOfOption = "", output: OutputOption = Format.TABLE) -> None:
    """Show who did what on a date, when and why: the request it belongs to, and the position of the event that led to it."""
    from ssmd.projections import queries  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    day = _date_of(invocation, environment, date)
    found = ask(invocation, environment, lambda views: queries.day_history(views, day), "days", as_of=as_of)
    if output is Format.JSON:
        print_json(found)
        return
    print_table(
        invocation,
        ["time (UTC)", "who", "subject", "what", "why"],
        [(time_of(one.line.at_ns), one.line.actor, one.line.subject, one.line.what, _why(one)) for one in queries.audit(found)],
        title=f"{environment.name} {day}: {found.day.status}",
        empty=f"nothing happened on {day} that the journal knows of",
    )


def _why(one: AuditLine) -> str:
    """Short: the JSON has the ids whole. Of a UUID its end is told, which is the part that differs; others are names."""
    request = f"request {_short(one.line.correlation_id)}" if one.line.correlation_id else ""
    cause = f"after {one.cause_position}" if one.cause_position is not None else ""
    return ", ".join(part for part in (request, cause) if part)


def _short(correlation_id: str) -> str:
    return correlation_id[-8:] if _UUID.fullmatch(correlation_id) else correlation_id


@app.command("list", epilog=examples("ssmd day list"))
def list_days(ctx: typer.Context, as_of: AsOfOption = "", output: OutputOption = Format.TABLE) -> None:
    """List every trading day that was ever asked for."""
    from ssmd.projections import queries  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    days = ask(invocation, invocation.resolve(), queries.days, "days", as_of=as_of)
    if output is Format.JSON:
        print_json(days)
        return
    print_table(
        invocation,
        ["date", "status", "active since", "complete since", ">frames", ">records", ">gaps", "error"],
        [_row(day) for day in days],
        empty="no trading day was ever started",
    )


def _row(day: Day) -> tuple[object, ...]:
    totals = day.totals
    counts = (
        ("", "", "")
        if totals is None
        else (thousands(totals.messages), thousands(sum(totals.records.values())), thousands(totals.gaps))
    )
    return (day.date, day.status, time_of(day.activated_ns), time_of(day.completed_ns), *counts, day.error)


def _totals(totals: object) -> list[tuple[str, object]]:
    from ssmd.domain.trading_day import Totals  # noqa: PLC0415 - keeps --help quick

    if not isinstance(totals, Totals):
        return []
    return [
        ("frames", thousands(totals.messages)),
        *((f"records {kind}", thousands(count)) for kind, count in totals.records.items()),
        ("segments", thousands(totals.segments)),
        ("bytes", thousands(totals.size_bytes)),
        ("gaps", thousands(totals.gaps)),
    ]
