"""Kalshi's own list of trades and price grids, asked by REST, to hold an archive against.

Source: Kalshi API documentation, GetTrades and GetMarkets (protocol notes of 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ssmd.errors import Malformed, Unavailable
from ssmd.exchanges.kalshi.evidence import price_ranges
from ssmd.exchanges.kalshi.timestamps import rfc3339_ns
from ssmd.quality.prices import GridRange
from ssmd.quality.trades import VenueTrade
from ssmd.schemas.decimals import parse_fitting
from ssmd.schemas.records import Side
from ssmd.services.kalshi_rest.client import KalshiRest
from ssmd.services.kalshi_rest.history import PAGE_LIMIT, VenueHistory

MARKETS_AT_ONCE: Final = 100
_SIDES: Final = {"bid": Side.BID, "yes": Side.BID, "ask": Side.ASK, "no": Side.ASK}


class _Trade(msgspec.Struct):
    trade_id: str
    yes_price_dollars: str
    count_fp: str
    created_time: str
    taker_book_side: str = ""
    taker_side: str = ""


class _Market(msgspec.Struct):
    ticker: str
    price_ranges: msgspec.Raw = msgspec.Raw(b"[]")


class VenueTrades:
    """Asks one venue, on both sides of its historical cutoff.

    Args:
        client: whose limits and patience apply; it is closed by whoever made it.
    """

    def __init__(self, client: KalshiRest) -> None:
        self._client = client
        self._history = VenueHistory(client)

    async def trades(self, ticker: str, start_ns: int, end_ns: int) -> list[VenueTrade]:
        """Every trade of `ticker` from `start_ns` to `end_ns`, both inclusive, by time.

        Raises:
            Unavailable, Rejected: as `VenueHistory.trades`.
        """
        listed = await self._history.trades(start_ns, end_ns + 1, ticker)
        try:
            return [_read(msgspec.json.decode(trade.row, type=_Trade)) for trade in listed]
        except (Malformed, msgspec.DecodeError) as error:
            raise Unavailable(f"{self._client.url} lists a trade of {ticker} that cannot be read: {error}") from error

    async def grids(self, tickers: Sequence[str]) -> dict[str, tuple[GridRange, ...]]:
        """The price grids of those of `tickers` that the venue tells one for.

        Raises:
            Unavailable, Rejected: as `KalshiRest.pages`.
        """
        found: dict[str, tuple[GridRange, ...]] = {}
        left = list(tickers)
        for path in ("/markets", "/historical/markets"):
            for at in range(0, len(left), MARKETS_AT_ONCE):
                params = {"tickers": ",".join(left[at : at + MARKETS_AT_ONCE]), "limit": PAGE_LIMIT}
                async for rows in self._client.pages(path, params, rows="markets", key="ticker"):
                    found |= {ticker: grid for ticker, grid in map(self._grid_of, rows) if grid}
            left = [ticker for ticker in left if ticker not in found]
        return found

    def _grid_of(self, row: msgspec.Raw) -> tuple[str, tuple[GridRange, ...]]:
        try:
            market = msgspec.json.decode(row, type=_Market)
        except msgspec.DecodeError as error:
            raise Unavailable(f"{self._client.url} lists a market that cannot be read: {error}") from error
        return market.ticker, _grid(b'{"price_ranges":%b}' % bytes(market.price_ranges))


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
