"""`ssmd journal`: the events themselves, as they were written."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, cell_of, print_json_line, print_table, say, time_of

if TYPE_CHECKING:
    from ssmd.streams.journal import Journal, PoisonEvent, RecordedEvent

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Read the events themselves.")

AggregateOption = Annotated[
    list[str] | None,
    typer.Option("--aggregate", metavar="KIND[/ID]", help="Only this kind of aggregate, or exactly this one; may be repeated."),
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Only events whose type begins so (capture.gap-opened); may be repeated."),
]
COLUMNS = ["position", "time (UTC)", "type", "aggregate", "version", "who", "data"]
DATA_SHOWN_MAX = 160


@app.command("show", epilog=examples("ssmd journal show", "ssmd journal show --aggregate trading-day/2026-05-14 -o json"))
def show(
    ctx: typer.Context,
    aggregate: AggregateOption = None,
    type_: TypeOption = None,
    after: Annotated[int, typer.Option("--after", min=0, help="Only positions above this one.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many, the newest; 0 = all.")] = 0,
    output: OutputOption = Format.TABLE,
) -> int:
    """Show events in the order they were written. Exit status 1: some of them could not be read."""
    from collections import deque  # noqa: PLC0415 - keeps --help quick

    from ssmd.wiring.backends import reading_journal  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    kept: deque[dict[str, Any]] = deque(maxlen=limit or None)

    async def collected() -> int:
        unreadable = 0
        async with reading_journal(environment, invocation.variables, say) as journal:
            async for message in _matching(journal.replay(after=after, filters=aggregate or ()), type_ or []):
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
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Begin so many positions before the end.")] = 10,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show new events as they are written, one a line, until interrupted. The environment must run."""
    from ssmd.wiring.backends import open_journal  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = invocation.resolve()

    async def followed() -> None:
        journal: Journal = await open_journal(environment, invocation.variables)
        try:
            after = max(0, await journal.head() - last)
            async for message in _matching(journal.follow(after=after, filters=aggregate or ()), type_ or []):
                if output is Format.JSON:
                    print_json_line(message)
                else:
                    sys.stdout.write("  ".join(cell_of(cell) for cell in _row(message)) + "\n")
                    sys.stdout.flush()
        finally:
            await journal.close()

    run(followed())


async def _matching(
    batches: AsyncIterator[list[RecordedEvent | PoisonEvent]], types: list[str]
) -> AsyncIterator[dict[str, Any]]:
    """The messages as plain data, those whose type begins with one of `types` (none = all), unreadable ones always."""
    from ssmd.streams.journal import RecordedEvent  # noqa: PLC0415 - keeps --help quick

    async with aclosing(batches) as reading:  # type: ignore[type-var]  # both backends give async generators
        async for batch in reading:
            for message in batch:
                if not isinstance(message, RecordedEvent):
                    yield {"position": message.position, "subject": message.subject, "unreadable": message.reason}
                elif not types or message.envelope.type.startswith(tuple(types)):
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
