"""`ssmd data replay` and `ssmd data sample`: archived lines and records on stdout."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated

import typer

from ssmd.cli.archive_options import (
    DayOption,
    FeedOption,
    FromOption,
    KindsOption,
    TickersOption,
    ToOption,
    feed_of,
    window_of,
)
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class What(StrEnum):
    """Forms of the archive."""

    RAW = "raw"
    RECORDS = "records"


WhatOption = Annotated[What, typer.Option("--as", help="What the venue sent, or the normalized records.")]


@app.command(
    "replay",
    epilog=examples(
        "ssmd data replay --date 2026-05-14 | jq .frame",
        "ssmd data replay --date 2026-05-14 --as records --ticker T --from 18:30 --speed 10x",
        "ssmd simulate kalshi --date 2026-05-14   (the same over the venue's own protocol)",
    ),
)
def replay(
    ctx: typer.Context,
    date: DayOption,
    feed: FeedOption = "",
    what: WhatOption = What.RAW,
    ticker: TickersOption = None,
    kind: KindsOption = None,
    start: FromOption = "",
    end: ToOption = "",
    speed: Annotated[str, typer.Option("--speed", metavar="1x|Nx|max", help="How fast time goes.")] = "max",
) -> None:
    """Write a day's raw lines or records to stdout, in order: as fast as they are read, or at their own pace."""
    _play(invocation_of(ctx), date, feed, what, ticker or [], kind or [], start, end, speed, 0)


@app.command(
    "sample", epilog=examples("ssmd data sample --date 2026-05-14", "ssmd data sample --date 2026-05-14 --kind gap -n 3")
)
def sample(
    ctx: typer.Context,
    date: DayOption,
    feed: FeedOption = "",
    what: WhatOption = What.RECORDS,
    ticker: TickersOption = None,
    kind: KindsOption = None,
    start: FromOption = "",
    end: ToOption = "",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many lines.")] = 10,
) -> None:
    """Show the first lines or records of a day."""
    _play(invocation_of(ctx), date, feed, what, ticker or [], kind or [], start, end, "max", count)


def _play(
    invocation: Invocation,
    date: str,
    feed: str,
    what: What,
    tickers: list[str],
    kinds: list[str],
    start: str,
    end: str,
    speed: str,
    count: int,
) -> None:
    """`count`: so many lines at most, 0 = all."""
    import asyncio  # noqa: PLC0415 - keeps --help quick

    from ssmd.services.replayer import Replayer  # noqa: PLC0415
    from ssmd.services.simulator.config import speed_of  # noqa: PLC0415
    from ssmd.wiring.archive_access import reading_storage, wanted_of  # noqa: PLC0415

    if not date:
        raise typer.BadParameter("--date is needed")
    if what is What.RAW and (kinds or len(tickers) > 1):
        raise typer.BadParameter("--kind and more than one --ticker belong to --as records")
    pace, window = speed_of(speed), window_of(date, start, end)
    environment = invocation.resolve()
    name = feed_of(environment, feed)

    async def played() -> None:
        async with reading_storage(environment, invocation.variables) as storage:
            player = Replayer(storage, environment.name, name, clock=invocation.clock, sleep=asyncio.sleep)
            if what is What.RAW:
                pieces = player.raw(date, window=window, ticker=(tickers or [""])[0], speed=pace)
            else:
                wanted = wanted_of(environment, date, tuple(kinds), tuple(tickers))._replace(window=window)
                pieces = player.record_lines(wanted, speed=pace)
            await _write(pieces, count, flush=pace > 0)

    run(played())


async def _write(pieces: AsyncIterator[bytes], count: int, *, flush: bool) -> None:
    """Write to stdout; blocking on it is the point: the reader sets the pace."""
    out = sys.stdout.buffer
    left = count
    async for piece in pieces:
        if count:
            lines = piece.splitlines(keepends=True)[:left]
            left -= len(lines)
            out.write(b"".join(lines))
            if not left:
                break
        else:
            out.write(piece)
            if flush:
                out.flush()
    out.flush()
