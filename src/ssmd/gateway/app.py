"""The gateway as an ASGI application, and as a component: one feed's market stream in, WebSocket and REST out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from ssmd.clock import Clock, date_of
from ssmd.domain.client import State
from ssmd.errors import Rejected, SsmdError, Unavailable
from ssmd.gateway.api_keys import check_usable, grant_to
from ssmd.gateway.assembly import HOLD_NS
from ssmd.gateway.checkpoint_store import CheckpointStore
from ssmd.gateway.checkpointer import EVERY_S, Checkpointer
from ssmd.gateway.client import CUT_OFF, KEY_EXPIRED, KEY_REVOKED, CloseReason
from ssmd.gateway.clients import Access, ClientDirectory, OpenAccess
from ssmd.gateway.feed_reader import FeedReader
from ssmd.gateway.gate import Gate, GateLimits
from ssmd.gateway.heartbeat import HEARTBEAT_S, beat_for_ever
from ssmd.gateway.hub import Hub
from ssmd.gateway.hub_limits import HubLimits
from ssmd.gateway.listings import ListingReader
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.messages import Closing
from ssmd.gateway.pages import page_routes
from ssmd.gateway.past_books import PastBooks
from ssmd.gateway.problems import on_http_exception, on_ssmd_error
from ssmd.gateway.record_routes import OpenViews, RecordRoutes
from ssmd.gateway.rest import MarketRoutes
from ssmd.gateway.resume import Resumer
from ssmd.gateway.server import EmbeddedServer, TlsFiles, check_reachable_by, embedded_server, listen, url_of
from ssmd.gateway.telemetry import METRICS_TYPE, GatewayMetrics
from ssmd.gateway.websocket import DEFAULT_CONNECTION_LIMITS, ConnectionLimits, Resume, StreamEndpoint
from ssmd.services.component import Health
from ssmd.streams.journal import Journal
from ssmd.streams.transport import Transport

START_S: Final = 10.0
DRAIN_S: Final = 5


class GatewayLimits(NamedTuple):
    """All bounds of a gateway in one place.

    Attributes:
        hold_ns: how long a hole in the stream may wait for its filling.
        drain_s: how long clients may take to read their last frames when the gateway stops.
        checkpoint_s: time between two rounds of saving the derived state.
        heartbeat_s: time between two words to clients for whom nothing is waiting.
    """

    markets_max: int = 100_000
    trades_max: int = 500
    hub: HubLimits = HubLimits()
    connection: ConnectionLimits = ConnectionLimits()
    hold_ns: int = HOLD_NS
    drain_s: int = DRAIN_S
    checkpoint_s: float = EVERY_S
    heartbeat_s: float = HEARTBEAT_S
    gate: GateLimits = GateLimits()


DEFAULT_LIMITS: Final = GatewayLimits()


class Surroundings(NamedTuple):
    """What a gateway needs beside the market stream.

    Attributes:
        journal: whose clients may ask, each with its key; None = whoever reaches the address may, on loopback only.
        views: views of the journal for the records' answers; None = those paths answer that there is no journal.
        listings: journal of what the venue lists; None = markets are known by the market stream alone.
        past: books of the archive; None = only the book now is told.
        origins: pages of other sites that may ask (CORS).
        tls: certificate chain and key, PEM; None = plain.
        checkpoint: file that the derived state is kept in between runs; None = the stream is read from its start.
    """

    journal: Journal | None = None
    views: OpenViews | None = None
    listings: Journal | None = None
    past: PastBooks | None = None
    origins: tuple[str, ...] = ()
    tls: TlsFiles | None = None
    checkpoint: Path | None = None


class AppParts(NamedTuple):
    """What the application is made of."""

    state: MarketState
    hub: Hub
    resume: Resume
    health: Callable[[], Health]
    clock: Clock
    access: Access
    metrics: GatewayMetrics
    views: OpenViews | None = None
    past: PastBooks | None = None
    origins: tuple[str, ...] = ()
    limits: ConnectionLimits = DEFAULT_CONNECTION_LIMITS
    gate: GateLimits = GateLimits()


NOTHING_AROUND: Final = Surroundings()


def routes_of(parts: AppParts) -> list[BaseRoute]:
    """All routes; what of it needs a key is the gate's business."""

    async def metrics(_: Request) -> Response:
        return Response(parts.metrics.exposition(parts.health().stats), media_type=METRICS_TYPE)

    return [
        WebSocketRoute("/v1/stream", StreamEndpoint(parts.state, parts.hub, parts.resume, parts.clock, parts.limits)),
        *MarketRoutes(parts.state, parts.health, parts.past).routes(),
        *RecordRoutes(parts.state.feed, parts.views, lambda: date_of(parts.clock.now_ns())).routes(),
        Route("/metrics", metrics, methods=["GET"]),
        *page_routes(),
    ]


def create_app(parts: AppParts) -> ASGIApp:
    """The application over a state that somebody else keeps up to date."""
    app = Starlette(
        routes=routes_of(parts),
        exception_handlers={SsmdError: on_ssmd_error, HTTPException: on_http_exception},
    )
    return Gate(
        app,
        parts.access,
        parts.state.feed,
        parts.clock,
        parts.metrics,
        is_local=isinstance(parts.access, OpenAccess),
        origins=parts.origins,
        limits=parts.gate,
    )


class GatewayService:
    """The component (`services.component.Component`); its `url` is known once `started` is set.

    Args:
        transport: access to the environment's streams; the caller closes it after `run`.
        host, port: where to listen; port 0 = any free one.
        around: the rest of its world.
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
        around: Surroundings = NOTHING_AROUND,
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
        self._around = around
        self._metrics = GatewayMetrics()
        self._directory = None if around.journal is None else ClientDirectory(around.journal, clock, self._on_client)
        self._checkpointer: Checkpointer | None = None
        if around.checkpoint is not None:
            store = CheckpointStore(around.checkpoint)
            self._checkpointer = Checkpointer(store, transport, self.state, self.reader, clock, limits.checkpoint_s)
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
        around = self._around
        check_reachable_by(self._host, self._env, has_keys=self._directory is not None)
        listener = await listen(self._host, self._port, self._env)
        url = url_of(listener, is_tls=around.tls is not None)
        app = create_app(
            AppParts(
                self.state,
                self.hub,
                self.resumer.start,
                self.health,
                self._clock,
                self._directory or OpenAccess(),
                self._metrics,
                around.views,
                around.past,
                around.origins,
                self._limits.connection,
                self._limits.gate,
            )
        )
        server = embedded_server(app, self._limits.drain_s, around.tls)
        serving = asyncio.create_task(server.serve([listener]), name="gateway-server")
        if self._checkpointer is not None:
            await self._checkpointer.load()
        reading = asyncio.create_task(self.reader.run(), name="gateway-reader")
        stopping = asyncio.create_task(self._stopping.wait(), name="gateway-stop")
        tasks: list[asyncio.Task[None] | asyncio.Task[bool]] = [serving, reading, stopping]
        tasks += self._helpers()
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

    def _helpers(self) -> list[asyncio.Task[None]]:
        """The tasks beside server and reader; none ends by itself."""
        beating = beat_for_ever(self.hub, self.state, self.reader, self._clock, self._limits.heartbeat_s)
        tasks = [asyncio.create_task(beating, name="gateway-heartbeat")]
        if self._directory is not None:
            tasks.append(asyncio.create_task(self._directory.run(), name="gateway-keys"))
        if self._checkpointer is not None:
            tasks.append(asyncio.create_task(self._checkpointer.run(), name="gateway-checkpoints"))
        if self._around.listings is not None:
            listings = ListingReader(self._around.listings, self.state.feed, self.state.listings)
            tasks.append(asyncio.create_task(listings.run(), name="gateway-listings"))
        return tasks

    def _on_client(self, client_id: str, state: State, is_cut: bool) -> None:
        """A client's rights changed: its connections feel it at once."""
        why = CUT_OFF if is_cut else None
        try:
            check_usable(state, self._clock.now_ns())
        except Rejected as refused:
            why = KEY_EXPIRED if refused.rule == "key-expired" else KEY_REVOKED
        for client in self.hub.of_key(client_id):
            if why is not None:
                self.hub.close(client, why, Closing(why.reason, min(self.state.stream_seq, client.told_to or 2**53)))
            elif state.created is not None and state.created.mode != client.grant.mode:
                client.grant = grant_to(client_id, state)
                self.hub.set_mode(client, client.grant.mode)

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
        queued_messages, queued_bytes = hub.queued()
        reason = reader.trouble
        if not reason and not reader.is_caught_up:
            reason = f"catching up with the market stream: {reader.lag_messages} messages behind"
        if not reason and self._directory is not None and not self._directory.is_ready:
            reason = f"who may ask is not known: {self._directory.trouble or 'the journal is being read'}"
        if not reason and reader.held_up:
            reason = f"waiting for a missing message of connection {reader.held_up}"
        return Health(
            ok=not reason,
            reason=reason,
            stats={
                "url": self.url,
                "feed": state.feed,
                "stream": reader.incarnation,
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
                "messages_conflated": hub.messages_conflated,
                "clients_resuming": self.resumer.resuming,
                "queued_messages": queued_messages,
                "queued_bytes": queued_bytes,
                "checkpoints": 0 if self._checkpointer is None else self._checkpointer.rounds,
                "clients_closed_slow": hub.clients_closed_slow,
            },
        )
