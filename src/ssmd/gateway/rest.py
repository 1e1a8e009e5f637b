"""`/v1/markets...` and `/v1/health`: what the gateway holds in memory, as JSON, each answer with its coverage.

A ticker is one percent-encoded path segment: the path is split before it is decoded, so tickers may hold "/" and ".".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from itertools import islice
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ssmd.errors import Rejected
from ssmd.gateway import views
from ssmd.gateway.market import Market
from ssmd.gateway.market_state import MarketState
from ssmd.services.component import Health

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000
DEPTH_MAX: Final = 10_000
PREFIX: Final = "/v1/markets/"
_ENCODER: Final = msgspec.json.Encoder()


class MarketRoutes:
    """The REST handlers over one state."""

    def __init__(self, state: MarketState, health: Callable[[], Health]) -> None:
        self._state = state
        self._health = health

    def routes(self) -> list[Route]:
        return [
            Route("/v1/health", self.health, methods=["GET"]),
            Route("/v1/markets", self.markets, methods=["GET"]),
            Route("/v1/markets/{rest:path}", self.market, methods=["GET"]),
            Route("/v1/stream", self.stream, methods=["GET"]),
        ]

    async def health(self, request: Request) -> Response:
        """200 when the gateway does its job, else 503; the body says why."""
        _parameters(request)
        health = self._health()
        return _json(health, 200 if health.ok else 503)

    async def stream(self, _: Request) -> Response:
        raise Rejected(
            "upgrade-required", "/v1/stream is a WebSocket", mend="connect with a WebSocket client: ws://.../v1/stream"
        )

    async def markets(self, request: Request) -> Response:
        """`q` = part of the ticker (any case), `status`, `limit` (1..1000), `cursor`."""
        given = _parameters(request, "q", "status", "limit", "cursor")
        limit = _whole(given, "limit", PAGE_DEFAULT, 1, PAGE_MAX)
        part, status = given.get("q", "").casefold(), given.get("status", "")
        found = (
            market
            for market in self._state.after(_decode_cursor(given.get("cursor", "")))
            if part in market.ticker.casefold()
            and (not status or (market.status is not None and market.status.status == status))
        )
        page = list(islice(found, limit + 1))
        cursor = _encode_cursor(page[limit - 1].ticker) if len(page) > limit else None
        shown = tuple(views.summary(self._state, market) for market in page[:limit])
        return _json(views.Markets(self._state.feed, shown, cursor, self._state.stream_seq))

    async def market(self, request: Request) -> Response:
        """`/{ticker}`, `/{ticker}/trades`, `/{ticker}/orderbook`."""
        ticker, _, view = self._segments(request)
        market = self._state.find(ticker)
        if market is None:
            raise Rejected(
                "market-unknown",
                f"feed {self._state.feed} has had no record of ticker {ticker[:256]!r}",
                mend="GET /v1/markets?q=... lists the tickers",
            )
        if view == "trades":
            return self._trades(request, market)
        if view == "orderbook":
            depth = _whole(_parameters(request, "depth"), "depth", 0, 0, DEPTH_MAX)
            return _json(views.order_book(self._state, market, depth))
        _parameters(request)
        return _json(views.detail(self._state, market))

    def _trades(self, request: Request, market: Market) -> Response:
        given = _parameters(request, "limit", "cursor")
        limit = _whole(given, "limit", PAGE_DEFAULT, 1, PAGE_MAX)
        before = _whole(given, "cursor", 0, 1, 2**62)
        return _json(views.trades(self._state, market, limit=limit, before=before))

    @staticmethod
    def _segments(request: Request) -> tuple[str, str, str]:
        raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
        encoded, slash, view = raw.decode("ascii", "replace").removeprefix(PREFIX).partition("/")
        if (slash and view not in ("trades", "orderbook")) or not encoded:
            raise Rejected(
                "path-unknown",
                f"no such path: {request.url.path[:300]!r}",
                mend="a ticker is one path segment: write / as %2F; below it are /trades and /orderbook",
            )
        try:
            return unquote_to_bytes(encoded).decode(), slash, view
        except UnicodeDecodeError as error:
            raise Rejected("parameter-value", f"the ticker {encoded[:256]!r} is no percent-encoded UTF-8") from error


def _json(body: msgspec.Struct, status: int = 200) -> Response:
    return Response(_ENCODER.encode(body), status, media_type="application/json")


def _parameters(request: Request, *known: str) -> dict[str, str]:
    """The query's parameters; unknown and repeated ones are refused, so that a typing error is not an answer."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            takes = f"this path takes {', '.join(known)}" if known else "this path takes none"
            raise Rejected("parameter-unknown", f"no parameter {name[:64]!r}; {takes}")
        if name in given:
            raise Rejected("parameter-value", f"parameter {name!r} is given twice")
        given[name] = value
    return given


def _whole(given: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise Rejected("parameter-value", f"{name} is a whole number from {low} to {high}, not {text[:64]!r}")
    return int(text)


def _encode_cursor(ticker: str) -> str:
    return base64.urlsafe_b64encode(ticker.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise Rejected("parameter-value", f"not a cursor of this path: {cursor[:64]!r}") from error
