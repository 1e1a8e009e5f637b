"""Options of the commands that read the archive, and what stands behind them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.completion import complete_feed
from ssmd.cli.invocation import checked_date

if TYPE_CHECKING:
    from ssmd.archive.reading import Window
    from ssmd.wiring.environment import ResolvedEnvironment

FeedOption = Annotated[
    str, typer.Option("--feed", metavar="NAME", help="Default: the environment's feed.", autocompletion=complete_feed)
]
DayOption = Annotated[str, typer.Option("--date", metavar="DATE", help="The archive's date YYYY-MM-DD.", callback=checked_date)]
AnyDayOption = Annotated[str, typer.Option("--date", metavar="DATE", help="Default: all dates.", callback=checked_date)]
TickersOption = Annotated[list[str] | None, typer.Option("--ticker", metavar="TICKER", help="Only it; may be repeated.")]
KindsOption = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help="trade|book|snapshot|quote|status|gap; may be repeated. Default: all."),
]
MapperOption = Annotated[
    int,
    typer.Option("--mapper", min=0, metavar="N", help="Records that version N of the mapper made. Default: current ones."),
]
DuplicatesOption = Annotated[bool, typer.Option("--duplicates", help="Trades as captured and as backfilled. Default: once.")]
FromOption = Annotated[str, typer.Option("--from", metavar="TIME", help="First receive time: HH:MM[:SS[.f]] or RFC 3339, UTC.")]
ToOption = Annotated[str, typer.Option("--to", metavar="TIME", help="Receive times before this one.")]

_TIME = re.compile(r"(?:(\d{4}-\d\d-\d\d)[T ])?(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z?)")


def instant(text: str, date: str, option: str) -> int:
    """UTC nanoseconds of `text`: digits alone are nanoseconds; a time of day is one of `date`.

    Raises:
        typer.BadParameter: it is no time.
    """
    from datetime import UTC, datetime  # noqa: PLC0415 - keeps --help quick

    if re.fullmatch(r"\d{12,19}", text):
        return int(text)
    match = _TIME.fullmatch(text)
    if match is not None:
        day, hour, minute, second, fraction, _ = match.groups()
        try:
            moment = datetime.fromisoformat(f"{day or date}T{hour}:{minute}:{second or '00'}").replace(tzinfo=UTC)
        except ValueError:
            moment = None
        if moment is not None:
            return int(moment.timestamp()) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))
    raise typer.BadParameter(f"{option} {text!r} is no time: expected HH:MM[:SS[.f]], RFC 3339 in UTC, or nanoseconds")


def window_of(date: str, start: str, end: str) -> Window:
    """What --from and --to mean on `date`.

    Raises:
        typer.BadParameter: one is no time, or they are the wrong way round.
    """
    from ssmd.archive.reading import NEVER_NS, Window  # noqa: PLC0415 - keeps --help quick

    window = Window(instant(start, date, "--from") if start else 0, instant(end, date, "--to") if end else NEVER_NS)
    if window.start_ns >= window.end_ns:
        raise typer.BadParameter(f"--from {start} is not before --to {end}")
    return window


def feed_of(environment: ResolvedEnvironment, given: str) -> str:
    """The feed that is meant.

    Raises:
        Misconfigured: the environment captures another one.
    """
    from ssmd.errors import Misconfigured  # noqa: PLC0415 - keeps --help quick

    feed = environment.document.feed
    if given not in {"", feed}:
        raise Misconfigured(f'environment {environment.name} captures feed "{feed}", not "{given}"', mend=f"--feed {feed}")
    return feed
