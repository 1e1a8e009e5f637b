"""`ssmd data replay` and `ssmd data sample`: archived lines and records on stdout, on streams, over a WebSocket."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ssmd.cli.archive_options import (
    DayOption,
    DuplicatesOption,
    FeedOption,
    FromOption,
    MapperOption,
    TickersOption,
    ToOption,
    feed_of,
    window_of,
)
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import say, thousands

if TYPE_CHECKING:
    from ssmd.archive.reading import Wanted
    from ssmd.services.replayer import Replayer
    from ssmd.wiring.environment import ResolvedEnvironment

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class What(StrEnum):
    """Forms of the archive."""

    RAW = "raw"
    RECORDS = "records"


class Sink(StrEnum):
    """Where a replay goes."""

    STDOUT = "stdout"
    NATS = "nats"
    WEBSOCKET = "websocket"


class Asked(NamedTuple):
    """What is to be played. `most`: so many lines, 0 = all."""

    date: str
    feed: str
    what: What
    tickers: tuple[str, ...]
    kinds: tuple[str, ...]
    start: str
    end: str
    speed: str = "max"
    most: int = 0
    mapper: int = 0
    keeps_duplicates: bool = False


WhatOption = Annotated[What, typer.Option("--kind", help="What the venue sent, or the normalized records.")]
RecordKindsOption = Annotated[
    list[str] | None,
    typer.Option("--record-kind", metavar="KIND", help="trade|book|snapshot|quote|status|gap; may be repeated. Default: all."),
]


@app.command(
    "replay",
    epilog=examples(
        "ssmd data replay --date 2026-05-14 | jq .frame",
        "ssmd data replay --date 2026-05-14 --kind records --ticker T --from 18:30 --speed 10x",
        "ssmd data replay --date 2026-05-14 --sink websocket --port 9700   (the venue's own protocol, for a bot)",
        "ssmd data replay --date 2026-05-14 --sink nats --prefix backtest-1   (streams of its own)",
    ),
)
def replay(
    ctx: typer.Context,
    date: DayOption,
    feed: FeedOption = "",
    what: WhatOption = What.RAW,
    ticker: TickersOption = None,
    record_kind: RecordKindsOption = None,
    start: FromOption = "",
    end: ToOption = "",
    mapper: MapperOption = 0,
    duplicates: DuplicatesOption = False,
    speed: Annotated[str, typer.Option("--speed", metavar="1x|Nx|max", help="How fast time goes.")] = "max",
    sink: Annotated[Sink, typer.Option("--sink", help="Where it goes.")] = Sink.STDOUT,
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="NAME", help="With --sink nats: name of its streams, no environment's.")
    ] = "",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="With --sink websocket; 0 = any free one.")] = 0,
) -> None:
    """Play a day's raw lines or records in order: as fast as they are taken, or at their own pace.

    Gaps stand among the records where they were noticed. --sink nats publishes to the streams PREFIX-raw or PREFIX-market of
    the running environment's server. --sink websocket serves raw lines as the venue would (`ssmd simulate kalshi --date`),
    records as one JSON text each, to every client from the beginning.
    """
    invocation = invocation_of(ctx)
    asked = Asked(date, feed, what, tuple(ticker or ()), tuple(record_kind or ()), start, end, speed, 0, mapper, duplicates)
    if (prefix != "") != (sink is Sink.NATS):
        raise typer.BadParameter("--prefix NAME and --sink nats belong together")
    if port and sink is not Sink.WEBSOCKET:
        raise typer.BadParameter("--port belongs to --sink websocket")
    match sink:
        case Sink.STDOUT:
            _play(invocation, asked)
        case Sink.NATS:
            _publish(invocation, asked, prefix)
        case Sink.WEBSOCKET:
            _serve(invocation, asked, port)


@app.command(
    "sample", epilog=examples("ssmd data sample --date 2026-05-14", "ssmd data sample --date 2026-05-14 --record-kind gap -n 3")
)
def sample(
    ctx: typer.Context,
    date: DayOption,
    feed: FeedOption = "",
    what: WhatOption = What.RECORDS,
    ticker: TickersOption = None,
    record_kind: RecordKindsOption = None,
    start: FromOption = "",
    end: ToOption = "",
    mapper: MapperOption = 0,
    duplicates: DuplicatesOption = False,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many lines.")] = 10,
) -> None:
    """Show the first lines or records of a day."""
    chosen = tuple(ticker or ()), tuple(record_kind or ())
    _play(invocation_of(ctx), Asked(date, feed, what, *chosen, start, end, "max", count, mapper, duplicates))


class Source(NamedTuple):
    """An environment's day, and who plays it."""

    environment: ResolvedEnvironment
    wanted: Wanted
    pace: int
    ticker: str


def _source(invocation: Invocation, asked: Asked) -> Source:
    """What was asked for, checked."""
    from ssmd.services.simulator.config import speed_of  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.archive_access import wanted_of  # noqa: PLC0415 - as above

    if not asked.date:
        raise typer.BadParameter("--date is needed")
    if asked.what is What.RAW and (asked.kinds or len(asked.tickers) > 1 or asked.mapper or asked.keeps_duplicates):
        raise typer.BadParameter("--record-kind, --mapper, --duplicates and more than one --ticker belong to --kind records")
    pace, window = speed_of(asked.speed), window_of(asked.date, asked.start, asked.end)
    environment = invocation.resolve()
    feed_of(environment, asked.feed)
    wanted = wanted_of(environment, asked.date, asked.kinds, asked.tickers, asked.mapper)
    wanted = wanted._replace(window=window, keeps_duplicates=asked.keeps_duplicates)
    return Source(environment, wanted, pace, (asked.tickers or ("",))[0])


@asynccontextmanager
async def _player(invocation: Invocation, source: Source) -> AsyncGenerator[Replayer]:
    import asyncio  # noqa: PLC0415 - keeps --help quick

    from ssmd.services.replayer import Replayer  # noqa: PLC0415 - as above
    from ssmd.wiring.archive_access import reading_storage  # noqa: PLC0415 - as above

    async with reading_storage(source.environment, invocation.variables) as storage:
        yield Replayer(storage, source.wanted.env, source.wanted.feed, clock=invocation.clock, sleep=asyncio.sleep)


def _pieces(player: Replayer, source: Source, what: What) -> AsyncIterator[bytes]:
    wanted = source.wanted
    if what is What.RAW:
        return player.raw(wanted.date, window=wanted.window, ticker=source.ticker, speed=source.pace)
    return player.record_lines(wanted, speed=source.pace)


def _play(invocation: Invocation, asked: Asked) -> None:
    source = _source(invocation, asked)

    async def played() -> int:
        async with _player(invocation, source) as player:
            return await _write(_pieces(player, source, asked.what), asked.most, flush=source.pace > 0)

    if not run(played()):
        say(f"no such {'line' if asked.what is What.RAW else 'record'} is archived for {asked.date}")


def _publish(invocation: Invocation, asked: Asked, prefix: str) -> None:
    from ssmd.wiring.replay import replay_to_streams  # noqa: PLC0415 - keeps --help quick

    source = _source(invocation, asked)
    is_raw = asked.what is What.RAW

    async def published() -> int:
        async with _player(invocation, source) as player:
            return await replay_to_streams(
                source.environment,
                invocation.variables,
                prefix,
                player,
                source.wanted,
                is_raw=is_raw,
                ticker=source.ticker,
                speed=source.pace,
            )

    count = run(published())
    say(f"{thousands(count)} messages are on stream {prefix}-{'raw' if is_raw else 'market'}")


def _serve(invocation: Invocation, asked: Asked, port: int) -> None:
    source = _source(invocation, asked)
    if asked.what is What.RAW:
        from ssmd.cli.simulate import tell_started  # noqa: PLC0415 - keeps --help quick
        from ssmd.identifiers import system_random  # noqa: PLC0415 - as above
        from ssmd.services.simulator.config import SimulatorConfig  # noqa: PLC0415 - as above
        from ssmd.wiring.archive_access import run_day  # noqa: PLC0415 - as above
        from ssmd.wiring.simulate import own_key  # noqa: PLC0415 - as above

        key = own_key(invocation.workspace, system_random)
        config = SimulatorConfig(port=port, speed=asked.speed, public_keys={key.key_id: key.public_pem})

        def started(urls: Mapping[str, str]) -> None:
            tell_started(urls, key)

        wanted = source.wanted
        clock = invocation.clock
        run_day(source.environment, invocation.variables, asked.date, config, clock, started, wanted.window, source.ticker)
        return
    from ssmd.wiring.replay import serve_records  # noqa: PLC0415 - keeps --help quick

    async def served() -> None:
        async with _player(invocation, source) as player:
            await serve_records(lambda: _pieces(player, source, asked.what), port, say)

    run(served())


async def _write(pieces: AsyncIterator[bytes], count: int, *, flush: bool) -> int:
    """Write to stdout; blocking on it is the point: the reader sets the pace. How many bytes there were."""
    out = sys.stdout.buffer
    left, size = count, 0
    async for piece in pieces:
        size += len(piece)
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
    return size
