"""`ssmd journal`: the events themselves, as they were written."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import (
    Format,
    OutputOption,
    cell_of,
    print_fields,
    print_json,
    print_json_line,
    print_table,
    say,
    thousands,
    time_of,
)

if TYPE_CHECKING:
    from ssmd.domain.envelope import Envelope
    from ssmd.streams.journal import Journal, PoisonEvent, RecordedEvent

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Read, check and copy the events themselves."
)

AggregateOption = Annotated[
    list[str] | None,
    typer.Option("--aggregate", metavar="KIND[/ID]", help="Only this kind of aggregate, or exactly this one; may be repeated."),
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Only events whose type begins so (capture.gap-opened); may be repeated."),
]
IdOption = Annotated[
    str,
    typer.Option("--id", metavar="ID", help="Only events with this id, aggregate id, correlation id or causation id."),
]
ActorOption = Annotated[
    list[str] | None,
    typer.Option("--actor", metavar="ACTOR", help="Only what actors did whose name begins so (cli:anna); may be repeated."),
]
SinceOption = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Only events of this time or later: 2026-05-14 or 2026-05-14T13:30:00Z.")
]
UntilOption = Annotated[str, typer.Option("--until", metavar="TIME", help="Only events before this time.")]
COLUMNS = ["position", "time (UTC)", "type", "aggregate", "version", "who", "data"]
DATA_SHOWN_MAX = 160


class Wanted(NamedTuple):
    """Which events are shown; everything empty or 0 = all. Unreadable messages always are."""

    types: tuple[str, ...]
    id: str
    actors: tuple[str, ...]
    since_ns: int
    until_ns: int

    def matches(self, envelope: Envelope) -> bool:
        ids = (envelope.id, envelope.aggregate_id, envelope.correlation_id, envelope.causation_id)
        return (
            (not self.types or envelope.type.startswith(self.types))
            and (not self.id or self.id in ids)
            and (not self.actors or envelope.actor.startswith(self.actors))
            and (not self.since_ns or envelope.ts_ns >= self.since_ns)
            and (not self.until_ns or envelope.ts_ns < self.until_ns)
        )


def _wanted(types: list[str] | None, id_: str, actors: list[str] | None, since: str, until: str) -> Wanted:
    return Wanted(tuple(types or ()), id_, tuple(actors or ()), _time_ns("--since", since), _time_ns("--until", until))


def _time_ns(option: str, text: str) -> int:
    """UTC nanoseconds of a date or an RFC 3339 time (UTC where it names no zone); 0 for ""."""
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415 - keeps --help quick

    if not text:
        return 0
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time; expected 2026-05-14 or 2026-05-14T13:30:00Z", param_hint=option
        ) from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


@app.command("show", epilog=examples("ssmd journal show", "ssmd journal show --aggregate trading-day/2026-05-14 -o json"))
def show(
    ctx: typer.Context,
    aggregate: AggregateOption = None,
    type_: TypeOption = None,
    id_: IdOption = "",
    actor: ActorOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    after: Annotated[int, typer.Option("--after", min=0, help="Only positions above this one.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many, the newest; 0 = all.")] = 0,
    output: OutputOption = Format.TABLE,
) -> int:
    """Show events in the order they were written. Exit status 1: some of them could not be read."""
    from collections import deque  # noqa: PLC0415 - keeps --help quick

    from ssmd.wiring.backends import reading_journal  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    wanted = _wanted(type_, id_, actor, since, until)
    kept: deque[dict[str, Any]] = deque(maxlen=limit or None)

    async def collected() -> int:
        unreadable = 0
        async with reading_journal(environment, invocation.variables, say) as journal:
            async for message in _matching(journal.replay(after=after, filters=aggregate or ()), wanted):
                unreadable += "unreadable" in message
                kept.append(message)
        return unreadable

    unreadable = run(collected())
    if output is Format.JSON:
        _print_array(kept)
    else:
        print_table(invocation, COLUMNS, [_row(message) for message in kept], empty="no such event")
    if unreadable:
        say(f"{unreadable} messages are no events")
    return NO if unreadable else OK


@app.command("tail", epilog=examples("ssmd journal tail", "ssmd journal tail --type capture. -o json"))
def tail(
    ctx: typer.Context,
    aggregate: AggregateOption = None,
    type_: TypeOption = None,
    id_: IdOption = "",
    actor: ActorOption = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Begin so many positions before the end.")] = 10,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show new events as they are written, one a line, until interrupted. The environment must run."""
    from ssmd.wiring.backends import open_journal  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    wanted = _wanted(type_, id_, actor, "", "")

    async def followed() -> None:
        journal: Journal = await open_journal(environment, invocation.variables)
        try:
            after = max(0, await journal.head() - last)
            async for message in _matching(journal.follow(after=after, filters=aggregate or ()), wanted):
                if output is Format.JSON:
                    print_json_line(message)
                else:
                    sys.stdout.write("  ".join(cell_of(cell) for cell in _row(message)) + "\n")
                    sys.stdout.flush()
        finally:
            await journal.close()

    run(followed())


@app.command("stats", epilog=examples("ssmd journal stats", "ssmd journal stats -o json"))
def stats(ctx: typer.Context, output: OutputOption = Format.TABLE) -> int:
    """Count the journal's events by kind, type and actor. Exit status 1: some messages are no events."""
    from ssmd.wiring.journal_tools import journal_stats  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    found = run(journal_stats(invocation.resolve(), invocation.variables, say))
    if output is Format.JSON:
        print_json(found)
    else:
        print_fields(
            invocation,
            [
                ("events", thousands(found.events)),
                ("aggregates", thousands(found.histories)),
                ("payload bytes", thousands(found.payload_bytes)),
                ("first", time_of(found.first_ts_ns)),
                ("last", time_of(found.last_ts_ns)),
                ("unreadable", thousands(found.unreadable)),
            ],
        )
        for title, counts in (("aggregate", found.aggregates), ("type", found.types), ("actor", found.actors)):
            sys.stdout.write("\n")
            rows = [(name, thousands(count)) for name, count in counts.items()]
            print_table(invocation, [title, ">events"], rows, empty=f"no {title}")
    return NO if found.unreadable else OK


@app.command("verify", epilog=examples("ssmd journal verify", "ssmd journal verify -o json"))
def verify(ctx: typer.Context, output: OutputOption = Format.TABLE) -> int:
    """Read the whole journal and compare it with its anchors in the archive's storage.

    Finds messages that are missing, unreadable or changed, events cut off the end, unknown or newer event types, data
    that does not fit, and versions that do not follow each other. Exit status 0: all is well; 1: something was found;
    2: the journal does not answer.
    """
    from ssmd.wiring.journal_tools import verify_journal  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    found, bad_anchors = run(verify_journal(invocation.resolve(), invocation.variables, say))
    if output is Format.JSON:
        print_json(
            {
                **found._asdict(),
                "findings": [finding._asdict() for finding in found.findings],
                "unreadable_anchors": bad_anchors,
            }
        )
    else:
        rows = [(one.position, one.problem, one.subject, one.reason) for one in found.findings]
        rows += [(0, "anchor", "", reason) for reason in bad_anchors]
        counted = f"{thousands(found.messages)} messages of {thousands(found.aggregates)} aggregates, {found.anchors} anchors"
        print_table(invocation, ["position", "problem", "aggregate", "reason"], rows, empty=f"nothing wrong in {counted}")
        if rows:
            say(f"{found.findings_total + len(bad_anchors)} findings in {counted}")
    return NO if found.findings or bad_anchors else OK


@app.command("export", epilog=examples("ssmd journal export journal.jsonl", "ssmd journal export - | zstd > journal.jsonl.zst"))
def export(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; must not exist. - is stdout.")],
) -> None:
    """Write the whole journal into one file of JSON lines, from which `ssmd journal import` makes it again."""
    from ssmd.wiring.journal_tools import export_journal  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    copied = run(export_journal(invocation.resolve(), invocation.variables, file, say))
    say(f"{thousands(copied.messages)} messages, digest {copied.sha256}")


@app.command(
    "import", epilog=examples("ssmd journal import journal.jsonl", "ssmd --workspace /new/place journal import journal.jsonl")
)
def import_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `ssmd journal export` wrote.")],
) -> None:
    """Write an exported journal into an empty one: same positions, subjects and bytes.

    The file is checked whole before anything is written. Interrupted, the same command goes on.
    """
    from ssmd.wiring.journal_tools import import_journal  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    copied = run(import_journal(invocation.resolve(), invocation.variables, file, say))
    say(f"{thousands(copied.written)} of {thousands(copied.messages)} messages written, digest {copied.sha256}")


async def _matching(batches: AsyncIterator[list[RecordedEvent | PoisonEvent]], wanted: Wanted) -> AsyncIterator[dict[str, Any]]:
    """The messages wanted, as plain data."""
    from ssmd.streams.journal import RecordedEvent  # noqa: PLC0415 - keeps --help quick

    async with aclosing(batches) as reading:  # type: ignore[type-var]  # all backends give async generators
        async for batch in reading:
            for message in batch:
                if not isinstance(message, RecordedEvent):
                    yield {"position": message.position, "subject": message.subject, "unreadable": message.reason}
                elif wanted.matches(message.envelope):
                    yield {"position": message.position, "envelope": message.envelope}


def _row(message: dict[str, Any]) -> tuple[object, ...]:
    if "unreadable" in message:
        return (message["position"], "", "unreadable", message["subject"], "", "", message["unreadable"])
    envelope = message["envelope"]
    data = bytes(envelope.data).decode(errors="replace")
    return (
        message["position"],
        time_of(envelope.ts_ns),
        envelope.type,
        f"{envelope.aggregate}/{envelope.aggregate_id}",
        envelope.version,
        envelope.actor,
        data if len(data) <= DATA_SHOWN_MAX else f"{data[:DATA_SHOWN_MAX]}...",
    )


def _print_array(messages: Any) -> None:
    """One JSON array, an event a line."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    sys.stdout.write("[")
    for number, message in enumerate(messages):
        sys.stdout.write((",\n " if number else "\n ") + msgspec.json.encode(message).decode())
    sys.stdout.write("\n]\n")
