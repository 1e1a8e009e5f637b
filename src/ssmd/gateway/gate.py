"""What every request passes first: who asks, whether they may, how often; CORS, request size, the access log.

An ASGI application around another one. Everything under /v1/ needs a key, whether there is such a path or not; what is
outside (documents, dashboard page, /healthz) shows no data. A key comes in the header `Authorization: Bearer KEY` or, for
browsers, which cannot set it on a WebSocket, as the subprotocol `ssmd.key.KEY`; never in a URL.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssmd.clock import Clock
from ssmd.errors import Rejected, SsmdError, Unavailable
from ssmd.gateway.api_keys import Grant, check_allows
from ssmd.gateway.buckets import Buckets
from ssmd.gateway.clients import Access
from ssmd.gateway.problems import answer, problem_of, status_of
from ssmd.gateway.telemetry import GatewayMetrics
from ssmd.gateway.websocket import GRANT
from ssmd.identifiers import RandomBytes, system_random, uuid7
from ssmd.telemetry import request, tracing
from ssmd.telemetry.structured import structlog

KEY_PROTOCOL: Final = "ssmd.key."
REQUEST_ID: Final = b"x-request-id"
"""Header: the id of a request, the asker's own or ours; what is logged and traced for it carries it."""
_LOCAL_NAMES: Final = frozenset({"", "localhost", "127.0.0.1", "[::1]"})
METRICS: Final = "/metrics"
_SCOPES: Final = (("/v1/stream", "stream"), ("/v1/markets", "markets"), ("/v1", "records"), (METRICS, "records"))


class GateLimits(NamedTuple):
    """Bounds for those whose key says nothing else.

    Attributes:
        requests_per_s: per key, twice that at once; 0 = unlimited.
        body_bytes_max: of a request; no path takes a body.
        target_bytes_max: of path and query.
    """

    requests_per_s: int = 200
    body_bytes_max: int = 0
    target_bytes_max: int = 8_192


class Gate:
    """See the module.

    Args:
        is_local: nobody is asked for a key, so only this machine's own names are answered to: a page of another site
            whose name was made to lead here (DNS rebinding) gets nothing.
        origins: pages of other sites that a browser may let ask ("https://desk.example"); () = none.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        feed: str,
        clock: Clock,
        metrics: GatewayMetrics,
        *,
        is_local: bool = False,
        origins: tuple[str, ...] = (),
        limits: GateLimits | None = None,
        random: RandomBytes = system_random,
    ) -> None:
        self._is_local = is_local
        self._app = app
        self._access = access
        self._feed = feed
        self._clock = clock
        self._metrics = metrics
        self._origins = frozenset(origins)
        self._limits = limits or GateLimits()
        self._buckets = Buckets()
        self._random = random
        self._log = structlog.get_logger("ssmd.gateway.access")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(REQUEST_ID, b"").decode("latin-1")
        request_id = request.checked(given) or uuid7(self._clock.now_ns(), self._random)
        with request.begun(request_id):
            if scope["type"] == "websocket":
                await self._websocket(scope, receive, send)
                return
            with tracing.span(f"request {scope['method']}", path=scope["path"][:300]):
                await self._http(scope, receive, send, request_id)

    async def _http(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        began_ns = self._clock.monotonic_ns()
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1")
        allowed = origin if origin in self._origins else ""
        status, size, name = 500, 0, ""

        async def told(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {
                    **message,
                    "headers": [*message["headers"], *_cors(allowed), (REQUEST_ID, request_id.encode()), *_ALWAYS],
                }
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                await _preflight(allowed)(scope, receive, told)
                return
            try:
                grant = self._admit(scope, headers)
            except SsmdError as error:
                await refusal(error, scope)(scope, receive, told)
                return
            if grant is not None:
                name = grant.client_id
                scope[GRANT] = grant
            await self._app(scope, receive, told)
        finally:
            took_ns = self._clock.monotonic_ns() - began_ns
            self._metrics.answered(status, took_ns)
            # The query is left out: whoever puts a secret there has made one mistake already.
            self._log.info(
                "request",
                method=scope["method"],
                path=scope["path"][:300],
                status=status,
                size_bytes=size,
                took_us=took_ns // 1_000,
                client=name,
                peer=_peer(scope),
            )

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> Grant | None:
        """The grant of who asks; None = it is nobody's business. Raises what is answered instead."""
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > self._limits.target_bytes_max:
            raise Rejected("target-too-long", f"path and query have at most {self._limits.target_bytes_max} bytes")
        if int(headers.get(b"content-length", b"0") or 0) > self._limits.body_bytes_max or b"transfer-encoding" in headers:
            raise Rejected("body-refused", "no path takes a body")
        self._check_host(headers)
        if not scope["path"].startswith("/v1/") and scope["path"] != METRICS:
            return None
        grant = self._access.grant(_bearer(headers))
        check_allows(grant, _scope_of(scope["path"]), self._feed)
        per_s = grant.requests_per_s or self._limits.requests_per_s
        if grant.client_id and per_s and not self._buckets.take(grant.client_id, per_s, self._clock.monotonic_ns()):
            raise Rejected("rate-limited", f"at most {per_s} requests a second", mend="wait a second")
        return grant

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        offered: list[str] = scope.get("subprotocols", [])
        key = _bearer(headers) or next((one[len(KEY_PROTOCOL) :] for one in offered if one.startswith(KEY_PROTOCOL)), "")
        scope["subprotocols"] = [one for one in offered if not one.startswith(KEY_PROTOCOL)]
        code, name = 101, ""
        try:
            self._check_host(headers)
            self._check_origin(headers)
            grant = self._access.grant(key)
            check_allows(grant, "stream", self._feed)
        except SsmdError as error:
            code = status_of(error).value
            await _deny(refusal(error, scope), receive, send)
        else:
            name = grant.client_id
            scope[GRANT] = grant
            await self._app(scope, receive, send)
        finally:
            self._log.info("websocket", path=scope["path"][:300], status=code, client=name, peer=_peer(scope))

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if self._is_local and name not in _LOCAL_NAMES:
            raise Rejected("host-forbidden", f"without keys only this machine is served, not as {name[:64]!r}")

    def _check_origin(self, headers: dict[bytes, bytes]) -> None:
        """A page of another site must not use what a browser may reach here: CORS does not cover WebSockets."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or origin in self._origins:
            return
        if origin.partition("://")[2] != headers.get(b"host", b"").decode("latin-1"):
            raise Rejected("origin-forbidden", "pages of this origin may not connect", mend="gateway.cors_origins allows them")


def refusal(error: SsmdError, scope: Scope) -> Response:
    """The answer to what is not let in."""
    status = status_of(error)
    headers = {"Cache-Control": "no-store"}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="ssmd"'
    elif status is HTTPStatus.TOO_MANY_REQUESTS or isinstance(error, Unavailable):
        headers["Retry-After"] = "1"
    return answer(problem_of(error, scope["path"]), headers)


def _scope_of(path: str) -> str:
    return next(scope for prefix, scope in _SCOPES if path == prefix or path.startswith(f"{prefix}/"))


def _bearer(headers: dict[bytes, bytes]) -> str:
    scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""


_ALWAYS: Final = [(b"x-content-type-options", b"nosniff")]


def _cors(origin: str) -> list[tuple[bytes, bytes]]:
    if not origin:
        return [(b"vary", b"origin")]
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"etag, retry-after, x-request-id"),
        (b"vary", b"origin"),
    ]


def _preflight(allowed: str) -> Response:
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD",
        "Access-Control-Allow-Headers": "authorization, if-none-match",
        "Access-Control-Max-Age": "600",
    }
    return Response(status_code=204, headers=headers if allowed else None)


async def _deny(response: Response, receive: Receive, send: Send) -> None:
    """Answer a WebSocket handshake with an HTTP status (ASGI extension websocket.http.response)."""
    await receive()
    head: list[Any] = response.raw_headers
    await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": head})
    await send({"type": "websocket.http.response.body", "body": bytes(response.body), "more_body": False})
