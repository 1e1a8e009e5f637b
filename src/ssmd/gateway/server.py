"""uvicorn as a part of a component: its own listening socket, no signal handlers, connections that can be cut off."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from ssmd.errors import Misconfigured
from ssmd.gateway.websocket import ABORT, DIRECT

FRAME_BYTES_MAX: Final = 1 << 20
"""A larger incoming WebSocket message closes its connection (1009) without being read; smaller ones get an answer."""
BACKLOG: Final = 1024
_SEND_BUFFER_BYTES: Final = 256 << 10
_CLOSE_S: Final = 10.0


class StreamProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, made to let go of peers that do not read.

    uvicorn closes a connection only once its buffer has been flushed, which a peer that never reads can put off for
    ever: here the buffer is given up past a deadline. Kernel buffers are kept small by `listen`, so that a slow client
    shows while its own queue is short.
    """

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.handshake_initiated and not self.close_sent:
            # The application's task begins in a later turn of the loop.
            extensions = self.scope["extensions"]
            if extensions is not None:
                extensions[ABORT] = self.transport.abort  # type: ignore[assignment]  # a private extension
                extensions[DIRECT] = self.write_frame  # type: ignore[assignment]  # as above

    def write_frame(self, frame: bytes) -> bool:
        """Write a whole frame; False = the peer does not read, or the connection is ending.

        The protocol object below is not asked: an unfragmented frame without compression leaves no trace in it.
        """
        if not self.writable.is_set() or self.close_sent or self.disconnected or self.transport.is_closing():
            return False
        self.transport.write(frame)
        return True

    async def send(self, message: object) -> None:
        await self.writable.wait()
        if self.close_sent and not self.disconnected:
            # Closed by the protocol (bad frame, oversize): uvicorn would call this the application's mistake.
            raise ClientDisconnected
        await super().send(message)  # type: ignore[arg-type]  # whatever the application sends
        if self.close_sent and self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(_CLOSE_S, self.transport.abort)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(1007, "text frames are UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()


class EmbeddedServer(uvicorn.Server):
    """Signals belong to the process that runs the component; `ready` is set once connections are served."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class TlsFiles(NamedTuple):
    """PEM files: the certificate with its chain, and its private key."""

    certificate: Path
    key: Path


def check_reachable_by(host: str, env: str, *, has_keys: bool) -> None:
    """Refuse to serve strangers without keys.

    Raises:
        Misconfigured: no keys are asked for, and `host` is more than this machine.
    """
    if has_keys or host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise Misconfigured(
            f"the gateway would serve {host} without asking for API keys",
            mend=f"set gateway.auth: keys in exchanges/environments/{env}.yaml, or gateway.host: 127.0.0.1",
        )


def _context(tls: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        message = f"TLS certificate {tls.certificate} and key {tls.key} cannot be used: {error}"
        raise Misconfigured(message, mend="correct gateway.tls_certificate and gateway.tls_key of the environment") from error
    return context


def embedded_server(app: ASGIApp, drain_s: int, tls: TlsFiles | None = None) -> EmbeddedServer:
    """A server for `app`; requests under way have `drain_s` to finish once it is told to exit.

    Raises:
        Misconfigured: the TLS files cannot be used.
    """
    server = _server(app, drain_s)
    if tls is not None:
        context = _context(tls)
        # Loaded here already: uvicorn would end the process where they cannot be.
        server.config.load()
        server.config.ssl = context
    return server


def _server(app: ASGIApp, drain_s: int) -> EmbeddedServer:
    return EmbeddedServer(
        uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            ws=StreamProtocol,
            ws_max_size=FRAME_BYTES_MAX,
            ws_ping_interval=20.0,
            ws_ping_timeout=20.0,
            # Small frames to many clients: compressing each for each client costs more than it saves.
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=drain_s,
        )
    )


async def listen(host: str, port: int, env: str) -> socket.socket:
    """A listening socket; port 0 = any free one.

    Raises:
        Misconfigured: the address cannot be used; with what to change.
    """
    where = f"exchanges/environments/{env}.yaml, gateway.host and gateway.port"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except socket.gaierror as error:
        raise Misconfigured(f"the gateway cannot listen on {host}: no such host ({error})", mend=f"correct {where}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            mend = f"see who has it: ss -ltnp 'sport = :{port}'; or set another port (0 = any free one) in {where}"
            raise Misconfigured(f"the gateway cannot listen on {host}:{port}: the port is taken", mend=mend) from error
        message = f"the gateway cannot listen on {host}:{port}: {error.strerror or error}"
        raise Misconfigured(message, mend=f"correct {where}") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    # Accepted sockets inherit it. asyncio sets it only on sockets that were made with a protocol number, which this one
    # was not: an answer's body would wait 40 ms for the peer's delayed acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket, *, is_tls: bool = False) -> str:
    """http(s)://host:port of a listening socket."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
