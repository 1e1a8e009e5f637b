"""Kalshi's own list of trades and price grids, asked by REST, to hold an archive against.

Source: Kalshi API documentation, GetTrades, GetMarkets and GetHistoricalCutoff (protocol notes of 2026-11).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import httpx
import msgspec

from ssmd.errors import Malformed, Unavailable
from ssmd.exchanges.kalshi.evidence import price_ranges
from ssmd.exchanges.kalshi.timestamps import rfc3339_ns
from ssmd.identifiers import RandomBytes
from ssmd.quality.prices import GridRange
from ssmd.quality.trades import VenueTrade
from ssmd.schemas.decimals import parse_fitting
from ssmd.schemas.records import Side
from ssmd.streams.backoff import backoff_s

PAGE_LIMIT: Final = 1000
PAGES_MAX: Final = 2000
TRIES_MAX: Final = 5
TIMEOUT_S: Final = 10.0
MARKETS_AT_ONCE: Final = 100
_SIDES: Final = {"bid": Side.BID, "yes": Side.BID, "ask": Side.ASK, "no": Side.ASK}
_Cursor = Annotated[str, msgspec.Meta(max_length=10_000)]


class _Trade(msgspec.Struct):
    trade_id: str
    yes_price_dollars: str
    count_fp: str
    created_time: str
    taker_book_side: str = ""
    taker_side: str = ""


class _Trades(msgspec.Struct):
    trades: list[_Trade]
    cursor: _Cursor = ""


class _Market(msgspec.Struct):
    ticker: str
    price_ranges: msgspec.Raw = msgspec.Raw(b"[]")


class _Markets(msgspec.Struct):
    markets: list[_Market]
    cursor: _Cursor = ""


class _Cutoff(msgspec.Struct):
    trades_created_ts: str = ""


class VenueTrades:
    """Asks one venue. `close` it.

    Args:
        rest_url: with the root path, no slash at its end.
        signed: headers of a GET of the given url; {} where none are needed.
    """

    def __init__(self, rest_url: str, signed: Callable[[str], Mapping[str, str]], random: RandomBytes) -> None:
        self._url = rest_url
        self._signed = signed
        self._random = random
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S)

    async def close(self) -> None:
        await self._client.aclose()

    async def reaches_back_to_ns(self) -> int:
        """The oldest trades that `trades` lists; 0 = the venue does not say.

        Raises:
            Unavailable: as `trades`.
        """
        text = (await self._get("/historical/cutoff", {}, _Cutoff)).trades_created_ts
        try:
            return rfc3339_ns(text) if text else 0
        except Malformed as error:
            raise Unavailable(f"{self._url} told its cutoff as {text[:40]!r}") from error

    async def trades(self, ticker: str, start_ns: int, end_ns: int) -> list[VenueTrade]:
        """Every trade of `ticker` in the seconds from `start_ns` to `end_ns`, both inclusive, as the venue orders them.

        Raises:
            Unavailable: no answer after some tries, one that does not fit, or a list that goes in circles.
        """
        params = {
            "ticker": ticker,
            "min_ts": str(start_ns // 10**9),
            "max_ts": str(-(-end_ns // 10**9)),
            "limit": str(PAGE_LIMIT),
        }
        found: list[VenueTrade] = []
        seen: set[str] = set()
        for _ in range(PAGES_MAX):
            page = await self._get("/markets/trades", params, _Trades)
            try:
                found += [_read(trade) for trade in page.trades]
            except Malformed as error:
                raise Unavailable(f"{self._url} lists a trade of {ticker} that cannot be read: {error.message}") from error
            if not page.cursor:
                return found
            if page.cursor in seen:
                raise Unavailable(f"the trades of {ticker} go in circles: cursor {page.cursor[:40]!r} came twice")
            seen.add(page.cursor)
            params["cursor"] = page.cursor
        raise Unavailable(f"the trades of {ticker} have more than {PAGES_MAX} pages")

    async def grids(self, tickers: Sequence[str]) -> dict[str, tuple[GridRange, ...]]:
        """The price grids of those of `tickers` that the venue tells one for.

        Raises:
            Unavailable: as `trades`.
        """
        found: dict[str, tuple[GridRange, ...]] = {}
        for at in range(0, len(tickers), MARKETS_AT_ONCE):
            asked = ",".join(tickers[at : at + MARKETS_AT_ONCE])
            page = await self._get("/markets", {"tickers": asked, "limit": str(PAGE_LIMIT)}, _Markets)
            for market in page.markets:
                ranges = _grid(b'{"price_ranges":%b}' % bytes(market.price_ranges))
                if ranges:
                    found[market.ticker] = ranges
        return found

    async def _get(self, path: str, params: Mapping[str, str], type_: type[Any]) -> Any:
        url = f"{self._url}{path}"
        trouble = ""
        for attempt in range(1, TRIES_MAX + 1):
            try:
                answer = await self._client.get(url, params=dict(params), headers=dict(self._signed(url)))
            except httpx.HTTPError as error:
                trouble = f"cannot reach {url}: {error or type(error).__name__}"
            else:
                if answer.status_code == httpx.codes.OK:
                    try:
                        return msgspec.json.decode(answer.content, type=type_)
                    except msgspec.DecodeError as error:
                        raise Unavailable(f"{url} answered what does not fit: {error}") from error
                trouble = f"{url} answered {answer.status_code}: {answer.text[:200]}"
                if answer.status_code < 500 and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                    break
            if attempt < TRIES_MAX:
                await asyncio.sleep(backoff_s(attempt, self._random, max_s=2.0))
        raise Unavailable(trouble)


def _read(trade: _Trade) -> VenueTrade:
    price, price_exponent = parse_fitting(trade.yes_price_dollars, -4)
    size, size_exponent = parse_fitting(trade.count_fp, -2)
    side = _SIDES.get(trade.taker_book_side or trade.taker_side, Side.UNKNOWN)
    return VenueTrade(trade.trade_id, price, price_exponent, size, size_exponent, side, rfc3339_ns(trade.created_time))


def _grid(body: bytes) -> tuple[GridRange, ...]:
    try:
        return tuple(GridRange(*one) for one in price_ranges(body))
    except Malformed:
        return ()  # a grid of another kind: the check of prices says that it did not run


def grid_of_detail(detail: str) -> tuple[GridRange, ...]:
    """The grid in a lifecycle message's body, () = it tells none that can be read."""
    return _grid(detail.encode()) if '"price_ranges"' in detail else ()


def tickers_by_trades(counts: Iterable[tuple[str, str, int]], most: int) -> list[tuple[str, str]]:
    """At most `most` (connection, ticker), those with most trades first; by name where they have as many."""
    order = sorted(counts, key=lambda one: (-one[2], one[1], one[0]))
    return [(connection, ticker) for connection, ticker, _ in order[:most]]
