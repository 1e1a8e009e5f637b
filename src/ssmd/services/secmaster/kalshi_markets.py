"""Kalshi's list of markets over its REST API: events with their markets in full, or what changed since an instant.

Combos (multivariate events) are left out: they are created on demand, in huge numbers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final
from urllib.parse import quote

from ssmd.domain.observation import Observation
from ssmd.errors import Malformed, Rejected
from ssmd.exchanges.kalshi import master_data
from ssmd.exchanges.kalshi.master_data import RestEvent, RestMarket
from ssmd.services.kalshi_rest.client import KalshiRest
from ssmd.services.secmaster.venue import Scope

OPEN_STATUSES: Final = ("open", "unopened", "closed")
"""Events of these hold every market that is not settled."""
EVENTS_LIMIT: Final = "200"
MARKETS_LIMIT: Final = "1000"
TICKERS_AT_ONCE: Final = 100
EVENTS_MAX: Final = 20_000
"""Events remembered."""
OVERLAP_S: Final = 60
"""How much earlier than wanted changes are asked for: answers may come from a cache that is 15 s old."""


class KalshiMarkets:
    """See the module (`venue.VenueMarkets`). It remembers series and events, within limits.

    Args:
        client: whose limits and patience apply.
        not_before_ns: what is asked by ticker must be answered as of then, not from an older cache.
    """

    def __init__(self, client: KalshiRest, not_before_ns: int = 0) -> None:
        self._client = client
        self._not_before_ns = not_before_ns
        self._categories: dict[str, str] | None = None
        self._events: dict[str, RestEvent] = {}
        self.unreadable: dict[str, str] = {}

    @property
    def requests(self) -> int:
        return self._client.figures.tries

    async def pages(self, scope: Scope) -> AsyncIterator[list[Observation]]:
        """See `venue.VenueMarkets`."""
        for series in scope.series or ("",):
            narrow = {"series_ticker": series} if series else {}
            if scope.is_full:
                for status in OPEN_STATUSES:
                    asked = {"status": status, "with_nested_markets": "true", "limit": EVENTS_LIMIT, **narrow}
                    async for rows in self._client.pages("/events", asked, rows="events", key="event_ticker"):
                        events = [master_data.decode_event(row) for row in rows]
                        yield [shown for event in events for shown in await self._observed(event.markets or (), event)]
            else:
                since_s = max(0, scope.since_ns // 1_000_000_000 - OVERLAP_S)
                asked = {"min_updated_ts": str(since_s), "mve_filter": "exclude", "limit": MARKETS_LIMIT, **narrow}
                async for rows in self._client.pages("/markets", asked, rows="markets", key="ticker"):
                    yield await self._with_events([master_data.decode_market(row) for row in rows])

    async def ask(self, tickers: Sequence[str]) -> list[Observation]:
        """See `venue.VenueMarkets`. What was settled months ago is asked of the history.

        A list that lacks a market proves nothing: only "not found" for its very own path does.
        """
        found: list[Observation] = []
        for at in range(0, len(tickers), TICKERS_AT_ONCE):
            missing = list(tickers[at : at + TICKERS_AT_ONCE])
            for path in ("/markets", "/historical/markets"):
                if missing:
                    markets = await self._by_ticker(path, missing)
                    found += await self._with_events(markets)
                    known = {one.ticker for one in markets}
                    missing = [one for one in missing if one not in known]
            alone = [market for ticker in missing if (market := await self._alone(ticker)) is not None]
            found += await self._with_events(alone)
        return found

    async def _alone(self, ticker: str) -> RestMarket | None:
        """The market asked for by itself; None = the venue says that there is none."""
        one = quote(ticker, safe="")  # whatever is in it, it names a market and no other path
        for path in (f"/markets/{one}", f"/historical/markets/{one}"):
            try:
                answer = await self._client.get(path, not_before_ns=self._not_before_ns)
            except Rejected as error:
                if error.rule != "kalshi-not-found":
                    raise
            else:
                return master_data.decode_single(answer.body)
        return None

    async def _by_ticker(self, path: str, tickers: Sequence[str]) -> list[RestMarket]:
        asked = {"tickers": ",".join(tickers), "limit": MARKETS_LIMIT}
        pages = self._client.pages(path, asked, rows="markets", key="ticker", not_before_ns=self._not_before_ns)
        return [master_data.decode_market(row) async for rows in pages for row in rows]

    async def _with_events(self, markets: Sequence[RestMarket]) -> list[Observation]:
        if len(self._events) > EVENTS_MAX:
            # Whoever follows the venue for months meets every event there is; series may have new categories, too.
            self._events.clear()
            self._categories = None
        unknown = sorted({one.event_ticker for one in markets} - self._events.keys())
        for at in range(0, len(unknown), TICKERS_AT_ONCE):
            asked = {"tickers": ",".join(unknown[at : at + TICKERS_AT_ONCE]), "limit": EVENTS_LIMIT}
            async for rows in self._client.pages("/events", asked, rows="events", key="event_ticker"):
                for row in rows:
                    event = master_data.decode_event(row)
                    event.markets = None
                    self._events[event.event_ticker] = event
        shown: list[Observation] = []
        for one in markets:
            # A combo's event is not among the events; the market itself says enough.
            event = self._events.get(one.event_ticker) or RestEvent(one.event_ticker)
            shown += await self._observed([one], event)
        return shown

    async def _observed(self, markets: Iterable[RestMarket], event: RestEvent) -> list[Observation]:
        categories = await self._series_categories()
        shown = []
        for market in markets:
            try:
                shown.append(master_data.observation_of(market, event, categories.get(event.series_ticker, "")))
            except Malformed as error:
                self.unreadable[market.ticker] = error.message
        return shown

    async def _series_categories(self) -> dict[str, str]:
        if self._categories is None:
            listed = master_data.decode_series((await self._client.get("/series")).body).series or []
            self._categories = {one.ticker: one.category or "" for one in listed}
        return self._categories
