"""`ssmd data prune` and `ssmd data hold`: what is deleted for its age, and what is kept all the same."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ssmd.cli.archive_options import FeedOption, feed_of
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, checked_date, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say, thousands
from ssmd.cli.progress import ProgressLine

if TYPE_CHECKING:
    from ssmd.services.pruner import HeldPartition, Pruner
    from ssmd.wiring.environment import ResolvedEnvironment

Answer = TypeVar("Answer")

app = typer.Typer(add_completion=False, rich_markup_mode=None)
hold_app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Keep dates from being pruned, and say why."
)


def _days(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,4})d", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no age: expected days, such as 90d")
    return int(match.group(1))


def _pruning(invocation: Invocation, environment: ResolvedEnvironment, work: Callable[[Pruner], Awaitable[Answer]]) -> Answer:
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.quality import Asker  # noqa: PLC0415
    from ssmd.wiring.retention import pruner_of  # noqa: PLC0415

    asker = Asker(invocation.variables, invocation.clock, system_random, invocation.actor(), say)

    async def done() -> Answer:
        async with pruner_of(environment, asker) as pruner:
            return await work(pruner)

    return run(done())


@app.command(
    "prune",
    epilog=examples("ssmd data prune --older-than 90d --dry-run", "ssmd data prune --older-than 90d", "ssmd data prune"),
)
def prune(
    ctx: typer.Context,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Days (90d). Default: the environment's retention.")
    ] = "",
    feed: FeedOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, delete nothing.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Delete archived segments of old dates, and journal it.

    Kept all the same: what a hold lies on, what is still open, and, where the environment names a replica, what is not
    whole there (its copy is read and hashed). A run that was killed is completed by the next one.
    """
    from ssmd.errors import Misconfigured  # noqa: PLC0415 - keeps --help quick
    from ssmd.services.pruner import TYPES  # noqa: PLC0415
    from ssmd.wiring.retention import retention_of  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)
    days = dict.fromkeys(TYPES, _days(older_than)) if older_than else retention_of(environment)
    if not days:
        raise Misconfigured(f"{environment.name} keeps everything for ever", mend="--older-than 90d, or set its retention")
    line = ProgressLine()
    try:
        done = _pruning(
            invocation,
            environment,
            lambda pruner: pruner.prune(days, invocation.today, is_dry=dry_run, progress=line),
        )
    finally:
        line.end()
    if output is Format.JSON:
        print_json({"is_dry_run": dry_run, **{name: getattr(done, name) for name in done.__struct_fields__}})
        return
    word = "would be pruned" if dry_run else "pruned"
    print_table(
        invocation,
        ["date", "type", "partition", ">segments", ">bytes", "what"],
        [
            (
                one.date,
                one.type,
                one.partition,
                thousands(one.segments),
                thousands(one.size_bytes),
                f"kept: {one.why_not}" if one.why_not else word,
            )
            for one in done.partitions
        ],
        empty="nothing is that old",
    )
    say(f"{word}: {thousands(done.deleted)} segments, {thousands(done.size_bytes)} bytes")
    if done.leftovers:
        say(f"{thousands(done.leftovers)} objects were left by a run that was killed; they are deleted now")


_NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the hold.")]


@hold_app.command(
    "add", epilog=examples('ssmd data hold add audit --from 2026-05-01 --to 2026-05-31 --reason "the desk asked for it"')
)
def add(
    ctx: typer.Context,
    name: _NameArgument,
    date_from: Annotated[str, typer.Option("--from", metavar="DATE", help="First date.", callback=checked_date)],
    reason: Annotated[str, typer.Option("--reason", help="Why it has to be kept.")],
    date_to: Annotated[
        str, typer.Option("--to", metavar="DATE", help="Last date, inclusive. Default: the first.", callback=checked_date)
    ] = "",
    feed: FeedOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Keep what is archived of some dates from being pruned."""
    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)
    if date_to and date_to < date_from:
        raise typer.BadParameter(f"--to {date_to} is before --from {date_from}")
    held = _pruning(invocation, environment, lambda pruner: pruner.hold(name, reason, date_from, date_to or date_from))
    _print_holds(invocation, held, output, "")


@hold_app.command("remove", epilog=examples("ssmd data hold remove audit"))
def remove(ctx: typer.Context, name: _NameArgument, feed: FeedOption = "", output: OutputOption = Format.TABLE) -> None:
    """Take a hold off everything it lies on."""
    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)
    _print_holds(invocation, _pruning(invocation, environment, lambda pruner: pruner.release(name)), output, "")


@hold_app.command("list", epilog=examples("ssmd data hold list", "ssmd data hold list -o json"))
def list_(ctx: typer.Context, feed: FeedOption = "", output: OutputOption = Format.TABLE) -> None:
    """Show every hold, and where it lies."""
    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)
    _print_holds(invocation, _pruning(invocation, environment, lambda pruner: pruner.holds()), output, "no hold on anything")


def _print_holds(invocation: Invocation, held: list[HeldPartition], output: Format, empty: str) -> None:
    if output is Format.JSON:
        print_json(held)
        return
    print_table(
        invocation,
        ["hold", "date", "type", "partition", "reason"],
        [(one.name, one.date, one.type, one.partition, one.reason) for one in held],
        empty=empty,
    )
