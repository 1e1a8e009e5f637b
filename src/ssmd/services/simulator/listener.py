"""The simulator's door: HTTP and WebSocket on one port.

The first request on a connection decides: an upgrade becomes a `Connection`, anything else is HTTP/1.1 with keep-alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, cast
from urllib.parse import parse_qsl, urlsplit

import httptools
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from ssmd.services.simulator.connection import Connection

_HEAD_MAX = 65_536
_BODY_MAX = 1 << 20
_IDLE_S = 75.0
_COMMAND_MAX = 64 * 1024 * 1024  # a subscribe may name hundreds of thousands of tickers
_HIGH_WATER = 256 * 1024


class HttpRequest(NamedTuple):
    """One request; header names in lower case, `path` without the query."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class HttpAnswer(NamedTuple):
    """Status and JSON body.

    Attributes:
        headers: more of them, (name, value).
        delay_s: how long to wait before it.
        is_cut: end the connection in the middle of the body.
    """

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0
    is_cut: bool = False


class Site:
    """What a listener serves.

    Args:
        http: answers a plain request.
        refuse: looks at a handshake; the answer that refuses it, or None.
        connect: makes the connection of an accepted handshake.
        compression: agree to permessage-deflate.
    """

    def __init__(
        self,
        http: Callable[[HttpRequest], HttpAnswer],
        refuse: Callable[[HttpRequest], HttpAnswer | None],
        connect: Callable[[ServerProtocol, asyncio.Transport], Connection],
        *,
        compression: bool = False,
    ) -> None:
        self.compression = compression
        self.http = http
        self.refuse = refuse
        self.connect = connect
        self.transports: set[asyncio.Transport] = set()


class Listener(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._transport: asyncio.Transport
        self._head = b""
        self._http: _Http | None = None
        self._connection: Connection | None = None
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are one without saying so
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._site.transports.add(self._transport)
        self._rest()

    def data_received(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.received(data)
        elif self._http is not None:
            self._rest()
            self._http.feed(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end >= 0:
                self._begin(end)
            elif len(self._head) > _HEAD_MAX:
                self._transport.abort()

    def eof_received(self) -> bool:
        if self._connection is not None:
            self._connection.ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._site.transports.discard(self._transport)
        if self._idle is not None:
            self._idle.cancel()
        if self._connection is not None:
            self._connection.lost(f"transport: {exc}" if exc else "client went away")

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.full(full=True)

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.full(full=False)

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self._transport.abort)

    def _begin(self, end: int) -> None:
        head, self._head = self._head, b""
        upgrade = any(
            line.lower().startswith(b"upgrade:") and b"websocket" in line.lower() for line in head[:end].split(b"\r\n")[1:]
        )
        if not upgrade:
            self._http = _Http(self._site, self._transport)
            self._http.feed(head)
            return
        # Without context takeover a frame's bytes do not depend on those before: faults may repeat and swap frames.
        extensions = [ServerPerMessageDeflateFactory(server_no_context_takeover=True)] if self._site.compression else None
        protocol = ServerProtocol(extensions=extensions, max_size=_COMMAND_MAX)
        protocol.receive_data(head[: end + 4])
        request = next((event for event in protocol.events_received() if isinstance(event, Request)), None)
        if request is None:
            self._transport.abort()
            return
        self._handshake(protocol, request)
        if self._connection is not None and head[end + 4 :]:
            self._connection.received(head[end + 4 :])

    def _handshake(self, protocol: ServerProtocol, request: Request) -> None:
        split = urlsplit(request.path)
        lowered = {name.lower(): value for name, value in request.headers.raw_items()}
        refused = self._site.refuse(HttpRequest("GET", split.path, _query(split.query), lowered, b""))
        response = protocol.accept(request) if refused is None else _response(refused)
        protocol.send_response(response)
        for data in protocol.data_to_send():
            if data:
                self._transport.write(data)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._transport.close()
            return
        if self._idle is not None:
            self._idle.cancel()
        self._connection = self._site.connect(protocol, self._transport)


class _Http:
    """HTTP/1.1 on one connection, one request after the other."""

    def __init__(self, site: Site, transport: asyncio.Transport) -> None:
        self._site = site
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = b""

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._write(HttpAnswer(400, b'{"error":{"code":"bad_request","message":"bad request"}}'), keep=False)

    # httptools' callbacks.

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > _BODY_MAX:
            self._write(HttpAnswer(413, b'{"error":{"code":"too_large","message":"body too large"}}'), keep=False)

    def on_message_complete(self) -> None:
        if self._transport.is_closing():
            return
        split = urlsplit(self._url.decode("latin-1"))
        method = self._parser.get_method().decode("latin-1")
        request = HttpRequest(method, split.path, _query(split.query), self._headers, self._body)
        answer, keep = self._site.http(request), self._parser.should_keep_alive()
        if not answer.delay_s:
            self._write(answer, keep=keep)
            return
        self._transport.pause_reading()  # what follows on this connection is answered after this
        asyncio.get_running_loop().call_later(answer.delay_s, self._write_late, answer, keep)

    def _write_late(self, answer: HttpAnswer, keep: bool) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._write(answer, keep=keep)

    def _write(self, answer: HttpAnswer, *, keep: bool) -> None:
        phrase = HTTPStatus(answer.status).phrase
        more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
        head = (
            f"HTTP/1.1 {answer.status} {phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(answer.body)}\r\nconnection: {'keep-alive' if keep else 'close'}\r\n"
            f"{more}\r\n"
        )
        body = answer.body[: len(answer.body) // 2] if answer.is_cut else answer.body
        self._transport.write(head.encode("latin-1") + body)
        if not keep or answer.is_cut:
            self._transport.close()


def _response(answer: HttpAnswer) -> Response:
    headers = Headers(
        [("Content-Type", "application/json"), ("Content-Length", str(len(answer.body))), ("Connection", "close")]
    )
    return Response(answer.status, HTTPStatus(answer.status).phrase, headers, answer.body)


def _query(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True))
