"""`ssmd dlq`: what could not be processed: frames, events, and messages that no segment could take."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, say, time_of

if TYPE_CHECKING:
    from ssmd.services.dead_letters import DeadLetterOffice, Kind, Outcome

HELP = "What could not be processed: look, run it through today's code, give it up."
app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help=HELP)
Answer = TypeVar("Answer")


class KindGiven(StrEnum):
    """What letters are about."""

    FRAME = "frame"
    EVENT = "event"
    SEGMENT = "segment"


KindOption = Annotated[KindGiven | None, typer.Option("--kind", help="Only letters about these; default: all.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Letters, see `ssmd dlq list`.")]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would become of them; journal nothing.")]


def _kind(given: KindGiven | None) -> Kind | None:
    return None if given is None else given.value


def _asked(invocation: Invocation, question: Callable[[DeadLetterOffice], Awaitable[Answer]]) -> Answer:
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.dlq import dead_letter_office  # noqa: PLC0415 - as above

    async def ask() -> Answer:
        environment = invocation.resolve()
        opened = dead_letter_office(environment, invocation.variables, say, invocation.clock, system_random, invocation.actor())
        async with opened as office:
            return await question(office)

    return run(ask())


@app.command("list", epilog=examples("ssmd dlq list", "ssmd dlq list --kind frame --all -o json"))
def list_letters(
    ctx: typer.Context,
    kind: KindOption = None,
    is_all: Annotated[bool, typer.Option("--all", help="Those that were replayed or discarded, too.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """List dead letters, oldest first: of frames the newest 10,000."""
    invocation = invocation_of(ctx)
    found = _asked(invocation, lambda office: office.letters(_kind(kind), is_open=not is_all))
    if output is Format.JSON:
        print_json(found)
        return
    rows = [
        (one.id, one.kind, one.letter.status, time_of(one.letter.recorded_ns), one.letter.subject, one.letter.reason)
        for one in found
    ]
    print_table(invocation, ["id", "kind", "status", "since", "about", "reason"], rows, empty="no dead letters")


@app.command("show", epilog=examples("ssmd dlq show frame-main-1778760000000000000-42", "ssmd dlq show days-17 -o json"))
def show(
    ctx: typer.Context,
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="A letter, see `ssmd dlq list`.")],
    output: OutputOption = Format.TABLE,
) -> None:
    """Show one dead letter with all that is known of it, and a frame itself."""
    from ssmd.services.dead_letters import chosen  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    (found,) = chosen(_asked(invocation, lambda office: office.letters(is_open=False)), [letter_id])
    if output is Format.JSON:
        print_json(found)
        return
    one = found.letter
    print_fields(
        invocation,
        [
            ("id", one.id),
            ("kind", found.kind),
            ("status", one.status),
            ("met by", one.component),
            ("where", f"{one.source}, at {one.message_position}"),
            ("about", one.subject),
            ("what", one.what or "not known"),
            ("reason", one.reason),
            ("since", time_of(one.recorded_ns)),
            ("closed", f"{time_of(one.closed_ns)} by {one.closed_by}: {one.closed_why}" if one.closed_ns else "no"),
        ],
    )
    if found.is_gone:
        print_fields(invocation, [("frame", "not on the dead-letter stream; the tape and the raw archive have it")])
    if found.text:
        print_fields(invocation, [("frame, base64" if found.is_base64 else "frame", found.text)])


@app.command("replay", epilog=examples("ssmd dlq replay --all --dry-run", "ssmd dlq replay --all", "ssmd dlq replay days-17"))
def replay(
    ctx: typer.Context,
    ids: IdsArgument = None,
    is_all: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    kind: KindOption = None,
    is_dry: DryOption = False,
    output: OutputOption = Format.TABLE,
) -> int:
    """Run dead letters through today's code; those it takes are closed, in the journal. Exit status 1 if some are not.

    An event's view is made anew. A frame that is understood now: ssmd data renormalize shows what it changes.
    """
    from ssmd.services.dead_letters import chosen  # noqa: PLC0415 - keeps --help quick

    if bool(ids) == is_all:
        raise typer.BadParameter("name letters, or give --all")
    invocation = invocation_of(ctx)

    async def replayed(office: DeadLetterOffice) -> list[Outcome]:
        letters = await office.letters(_kind(kind), is_open=is_all)
        return [await office.replay(one, is_dry=is_dry) for one in (letters if is_all else chosen(letters, ids or ()))]

    return _told(invocation, _asked(invocation, replayed), output, is_dry=is_dry)


@app.command("discard", epilog=examples('ssmd dlq discard days-17 --reason "a test event"'))
def discard(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Letters, see `ssmd dlq list`.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the journal.")],
    is_dry: DryOption = False,
    output: OutputOption = Format.TABLE,
) -> int:
    """Give dead letters up, for a reason that is journaled. Exit status 1 if some were processed after all."""
    from ssmd.services.dead_letters import chosen  # noqa: PLC0415 - keeps --help quick

    if not reason.strip():
        raise typer.BadParameter("--reason says nothing")
    invocation = invocation_of(ctx)

    async def discarded(office: DeadLetterOffice) -> list[Outcome]:
        letters = chosen(await office.letters(is_open=False), ids)
        return [await office.discard(one, reason, is_dry=is_dry) for one in letters]

    return _told(invocation, _asked(invocation, discarded), output, is_dry=is_dry)


def _told(invocation: Invocation, outcomes: list[Outcome], output: Format, *, is_dry: bool) -> int:
    if output is Format.JSON:
        print_json(outcomes)
    else:
        rows = [(one.id, one.kind, "closed" if one.ok else "open", one.detail) for one in outcomes]
        print_table(invocation, ["id", "kind", "now", "why"], rows, empty="no dead letters")
        if is_dry:
            sys.stdout.write("nothing was changed (--dry-run)\n")
    return OK if all(one.ok for one in outcomes) else NO
