"""`/v1/markets...`, `/v1/health`, `/v1/status` and `/v1/feeds`: what the gateway holds in memory, each with its coverage.

A ticker is one percent-encoded path segment: the path is split before it is decoded, so tickers may hold "/" and ".".
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ssmd.errors import Rejected, Unavailable
from ssmd.gateway import trade_views, views
from ssmd.gateway.answers import json_answer
from ssmd.gateway.market import Market
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.messages import GapView, gap_view
from ssmd.gateway.operations import (
    CURSOR,
    INSTANT_FORM,
    LIMIT,
    TICKER,
    Given,
    Operation,
    Parameter,
    decode_cursor,
    encode_cursor,
    instant_of,
)
from ssmd.gateway.past_books import PastBooks
from ssmd.services.component import Health

DEPTH_MAX: Final = 10_000
PREFIX: Final = "/v1/markets/"
_NUMBER_CURSOR: Final = Parameter("cursor", "from the page before; absent = the first page", 0, 1, 2**62)


class FeedStatus(msgspec.Struct, frozen=True):
    """One feed as this gateway sees it.

    Attributes:
        stream: which life of the market stream its sequences are of.
        lag_messages: stream messages not read yet. last_recv_ns: receive time at the venue's socket of the newest block.
        open_gaps: holes of the whole connection that are open now.
    """

    feed: str
    ok: bool
    reason: str
    stream: str
    stream_seq: int
    lag_messages: int
    last_recv_ns: int
    records: int
    markets: int
    verified_markets: int
    open_gaps: tuple[GapView, ...]


class Feeds(msgspec.Struct, frozen=True):
    feeds: tuple[FeedStatus, ...]


HEALTH: Final = Operation(
    "getHealth", "/v1/health", "system", "Whether the gateway does its job: 200, else 503 with the reason", Health, (), (503,)
)
STATUS: Final = Operation("getStatus", "/v1/status", "system", "The same words, always 200", Health)
FEEDS: Final = Operation("listFeeds", "/v1/feeds", "system", "The feeds this gateway serves, with position and lag", Feeds)
MARKETS: Final = Operation(
    "listMarkets",
    "/v1/markets",
    "markets",
    "Markets by ticker, ascending",
    views.Markets,
    (
        Parameter("q", "part of the ticker, in any case"),
        Parameter("status", "only markets of this status"),
        Parameter("series", "only markets that are listed in it"),
        Parameter("category", "only markets that are listed in it"),
        Parameter("prefix", "only tickers that begin so (a series: KXBTC15M-)"),
        LIMIT,
        CURSOR,
    ),
)
MARKET: Final = Operation(
    "getMarket", "/v1/markets/{ticker}", "markets", "One market in short", views.MarketDetail, (TICKER,), (404,)
)
TRADES: Final = Operation(
    "listTrades",
    "/v1/markets/{ticker}/trades",
    "markets",
    "Its last trades, newest first; the archive has the older ones",
    trade_views.Trades,
    (TICKER, LIMIT, _NUMBER_CURSOR),
    (404,),
)
ORDERBOOK: Final = Operation(
    "getOrderBook",
    "/v1/markets/{ticker}/orderbook",
    "markets",
    "Its order book, best levels first: now, or as it was at an instant, from the archive",
    views.OrderBook,
    (
        TICKER,
        Parameter("depth", "levels a side, 0 = all", 0, 0, DEPTH_MAX),
        Parameter("at", "an instant, RFC 3339 in UTC or nanoseconds since 1970, inclusive; absent = now", form=INSTANT_FORM),
    ),
    (404,),
)
CANDLES: Final = Operation(
    "listCandles",
    "/v1/markets/{ticker}/candles",
    "markets",
    "Its trades by time, newest first: the last 360 minutes that had any",
    trade_views.Candles,
    (TICKER, Parameter("interval", "width", "1m", choices=tuple(trade_views.INTERVALS)), LIMIT, _NUMBER_CURSOR),
    (404,),
)
OPERATIONS: Final = (HEALTH, STATUS, FEEDS, MARKETS, MARKET, TRADES, ORDERBOOK, CANDLES)


class MarketRoutes:
    """The REST handlers over one state."""

    def __init__(self, state: MarketState, health: Callable[[], Health], past: PastBooks | None) -> None:
        self._past = past
        self._state = state
        self._health = health
        self._views = {"": MARKET, "trades": TRADES, "orderbook": ORDERBOOK, "candles": CANDLES}

    def routes(self) -> list[Route]:
        return [
            Route("/healthz", self.alive, methods=["GET"]),
            Route("/v1/health", self.health, methods=["GET"]),
            Route("/v1/status", self.status, methods=["GET"]),
            Route("/v1/feeds", self.feeds, methods=["GET"]),
            Route("/v1/markets", self.markets, methods=["GET"]),
            Route("/v1/markets/{rest:path}", self.market, methods=["GET"]),
            Route("/v1/stream", self.stream, methods=["GET"]),
        ]

    async def alive(self, request: Request) -> Response:
        """As health, for probes that have no key: no numbers."""
        health = self._health()
        return json_answer(request, Health(health.ok, health.reason), 200 if health.ok else 503)

    async def health(self, request: Request) -> Response:
        Given(request, HEALTH)
        health = self._health()
        return json_answer(request, health, 200 if health.ok else 503)

    async def status(self, request: Request) -> Response:
        Given(request, STATUS)
        return json_answer(request, self._health())

    async def feeds(self, request: Request) -> Response:
        Given(request, FEEDS)
        state, health = self._state, self._health()
        stats = {name: value for name, value in health.stats.items() if isinstance(value, int)}
        feed = FeedStatus(
            feed=state.feed,
            ok=health.ok,
            reason=health.reason,
            stream=str(health.stats.get("stream", "")),
            stream_seq=state.stream_seq,
            lag_messages=stats.get("lag_messages", 0),
            last_recv_ns=stats.get("last_recv_ns", 0),
            records=state.records,
            markets=len(state),
            verified_markets=sum(1 for market in state.after("") if market.book_doubt is None) if state.is_current else 0,
            open_gaps=tuple(gap_view(gap) for gap in state.whole_gaps_open.values()),
        )
        return json_answer(request, Feeds((feed,)))

    async def stream(self, _: Request) -> Response:
        raise Rejected(
            "upgrade-required", "/v1/stream is a WebSocket", mend="connect with a WebSocket client: ws://.../v1/stream"
        )

    async def markets(self, request: Request) -> Response:
        given = Given(request, MARKETS)
        limit = given.number("limit")
        part, status, prefix = given.text("q").casefold(), given.text("status"), given.text("prefix")
        series, category, listings = given.text("series"), given.text("category"), self._state.listings
        cursor = given.text("cursor")
        behind = _ticker_cursor(cursor) if cursor else ""

        def is_listed_so(ticker: str) -> bool:
            listed = listings.find(ticker)
            return listed is not None and series in {"", listed.market.series} and category in {"", listed.market.category}

        found = (
            market
            for market in self._state.after(behind)
            if part in market.ticker.casefold()
            and market.ticker.startswith(prefix)
            and (not status or views.status_of(self._state, market) == status)
            and (not (series or category) or is_listed_so(market.ticker))
        )
        page = list(islice(found, limit + 1))
        following = encode_cursor([page[limit - 1].ticker]) if len(page) > limit else None
        shown = tuple(views.summary(self._state, market) for market in page[:limit])
        return json_answer(request, views.Markets(self._state.feed, shown, following, self._state.stream_seq))

    async def market(self, request: Request) -> Response:
        """`/{ticker}`, and what is below it."""
        ticker, view = self._segments(request)
        given = Given(request, self._views[view])
        if view == "orderbook" and (at := given.text("at")):
            return json_answer(request, await self._book_at(ticker, instant_of(at), given.number("depth")))
        state, market = self._state, self._state.find(ticker)
        if market is None:
            raise Rejected(
                "market-unknown",
                f"feed {state.feed} has had no record of ticker {ticker[:256]!r}",
                mend="GET /v1/markets?q=... lists the tickers",
            )
        return json_answer(request, self._shown(market, view, given))

    async def _book_at(self, ticker: str, at_ns: int, depth: int) -> views.OrderBook:
        if self._past is None:
            raise Unavailable("this gateway has no archive to read from", mend="start it with its environment: ssmd up")
        return views.past_book(self._state.feed, await self._past.book(ticker, at_ns), depth)

    def _shown(self, market: Market, view: str, given: Given) -> msgspec.Struct:
        state = self._state
        match view:
            case "trades":
                return trade_views.trades(state, market, limit=given.number("limit"), before=given.number("cursor"))
            case "orderbook":
                return views.order_book(state, market, given.number("depth"))
            case "candles":
                interval = given.text("interval")
                return trade_views.candles(
                    state, market, interval, limit=given.number("limit"), before_ns=given.number("cursor")
                )
            case _:
                return views.detail(state, market)

    def _segments(self, request: Request) -> tuple[str, str]:
        raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
        encoded, slash, view = raw.decode("ascii", "replace").removeprefix(PREFIX).partition("/")
        if (slash and (not view or view not in self._views)) or not encoded:
            raise Rejected(
                "path-unknown",
                f"no such path: {request.url.path[:300]!r}",
                mend="a ticker is one path segment: write / as %2F; below it are /trades, /orderbook and /candles",
            )
        try:
            return unquote_to_bytes(encoded).decode(), view
        except UnicodeDecodeError as error:
            raise Rejected("parameter-value", f"the ticker {encoded[:256]!r} is no percent-encoded UTF-8") from error


def _ticker_cursor(cursor: str) -> str:
    match decode_cursor(cursor):
        case [str(ticker)]:
            return ticker
        case _:
            raise Rejected("parameter-value", f"not a cursor of this path: {cursor[:64]!r}")
