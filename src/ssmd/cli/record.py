"""`ssmd record`: a few markets onto this machine, with nothing to set up."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, say
from ssmd.cli.watch import Picture

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Record a few markets, with nothing to set up."
)
_LASTS: Final = re.compile(r"(\d+)(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SCREEN: Final = "\x1b[H\x1b[2J"


class Endpoint(StrEnum):
    """Which of Kalshi's exchanges."""

    PROD = "prod"
    DEMO = "demo"


@app.callback()
def _group() -> None:
    """Record a few markets, with nothing to set up."""


def seconds_of(text: str) -> float:
    """`10m` in seconds; "" = 0. A typer callback."""
    match = _LASTS.fullmatch(text)
    if text and match is None:
        raise typer.BadParameter(f"{text!r} is no time; write 30s, 10m, 2h or 1d")
    return 0.0 if match is None else float(int(match.group(1)) * _SECONDS[match.group(2)])


@app.command(
    "kalshi",
    epilog=examples(
        "ssmd record kalshi KXBTC15M-26NOV221300-00 --for 10m",
        "ssmd record kalshi TICKER OTHER --endpoint demo --keep my-recording",
        "ssmd record kalshi TICKER --url http://127.0.0.1:9700   # ssmd simulate kalshi --no-auth --port 9700",
    ),
)
def kalshi(
    ctx: typer.Context,
    tickers: Annotated[list[str], typer.Argument(metavar="TICKER...", help="The markets.")],
    lasts: Annotated[str, typer.Option("--for", metavar="TIME", help="30s, 10m, 2h, 1d; default: until Ctrl-C.")] = "",
    endpoint: Annotated[Endpoint, typer.Option("--endpoint", help="Which exchange.")] = Endpoint.PROD,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Another venue that speaks as Kalshi: a simulator.")] = "",
    keep: Annotated[Path | None, typer.Option("--keep", metavar="DIR", help="Where; default: .ssmd/record.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Record markets with tape, archive and a live view, until it is time or Ctrl-C; then seal and tell what there is.

    Kalshi wants every connection signed: export SSMD_KALSHI_API_KEY and SSMD_KALSHI_PRIVATE_KEY_FILE.
    """
    import asyncio  # noqa: PLC0415 - keeps --help quick
    import signal  # noqa: PLC0415

    from ssmd.identifiers import system_random  # noqa: PLC0415
    from ssmd.telemetry.logging import configure_logging  # noqa: PLC0415
    from ssmd.wiring.record import Recorded, Recording  # noqa: PLC0415

    invocation = invocation_of(ctx)
    seconds = seconds_of(lasts)
    configure_logging("record", invocation.clock, sys.stderr, level="warning")
    pictures = {ticker: Picture(ticker) for ticker in tickers}
    is_drawn = output is Format.TABLE and sys.stdout.isatty()

    def progress(stats: Mapping[str, int]) -> None:
        if is_drawn:
            rows = [line for picture in pictures.values() for line in [*picture.lines()[:6], ""]]
            figures = f"{stats['frames']:,} frames, tape {stats['tape_bytes'] / 1e6:.1f} MB; Ctrl-C ends it"
            sys.stdout.write(_SCREEN + "\n".join([figures, "", *rows]) + "\n")
            sys.stdout.flush()

    async def recorded() -> Recorded:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        recording = Recording(
            invocation.variables, invocation.clock, system_random, invocation.actor(), tuple(dict.fromkeys(tickers)),
            endpoint.value, url, seconds, say, lambda gateway: _view(gateway, pictures), progress,
        )  # fmt: skip
        return await recording.run(keep if keep is not None else invocation.workspace.state / "record", stopping)

    report = run(recorded())
    if output is Format.JSON:
        print_json(report)
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.records.items()) or "no records"
    sys.stdout.write(f"{report.frames:,} frames; archived today: {kinds}; {report.segments} segments in {report.archive}\n")
    sys.stdout.write(f"{len(report.gaps)} gaps: ssmd --workspace {report.workspace} data gaps\n")


async def _view(gateway: str, pictures: dict[str, Picture]) -> None:
    """Keep the pictures as the gateway tells them; without it the recording goes on unseen."""
    import msgspec  # noqa: PLC0415 - keeps --help quick
    import websockets  # noqa: PLC0415

    address = gateway.rstrip("/").replace("http", "ws", 1) + "/v1/stream"
    try:
        async with websockets.connect(address, max_size=None, proxy=None) as socket:
            command = {"id": 1, "cmd": "subscribe", "tickers": list(pictures)}
            await socket.send(msgspec.json.encode(command).decode())
            async for frame in socket:
                for message in msgspec.json.decode(frame):
                    for picture in pictures.values():
                        picture.take(message)
    except (OSError, TimeoutError, websockets.WebSocketException) as error:
        say(f"no live view: {error}")
