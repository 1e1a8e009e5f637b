"""The venue's past by REST: trades on both sides of the historical cutoff, candles, settled markets.

The cutoff advances while one reads. Rows only ever move from the live calls to the historical ones, so the live side is
read first, then the cutoff again, then the historical side beyond it: nothing can slip through, what comes twice is known
by its id.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from ssmd.errors import Malformed, Rejected, Unavailable
from ssmd.exchanges.kalshi.rest import SECOND_NS
from ssmd.exchanges.kalshi.rest_history import CandleSpan, Cutoff, ListedTrade, candle_rows, read_cutoff, read_trade
from ssmd.services.kalshi_rest.client import KalshiRest

PAGE_LIMIT: Final = "1000"
MARGIN_NS: Final = 120 * SECOND_NS
"""How far beyond the cutoff the historical side is asked, too."""


class VenueHistory:
    """Asks one venue.

    Args:
        client: whose limits and patience apply.
    """

    def __init__(self, client: KalshiRest) -> None:
        self._client = client

    async def cutoff(self) -> Cutoff:
        """Since when rows are live.

        Raises:
            Unavailable, Rejected: as `KalshiRest.get`.
        """
        answer = await self._client.get("/historical/cutoff")
        try:
            return read_cutoff(answer.body)
        except Malformed as error:
            raise Unavailable(f"{self._client.url} told its cutoff as {error.message}") from error

    async def trades(self, start_ns: int, end_ns: int, ticker: str = "", *, not_before_ns: int = 0) -> list[ListedTrade]:
        """Every trade from `start_ns` (inclusive) to `end_ns` (exclusive), of one market or of all, by time then id.

        Args:
            not_before_ns: the live side must be read from answers that are at least of this time.

        Raises:
            Unavailable, Rejected: as `KalshiRest.pages`; Unavailable for a trade that cannot be read.
        """
        # Seconds of the venue are whole, both bounds inclusive.
        params = {"min_ts": str(start_ns // SECOND_NS), "max_ts": str(-(-end_ns // SECOND_NS)), "limit": PAGE_LIMIT}
        if ticker:
            params["ticker"] = ticker
        before = await self.cutoff()
        found: dict[str, ListedTrade] = {}
        if end_ns > before.trades_ns:
            await self._collect("/markets/trades", params, found, not_before_ns)
        after = await self.cutoff()
        if start_ns < after.trades_ns + MARGIN_NS:
            until_s = min(end_ns, after.trades_ns + MARGIN_NS) // SECOND_NS + 1
            await self._collect("/historical/trades", {**params, "max_ts": str(until_s)}, found, 0)
        wanted = [trade for trade in found.values() if start_ns <= trade.ts_ns < end_ns]
        return sorted(wanted, key=lambda trade: (trade.ts_ns, trade.trade_id))

    async def _collect(self, path: str, params: dict[str, str], found: dict[str, ListedTrade], not_before_ns: int) -> None:
        async for rows in self._client.pages(path, params, rows="trades", key="trade_id", not_before_ns=not_before_ns):
            for row in rows:
                try:
                    trade = read_trade(row)
                except Malformed as error:
                    raise Unavailable(f"{self._client.url}{path} lists a trade that cannot be read: {error.message}") from error
                found.setdefault(trade.trade_id, trade)

    async def settled_markets(self, start_ns: int, end_ns: int, ticker: str = "") -> AsyncGenerator[list[msgspec.Raw]]:
        """Markets that may have been settled in the interval, verbatim, page by page; some come twice, some are of other
        times: the historical list has no filter by time.

        Raises:
            Unavailable, Rejected: as `KalshiRest.pages`.
        """
        bounds = {"min_settled_ts": str(start_ns // SECOND_NS), "max_settled_ts": str(-(-end_ns // SECOND_NS))}
        narrow = {"tickers": ticker} if ticker else {}
        before = await self.cutoff()
        if end_ns > before.settled_ns:
            params = {"limit": PAGE_LIMIT, "mve_filter": "exclude", **bounds, **narrow}
            async for rows in self._client.pages("/markets", params, rows="markets", key="ticker"):
                yield rows
        after = await self.cutoff()
        if start_ns < after.settled_ns + MARGIN_NS:
            params = {"limit": PAGE_LIMIT, **(narrow or {"mve_filter": "exclude"})}
            async for rows in self._client.pages("/historical/markets", params, rows="markets", key="ticker"):
                yield rows

    async def candles(self, series: str, ticker: str, span: CandleSpan) -> Sequence[msgspec.Raw]:
        """Candlesticks whose end lies in the span, verbatim, oldest first; () for a market the venue has none of.

        Raises:
            Unavailable, Rejected: as `KalshiRest.get`.
        """
        params = {
            "start_ts": str(span.start_s),
            "end_ts": str(span.end_s),
            "period_interval": str(span.minutes),
        }
        # Whatever is in them, they name a series and a market and no other path.
        of, one = quote(series, safe=""), quote(ticker, safe="")
        for path in (f"/series/{of}/markets/{one}/candlesticks", f"/historical/markets/{one}/candlesticks"):
            try:
                answer = await self._client.get(path, params)
            except Rejected as error:
                if error.rule != "kalshi-not-found":
                    raise
                continue
            try:
                return candle_rows(answer.body)
            except Malformed as error:
                raise Unavailable(f"{self._client.url}{path} answered {error.message}") from error
        return ()
