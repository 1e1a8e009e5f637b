"""The simulator as a component: one port for REST and WebSocket, one way in for control."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from pathlib import Path

from websockets.server import ServerProtocol

from ssmd.clock import Clock
from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi.signing import WEBSOCKET_PATH
from ssmd.exchanges.kalshi.simulated import rest_calls
from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS
from ssmd.exchanges.kalshi.simulated.model_settings import ModelSettings, with_preset
from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel
from ssmd.exchanges.kalshi.simulated.subscriptions import Limits
from ssmd.services.component import Health
from ssmd.services.simulator import authentication, control_site
from ssmd.services.simulator.authentication import Authentication
from ssmd.services.simulator.capture_feed import CaptureFeed
from ssmd.services.simulator.config import SimulatorConfig, check, speed_of
from ssmd.services.simulator.connection import Connection
from ssmd.services.simulator.control_site import ControlSite
from ssmd.services.simulator.faults import Faults
from ssmd.services.simulator.listener import HttpAnswer, HttpRequest, Listener, Site
from ssmd.services.simulator.rest_site import RestSite
from ssmd.services.simulator.seeded_feed import SeededFeed
from ssmd.telemetry.structured import structlog

_LOOPBACK = "127.0.0.1"
_CLOSE_DEADLINE_S = 2.0
_REFILL_RATE = 200
_NOT_FOUND = HttpAnswer(404, b'{"code":"not_found","message":"not found","details":"page not found"}')
_HANDSHAKE = {
    "handshake-401": HttpAnswer(401, authentication.BAD_SIGNATURE),
    "handshake-expired": HttpAnswer(401, authentication.EXPIRED),
    "handshake-429": HttpAnswer(429, b'{"error":"too many requests"}'),
    "handshake-500": HttpAnswer(500, b'{"code":"internal_server_error","message":"internal server error","details":""}'),
    "handshake-503": HttpAnswer(503, b'{"error":{"code":"service_unavailable","message":"service unavailable"}}'),
}
_ENDED_KEPT = 1_000

_log = structlog.get_logger()


class Simulator:
    """A Kalshi on loopback.

    `start` serves, `run` keeps serving until `stop`. The URLs are known after `start`.

    Raises:
        Misconfigured: a setting is wrong (here), the port is taken or the capture is missing (from `start`).
        Malformed: the capture has a bad line (from `start`); names file and line.
    """

    name = "simulator"

    def __init__(self, config: SimulatorConfig, clock: Clock, instance: str = "main") -> None:
        check(config)
        self.instance = instance
        self.rest_url = ""
        self.websocket_url = ""
        self.control_url = ""
        self._config = config
        self._clock = clock
        self._faults = Faults()
        for order in config.faults:
            self._faults.arm(order)
        self._authentication = Authentication(config.public_keys, config.skew_s, clock) if config.require_auth else None
        speed = speed_of(config.speed)
        self._feed: SeededFeed | CaptureFeed
        if config.capture:
            self._feed = CaptureFeed(Path(config.capture), speed, config.on_drop)
            listed: rest_calls.Listed = self._feed.listing
            settle_s = 0
        else:
            model = MarketModel(_model_settings(config, clock.now_ns()))
            self._feed = SeededFeed(
                model,
                speed,
                config.buffer_bytes,
                command_fault=self._faults.on_command,
                limits=Limits(config.session_markets_max, config.commands_s),
                sending_ts=config.sending_ts,
                orders=config.orders,
                history_s=config.history_s,
            )
            listed, settle_s = model, model.settings.settle_s
        calls = rest_calls.RestCalls(
            listed,
            settlement_timer_s=settle_s,
            refill_rate=config.rest_tokens_s or _REFILL_RATE,
            live_window_s=config.live_window_s,
            lag_s=config.lag_s,
        )
        self._rest = RestSite(calls, self._authentication, self._faults, clock, config.rest_tokens_s, config.edge_cache_s)
        self._control = ControlSite(
            self._faults,
            self.status,
            lambda: list(self._live),
            lambda paused: self._feed.pause(paused=paused),
            self._feed.order if isinstance(self._feed, SeededFeed) else None,
        )
        self._accepted = 0
        self._refused = 0
        self._live: dict[Connection, None] = {}
        self._ended: list[dict[str, object]] = []
        self._frames_ended = 0
        self._servers: list[asyncio.Server] = []
        self._sites: list[Site] = []
        self._stop: asyncio.Event | None = None
        self._empty = asyncio.Event()

    async def start(self) -> None:
        """Read the capture, if there is one, and begin to serve."""
        await self._feed.prepare()
        if self._config.start_paused:
            self._feed.pause(paused=True)
        config = self._config
        apart = not _is_loopback(config.host)
        port = await self._serve(
            config.host,
            config.port,
            Site(self._venue if apart else self._all, self._refuse, self._connect, compression=config.compression),
        )
        control_port = port
        if apart:
            control_port = await self._serve(_LOOPBACK, 0, Site(self._only_control, lambda _: _NOT_FOUND, self._connect))
        host = f"[{config.host}]" if ":" in config.host else config.host
        self.rest_url = f"http://{host}:{port}{rest_calls.ROOT}"
        self.websocket_url = f"ws://{host}:{port}{WEBSOCKET_PATH}"
        self.control_url = f"http://{_LOOPBACK if apart else host}:{control_port}{control_site.ROOT}"
        self._stop = asyncio.Event()
        _log.info("simulator serves", rest_url=self.rest_url, websocket_url=self.websocket_url, control_url=self.control_url)

    async def run(self) -> None:
        """Serve until `stop`; starts first if need be. Raises when the capture can no longer be played."""
        if self._stop is None:
            await self.start()
        assert self._stop is not None  # noqa: S101 - start made it
        feed = asyncio.create_task(self._feed.run(), name="simulator-feed")
        stop = asyncio.create_task(self._stop.wait(), name="simulator-stop")
        try:
            await asyncio.wait({feed, stop}, return_when=asyncio.FIRST_COMPLETED)
            if feed.done():
                feed.result()
        finally:
            feed.cancel()
            stop.cancel()
            await asyncio.gather(feed, stop, return_exceptions=True)
            await self._shut()

    async def stop(self) -> None:
        """Close every connection with 1001, then let `run` return."""
        if self._stop is not None:
            self._stop.set()

    async def flush(self) -> None:
        """A venue holds nothing."""

    @property
    def done(self) -> bool:
        """Capture mode: every recorded connection has been played and its client is gone."""
        return self._feed.done

    def health(self) -> Health:
        serving = bool(self._servers)
        stats: dict[str, int | str] = {
            "connections_accepted": self._accepted,
            "connections_open": len(self._live),
            "frames_sent": self._frames_sent(),
            "rest_requests": self._rest.requests,
            "done": int(self.done),
        }
        return Health(ok=serving, reason="" if serving else "not serving", stats=stats)

    def status(self) -> dict[str, object]:
        """Everything `/simulator/status` shows."""
        live = [{"number": held.number, "open": True, "frames_sent": held.frames_sent, "cause": ""} for held in self._live]
        return {
            "connections_accepted": self._accepted,
            "handshakes_refused": self._refused,
            "connections": [*self._ended, *live],
            "frames_sent": self._frames_sent(),
            "rest_requests": self._rest.requests,
            "done": self.done,
            "feed": self._feed.status(),
            "faults": {"armed": self._faults.armed(), "fired": dict(sorted(self._faults.fired.items()))},
        }

    # What the listeners call.

    def _all(self, request: HttpRequest) -> HttpAnswer:
        return self._only_control(request) if request.path.startswith(f"{control_site.ROOT}/") else self._venue(request)

    def _only_control(self, request: HttpRequest) -> HttpAnswer:
        return self._control.answer(request) if request.path.startswith(f"{control_site.ROOT}/") else _NOT_FOUND

    def _venue(self, request: HttpRequest) -> HttpAnswer:
        return self._rest.answer(request) if request.path.startswith(f"{rest_calls.ROOT}/") else _NOT_FOUND

    def _refuse(self, request: HttpRequest) -> HttpAnswer | None:
        answer = self._refusal(request)
        if answer is not None:
            self._refused += 1
        return answer

    def _refusal(self, request: HttpRequest) -> HttpAnswer | None:
        if request.path != WEBSOCKET_PATH:
            return _NOT_FOUND
        fault = self._faults.on_handshake()
        if fault:
            return _HANDSHAKE[fault]
        if self._authentication is not None:
            refused = self._authentication.refusal(request.headers, "GET", request.path)
            if refused:
                return HttpAnswer(401, refused)
        exhausted = self._feed.refusal()
        return HttpAnswer(503, exhausted) if exhausted else None

    def _connect(self, protocol: ServerProtocol, transport: asyncio.Transport) -> Connection:
        self._accepted += 1
        config = self._config
        connection = Connection(self._accepted, protocol, transport, self, self._faults, config.ping_s, config.pong_deadline_s)
        self._live[connection] = None
        self._feed.attach(connection)
        return connection

    # What a connection calls (`connection.Feed`).

    def command(self, connection: Connection, text: bytes) -> None:
        """Hand a client's command to the feed."""
        self._feed.command(connection, text)

    def terminal(self, connection: Connection, code: int) -> list[bytes]:
        """End a connection's subscriptions."""
        return self._feed.terminal(connection, code)

    def detach(self, connection: Connection) -> None:
        """Note that a connection ended."""
        if self._live.pop(connection, self) is self:
            return
        self._feed.detach(connection)
        if not self._live:
            self._empty.set()
        self._frames_ended += connection.frames_sent
        self._ended.append(
            {"number": connection.number, "open": False, "frames_sent": connection.frames_sent, "cause": connection.cause}
        )
        del self._ended[:-_ENDED_KEPT]
        _log.info("client gone", connection=connection.number, frames_sent=connection.frames_sent, cause=connection.cause)

    # Inside.

    async def _serve(self, host: str, port: int, site: Site) -> int:
        try:
            server = await asyncio.get_running_loop().create_server(lambda: Listener(site), host, port)
        except OSError as error:
            mend = "stop what listens there, or choose --port 0 for a free one"
            raise Misconfigured(
                f"the simulator cannot listen on {host} port {port}: {error.strerror or error}", mend=mend
            ) from error
        self._servers.append(server)
        self._sites.append(site)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def _shut(self) -> None:
        for server in self._servers:
            server.close()
        for connection in list(self._live):
            connection.close(1001, "simulator stops")
        if self._live:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), _CLOSE_DEADLINE_S)
        for transport in [transport for site in self._sites for transport in site.transports]:
            transport.abort()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        await asyncio.sleep(0)  # let the aborted transports tell their owners

    def _frames_sent(self) -> int:
        return self._frames_ended + sum(held.frames_sent for held in self._live)


def _model_settings(config: SimulatorConfig, now_ns: int) -> ModelSettings:
    settings = ModelSettings(
        seed=config.seed,
        markets=config.markets,
        rate=config.rate,
        start_ns=(config.start_ns or now_ns) - config.history_s * SECOND_NS,
        roll_s=config.roll_s,
        lead_s=min(10, config.roll_s),
        determine_s=config.determine_s,
        settle_s=config.settle_s,
        depth=config.depth,
        keeps_thursdays=config.keeps_thursdays,
        trades_kept=config.trades_kept,
        combos=config.combos,
    )
    return with_preset(settings, config.preset)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
