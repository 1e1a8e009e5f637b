"""A replay's sinks other than stdout: streams under a name of their own, and a WebSocket for records."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Final

from ssmd.errors import Misconfigured
from ssmd.services.replay_stream import LineMessages, publish_all, record_messages
from ssmd.streams import topology
from ssmd.streams.connection import Connection
from ssmd.streams.transport_nats import NatsTransport

if TYPE_CHECKING:
    from ssmd.archive.reading import Wanted, Window
    from ssmd.services.replayer import Replayer
    from ssmd.streams.transport import Outgoing, StreamName
    from ssmd.wiring.environment import ResolvedEnvironment

MAX_AGE_S: Final = 7 * 86_400


async def replay_to_streams(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    prefix: str,
    player: Replayer,
    wanted: Wanted,
    *,
    is_raw: bool,
    ticker: str,
    speed: int,
) -> int:
    """Publish the day under `prefix` on the environment's transport server; how many messages that were.

    The streams {prefix}-raw and {prefix}-market are made, and kept for a week.

    Raises:
        Misconfigured: `prefix` is an environment's name or no name, or its stream is in use already.
        Unavailable: the server does not answer, or went away.
    """
    _check_prefix(environment, prefix)
    url = environment.server_url("transport", variables)
    stream: StreamName = "raw" if is_raw else "market"
    await _make_streams(environment, url, prefix)
    transport = await NatsTransport.open(url, prefix)
    try:
        held = (await transport.state(stream)).last_seq
        if held:
            raise Misconfigured(
                f"stream {prefix}-{stream} holds a replay already ({held} messages)", mend="choose another --prefix"
            )
        if is_raw:
            return await publish_all(
                transport, stream, _lines(player, wanted.date, wanted.window, prefix, wanted.feed, ticker, speed)
            )
        return await publish_all(transport, stream, _records(player, wanted, prefix, speed))
    finally:
        await transport.close()


def _check_prefix(environment: ResolvedEnvironment, prefix: str) -> None:
    directory = environment.workspace.root / "exchanges" / "environments"
    known = {environment.name, *(path.stem for path in directory.glob("*.yaml"))}
    if prefix in known:
        raise Misconfigured(
            f"{prefix} is an environment: a replay among its live data would be taken for it", mend="choose another --prefix"
        )
    if not prefix.replace("-", "").isalnum() or not prefix.isascii() or prefix != prefix.lower():
        raise Misconfigured(f"--prefix {prefix!r} is no name of streams", mend="lower-case letters, digits and -")


async def _make_streams(environment: ResolvedEnvironment, url: str, prefix: str) -> None:
    settings = environment.document.transport
    definitions = topology.desired(
        prefix, max_age_s=MAX_AGE_S, max_bytes=settings.max_bytes, replicas=settings.replicas, journal_replicas=1
    )
    connection = await Connection.open(url, name=f"ssmd {prefix} replay", timeout_s=5)
    try:
        wanted = [one for one in definitions if one.name in {f"{prefix}-raw", f"{prefix}-market"}]
        await topology.apply({"transport": connection}, wanted)
    finally:
        await connection.close()


async def _lines(
    player: Replayer, date: str, window: Window, prefix: str, feed: str, ticker: str, speed: int
) -> AsyncIterator[list[Outgoing]]:
    messages = LineMessages(prefix, feed)
    async for batch in player.paced_lines(date, window=window, ticker=ticker, speed=speed):
        yield list(messages.of(batch))


async def _records(player: Replayer, wanted: Wanted, prefix: str, speed: int) -> AsyncIterator[list[Outgoing]]:
    async for batch in player.records(wanted, speed=speed):
        yield list(record_messages(prefix, wanted.feed, batch))


async def serve_records(make: Callable[[], AsyncIterator[bytes]], port: int, started: Callable[[str], None]) -> None:
    """Give every WebSocket client on loopback the whole replay, a record of JSON a message; until SIGTERM or SIGINT.

    Args:
        make: begins a replay: lines of JSON.
        port: 0 = any free one.
        started: told the url.

    Raises:
        Misconfigured: the port is taken.
    """
    from websockets.asyncio.server import ServerConnection, serve  # noqa: PLC0415 - needed here alone
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - as above

    async def play(socket: ServerConnection) -> None:
        try:
            async for piece in make():
                for line in piece.splitlines():
                    await socket.send(line, text=True)
        except ConnectionClosed:
            return  # who left needs no more

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        server = await serve(play, "127.0.0.1", port)
    except OSError as error:
        raise Misconfigured(f"port {port} cannot be used: {error.strerror}", mend="--port 0 takes a free one") from error
    async with server:
        started(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await stopping.wait()
