"""`/v1/stream`: one task reads a client's commands, one writes its frames; neither waits for another client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ssmd.clock import Clock
from ssmd.errors import Rejected
from ssmd.gateway.api_keys import ANYONE, Grant
from ssmd.gateway.buckets import Bucket
from ssmd.gateway.client import KEY_EXPIRED, Client, CloseReason, never
from ssmd.gateway.commands import AnyCommand, Ping, SetMode, Subscribe, parse_command
from ssmd.gateway.hub import Hub
from ssmd.gateway.kinds import KINDS
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.messages import ModeAck, Pong, Refusal, encode, refusal_of

ABORT: Final = "ssmd.abort"
"""ASGI scope extension: cut the connection without waiting. `server.StreamProtocol` provides it."""

GRANT: Final = "ssmd.grant"
"""Key of the `Grant` in the ASGI scope; `gate.Gate` puts it there."""
PROTOCOL: Final = "ssmd.v1"
"""The subprotocol that is answered with, where one was offered."""

DIRECT: Final = "ssmd.direct"
"""ASGI scope extension: write a whole frame at once, unless the peer does not read. `server.StreamProtocol` provides it."""

TOO_MANY_ERRORS: Final = CloseReason(1008, "too many refused commands in a row")
TURNED_AWAY: Final = CloseReason(1013, "try again later: see the message before")


class ConnectionLimits(NamedTuple):
    """Bounds on one connection's commands.

    Attributes:
        commands_per_s, commands_burst: past them a command is refused ("rate-limited") and not looked at.
        errors_max: refusals in a row before the connection is closed.
    """

    commands_per_s: int = 100
    commands_burst: int = 200
    errors_max: int = 50


DEFAULT_CONNECTION_LIMITS: Final = ConnectionLimits()


class Resume(Protocol):
    """`resume.Resumer.start`."""

    def __call__(
        self, client: Client, command_id: int, tickers: tuple[str, ...], kinds: tuple[str, ...], *, after: int, stream: str
    ) -> None: ...


class StreamEndpoint:
    """The ASGI application behind `/v1/stream`."""

    def __init__(
        self, state: MarketState, hub: Hub, resume: Resume, clock: Clock, limits: ConnectionLimits = DEFAULT_CONNECTION_LIMITS
    ) -> None:
        self._state = state
        self._hub = hub
        self._resume = resume
        self._clock = clock
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept(PROTOCOL if PROTOCOL in scope.get("subprotocols", []) else None)
        abort: Callable[[], None] = scope.get("extensions", {}).get(ABORT, _no_abort)
        grant: Grant = scope.get(GRANT, ANYONE)
        try:
            client = self._hub.connect(abort, grant, scope.get("extensions", {}).get(DIRECT, never))
        except Rejected as refusal:
            await self._turn_away(socket, refusal)
            return
        writer = asyncio.create_task(self._write(socket, send, client), name=f"gateway-client-{client.number}")
        expiry = None
        if grant.expires_ns:
            left_s = (grant.expires_ns - self._clock.now_ns()) / 1e9
            expiry = asyncio.get_running_loop().call_later(max(0.0, left_s), self._hub.close, client, KEY_EXPIRED)
        try:
            await self._read(socket, client)
        finally:
            if expiry is not None:
                expiry.cancel()
            self._hub.disconnect(client)
            writer.cancel()
            await asyncio.wait([writer])
        if not writer.cancelled():
            # A fault in the writer is a fault of ours: let the server log it.
            writer.result()

    @staticmethod
    async def _turn_away(socket: WebSocket, refusal: Rejected) -> None:
        try:
            await socket.send_text(f"[{encode(refusal_of(None, refusal))}]")
            await socket.close(*TURNED_AWAY)
        except WebSocketDisconnect:
            return

    async def _read(self, socket: WebSocket, client: Client) -> None:
        """Obey commands until the connection is over."""
        bucket = self._bucket(client)
        errors = 0
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if client.closing is not None:
                continue
            refusal = self._obey(message.get("text"), client, bucket)
            if refusal is None:
                errors = 0
                continue
            errors += 1
            self._hub.tell(client, refusal)
            if errors >= self._limits.errors_max:
                self._hub.close(client, TOO_MANY_ERRORS)

    def _bucket(self, client: Client) -> Bucket:
        limits, per_s = self._limits, client.grant.requests_per_s
        now_ns = self._clock.monotonic_ns()
        return Bucket(per_s, 2 * per_s, now_ns) if per_s else Bucket(limits.commands_per_s, limits.commands_burst, now_ns)

    def _obey(self, text: str | None, client: Client, bucket: Bucket) -> Refusal | None:
        if not bucket.take(self._clock.monotonic_ns()):
            return Refusal(None, "rate-limited", "too many commands a second: this one was not looked at")
        if text is None:
            return Refusal(None, "binary-frame", "commands are text frames of JSON")
        command = parse_command(text)
        if isinstance(command, Refusal):
            return command
        try:
            self._do(command, client)
        except Rejected as refusal:
            return refusal_of(command.id, refusal)
        return None

    def _do(self, command: AnyCommand, client: Client) -> None:
        if isinstance(command, Ping):
            self._hub.tell(client, Pong(command.id, self._state.stream_seq, self._clock.now_ns()))
            return
        if isinstance(command, SetMode):
            if client.resuming is not None:
                raise Rejected("resuming", "what was missed is still being sent: wait for the message of type resumed")
            self._hub.set_mode(client, command.mode, command.interval_ms / 1000)
            self._hub.tell(client, ModeAck(command.id, command.mode, round(client.interval_s * 1000)))
            return
        listed = self._state.listings.asked_by(command.series, command.categories)
        tickers, kinds = tuple(dict.fromkeys((*command.tickers, *listed))), tuple(dict.fromkeys(command.kinds)) or KINDS
        if isinstance(command, Subscribe):
            if command.resume_from is not None:
                if client.mode != "realtime":
                    raise Rejected("mode-not-realtime", f"in mode {client.mode} nothing is sent again: set mode realtime first")
                self._resume(client, command.id, tickers, kinds, after=command.resume_from, stream=command.stream)
                return
            self._hub.subscribe(client, command.id, tickers, kinds)
        else:
            self._hub.unsubscribe(client, command.id, tickers, kinds)

    async def _write(self, socket: WebSocket, send: Send, client: Client) -> None:
        """Send what the hub has for the client until it is to be closed. `hub.close` bounds the waiting by `abort`."""
        try:
            while True:
                await client.wake.wait()
                client.wake.clear()
                while frame := self._hub.take(client):
                    client.is_sending = True
                    await send({"type": "websocket.send", "text": frame})
                    client.is_sending = False
                if client.closing is not None:
                    break
            if last := self._hub.last_frame(client):
                await send({"type": "websocket.send", "text": last})
            await socket.close(*client.closing)
        except (OSError, WebSocketDisconnect):
            # The client went away; the reader hears of it by itself.
            return


def _no_abort() -> None:
    """For servers without `ABORT`: their own timeouts have to do."""
