"""The gateway as an ASGI application, and as a component: one feed's market stream in, WebSocket and REST out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import WebSocketRoute

from ssmd.clock import Clock
from ssmd.errors import SsmdError, Unavailable
from ssmd.gateway.assembly import HOLD_NS
from ssmd.gateway.checkpoint_store import CheckpointStore
from ssmd.gateway.checkpointer import EVERY_S, Checkpointer
from ssmd.gateway.feed_reader import FeedReader
from ssmd.gateway.hub import CloseReason, Hub, HubLimits
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.problems import on_http_exception, on_ssmd_error
from ssmd.gateway.rest import MarketRoutes
from ssmd.gateway.resume import Resumer
from ssmd.gateway.server import EmbeddedServer, embedded_server, listen, url_of
from ssmd.gateway.websocket import DEFAULT_CONNECTION_LIMITS, ConnectionLimits, Resume, StreamEndpoint
from ssmd.services.component import Health
from ssmd.streams.transport import Transport

START_S: Final = 10.0
DRAIN_S: Final = 5


class GatewayLimits(NamedTuple):
    """All bounds of a gateway in one place.

    Attributes:
        hold_ns: how long a hole in the stream may wait for its filling.
        drain_s: how long clients may take to read their last frames when the gateway stops.
        checkpoint_s: time between two rounds of saving the derived state.
    """

    markets_max: int = 100_000
    trades_max: int = 500
    hub: HubLimits = HubLimits()
    connection: ConnectionLimits = ConnectionLimits()
    hold_ns: int = HOLD_NS
    drain_s: int = DRAIN_S
    checkpoint_s: float = EVERY_S


DEFAULT_LIMITS: Final = GatewayLimits()


def create_app(
    state: MarketState,
    hub: Hub,
    resume: Resume,
    health: Callable[[], Health],
    clock: Clock,
    limits: ConnectionLimits = DEFAULT_CONNECTION_LIMITS,
) -> Starlette:
    """The application over a state that somebody else keeps up to date."""
    return Starlette(
        routes=[
            WebSocketRoute("/v1/stream", StreamEndpoint(state, hub, resume, clock, limits)),
            *MarketRoutes(state, health).routes(),
        ],
        exception_handlers={SsmdError: on_ssmd_error, HTTPException: on_http_exception},
    )


class GatewayService:
    """The component (`services.component.Component`); its `url` is known once `started` is set.

    Args:
        transport: access to the environment's streams; the caller closes it after `run`.
        host, port: where to listen; port 0 = any free one.
        checkpoint: file that the derived state is kept in between runs; None = the stream is read from its start.
    """

    name = "gateway"

    def __init__(
        self,
        transport: Transport,
        *,
        env: str,
        feed: str,
        host: str,
        port: int,
        clock: Clock,
        instance: str = "main",
        limits: GatewayLimits = DEFAULT_LIMITS,
        checkpoint: Path | None = None,
    ) -> None:
        self.instance = instance
        self._env = env
        self._host = host
        self._port = port
        self._clock = clock
        self._limits = limits
        self.state = MarketState(feed, markets_max=limits.markets_max, trades_max=limits.trades_max)
        self.hub = Hub(self.state, limits.hub)
        self.reader = FeedReader(transport, env, self.state, self.hub, clock, hold_ns=limits.hold_ns)
        self.resumer = Resumer(transport, env, self.state, self.hub, self.reader)
        self._checkpointer = (
            None
            if checkpoint is None
            else Checkpointer(CheckpointStore(checkpoint), transport, self.state, self.reader, clock, limits.checkpoint_s)
        )
        self._stopping = asyncio.Event()
        self.started = asyncio.Event()
        self.url = ""
        """http://host:port, "" before the start."""

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            Misconfigured: the address cannot be used.
            Unavailable: the server did not come up.
        """
        listener = await listen(self._host, self._port, self._env)
        url = url_of(listener)
        app = create_app(self.state, self.hub, self.resumer.start, self.health, self._clock, self._limits.connection)
        server = embedded_server(app, self._limits.drain_s)
        serving = asyncio.create_task(server.serve([listener]), name="gateway-server")
        if self._checkpointer is not None:
            await self._checkpointer.load()
        reading = asyncio.create_task(self.reader.run(), name="gateway-reader")
        stopping = asyncio.create_task(self._stopping.wait(), name="gateway-stop")
        tasks: list[asyncio.Task[None] | asyncio.Task[bool]] = [serving, reading, stopping]
        if self._checkpointer is not None:
            tasks.append(asyncio.create_task(self._checkpointer.run(), name="gateway-checkpoints"))
        try:
            await self._await_ready(server, serving, url)
            self.url = url
            self.started.set()
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Neither ends by itself: what went wrong in them is what is raised here.
            for ended in tasks:
                if ended.done():
                    ended.result()
            if self._checkpointer is not None:
                await self._checkpointer.save()
            reading.cancel()
            await asyncio.wait([reading])
            await self._close_clients()
            server.should_exit = True
            await asyncio.wait([serving], timeout=2 * self._limits.drain_s + 1)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            listener.close()

    @staticmethod
    async def _await_ready(server: EmbeddedServer, serving: asyncio.Task[None], url: str) -> None:
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait([ready, serving], timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if serving.done():
            serving.result()
        if not server.ready.is_set():
            raise Unavailable(f"the gateway's server did not come up on {url} within {START_S} s")

    async def _close_clients(self) -> None:
        """Let every client read what is queued for it, within the drain time."""
        resume_from = self.state.stream_seq
        self.hub.is_open = False
        self.hub.close_all(CloseReason(1001, f"gateway stopping; resume_from {resume_from}"), resume_from=resume_from)
        try:
            async with asyncio.timeout(self._limits.drain_s):
                await self.hub.emptied()
        except TimeoutError:
            self.hub.abort_all()

    async def stop(self) -> None:
        """Close the clients with a reason and a resume sequence, then let `run` return."""
        self._stopping.set()

    async def flush(self) -> None:
        """Save the derived state, so that the next start is quick."""
        if self._checkpointer is not None:
            await self._checkpointer.save()

    def health(self) -> Health:
        """Not ok while the stream cannot be read, while it is being caught up with, or while a hole holds it up."""
        reader, state, hub = self.reader, self.state, self.hub
        reason = reader.trouble
        if not reason and not reader.is_caught_up:
            reason = f"catching up with the market stream: {reader.lag_messages} messages behind"
        if not reason and reader.held_up:
            reason = f"waiting for a missing message of connection {reader.held_up}"
        return Health(
            ok=not reason,
            reason=reason,
            stats={
                "url": self.url,
                "feed": state.feed,
                "stream_seq": state.stream_seq,
                "position": reader.position,
                "lag_messages": reader.lag_messages,
                "last_recv_ns": reader.last_recv_ns,
                "records": state.records,
                "markets": len(state),
                "markets_forgotten": state.markets_forgotten,
                "duplicates": reader.duplicates,
                "holes": reader.holes,
                "malformed": reader.malformed,
                "resets": reader.resets,
                "clients": hub.clients,
                "messages_offered": hub.messages_offered,
                "messages_lost": hub.messages_lost,
                "clients_closed_slow": hub.clients_closed_slow,
            },
        )
