"""`/v1/stream`: one task reads a client's commands, one writes its frames; neither waits for another client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ssmd.clock import Clock
from ssmd.errors import Rejected
from ssmd.gateway.commands import AnyCommand, Ping, Subscribe, parse_command
from ssmd.gateway.hub import KINDS, Client, CloseReason, Hub
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.messages import Pong, Refusal, encode, refusal_of

ABORT: Final = "ssmd.abort"
"""ASGI scope extension: cut the connection without waiting. `server.StreamProtocol` provides it."""

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


class _Bucket:
    """Tokens that come back with time."""

    def __init__(self, per_s: int, burst: int, now_ns: int) -> None:
        self._per_s = per_s
        self._full_ns = burst * 1_000_000_000
        self._held_ns = self._full_ns
        self._at_ns = now_ns

    def take(self, now_ns: int) -> bool:
        # Held in token-nanoseconds: exact, however short the time between two commands.
        self._held_ns = min(self._full_ns, self._held_ns + (now_ns - self._at_ns) * self._per_s)
        self._at_ns = now_ns
        if self._held_ns < 1_000_000_000:
            return False
        self._held_ns -= 1_000_000_000
        return True


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
        await socket.accept()
        abort: Callable[[], None] = scope.get("extensions", {}).get(ABORT, _no_abort)
        try:
            client = self._hub.connect(abort)
        except Rejected as refusal:
            await self._turn_away(socket, refusal)
            return
        writer = asyncio.create_task(self._write(socket, send, client), name=f"gateway-client-{client.number}")
        try:
            await self._read(socket, client)
        finally:
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
        bucket = _Bucket(self._limits.commands_per_s, self._limits.commands_burst, self._clock.monotonic_ns())
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

    def _obey(self, text: str | None, client: Client, bucket: _Bucket) -> Refusal | None:
        if not bucket.take(self._clock.monotonic_ns()):
            return Refusal(None, "rate-limited", f"at most {self._limits.commands_per_s} commands a second")
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
        tickers, kinds = tuple(dict.fromkeys(command.tickers)), tuple(dict.fromkeys(command.kinds)) or KINDS
        if isinstance(command, Subscribe):
            if command.resume_from is not None:
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
                    await send({"type": "websocket.send", "text": frame})
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
