"""The markets as the venue lists them, followed in the journal: titles, series, categories and times of contracts."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any, Final

import msgspec

from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.listing import (
    AGGREGATE,
    ListingEvent,
    Market,
    MarketChanged,
    MarketListed,
    MarketRelisted,
    Standing,
    evolve_market,
)
from ssmd.errors import Rejected, SsmdError
from ssmd.gateway.interests import ALL_TICKERS
from ssmd.gateway.retry_pause import RetryPause
from ssmd.projections.projection import id_parts
from ssmd.streams.journal import Journal, RecordedEvent
from ssmd.telemetry.structured import structlog

LISTED_MAX: Final = 200_000
_SHOWN: Final = 10


class Listings:
    """Markets by ticker. Past `listed_max` the one changed least recently is forgotten. Pure."""

    def __init__(self, listed_max: int = LISTED_MAX) -> None:
        self._listed_max = listed_max
        self._standings: OrderedDict[str, Standing] = OrderedDict()
        self._series: dict[str, dict[str, None]] = {}
        self._categories: dict[str, dict[str, None]] = {}

    def apply(self, event: ListingEvent) -> None:
        """The next event of any market."""
        ticker = event.ticker
        before = self._standings.pop(ticker, None)
        after = evolve_market(before or Standing(Market(ticker)), _without_attributes(event))
        if before is not None:
            self._unindex(before.market)
        self._standings[ticker] = after
        self._series.setdefault(after.market.series, {})[ticker] = None
        self._categories.setdefault(after.market.category, {})[ticker] = None
        if len(self._standings) > self._listed_max:
            _, oldest = self._standings.popitem(last=False)
            self._unindex(oldest.market)

    def _unindex(self, market: Market) -> None:
        for index, name in ((self._series, market.series), (self._categories, market.category)):
            del index[name][market.ticker]
            if not index[name]:
                del index[name]

    def find(self, ticker: str) -> Standing | None:
        return self._standings.get(ticker)

    def status_of(self, ticker: str) -> str:
        """listed, closed, determined, settled or delisted; "unknown" where it is not listed."""
        standing = self._standings.get(ticker)
        if standing is None:
            return "unknown"
        return "delisted" if standing.is_delisted else standing.stage

    def asked_by(self, series: Iterable[str], categories: Iterable[str]) -> list[str]:
        """What to ask for by ticker, to have all markets of `series` and `categories`, those listed later included.

        A series whose tickers begin with its name and "-" is asked for by that beginning. A series of a category that is
        first listed later is not in here.

        Raises:
            Rejected: category-unknown, series-unknown.
        """
        wanted = list(series)
        for category in categories:
            if not category or category not in self._categories:
                known = ", ".join(sorted(filter(None, self._categories))[:_SHOWN]) or "none is known here"
                raise Rejected("category-unknown", f"no market of category {category[:64]!r} is listed; there are: {known}")
            wanted += [self._standings[ticker].market.series for ticker in self._categories[category]]
        found: dict[str, None] = {}
        for one in dict.fromkeys(wanted):
            found.update(dict.fromkeys(self._of_series(one)))
        return list(found)

    def _of_series(self, series: str) -> list[str]:
        tickers = self._series.get(series, {})
        if not series or not tickers:
            raise Rejected("series-unknown", f"no market of series {series[:64]!r} is listed", mend="GET /v1/markets")
        begin = f"{series}-"
        return [begin + ALL_TICKERS] if all(ticker.startswith(begin) for ticker in tickers) else list(tickers)


def _without_attributes(event: ListingEvent) -> ListingEvent:
    """What the gateway tells holds none of them, and they are most of the bytes."""
    replace = msgspec.structs.replace
    if isinstance(event, MarketListed | MarketRelisted):
        return replace(event, market=replace(event.market, attributes={}))
    if isinstance(event, MarketChanged):
        return replace(event, changes=tuple(one for one in event.changes if not one.field.startswith("attributes.")))
    return event


class ListingReader:
    """Keeps the listings of one feed; `run` as a task. Live data does not wait for it."""

    def __init__(self, journal: Journal, feed: str, listings: Listings) -> None:
        self._journal = journal
        self._feed = feed
        self._listings = listings
        self._position = 0
        self._pause = RetryPause()
        self._log = structlog.get_logger("ssmd.gateway").bind(feed=feed)
        self.trouble = ""

    async def run(self) -> None:
        """Read for ever."""
        while True:
            try:
                async with aclosing(self._journal.follow(after=self._position, filters=[AGGREGATE])) as batches:  # type: ignore[type-var]  # all backends give async generators
                    async for batch in batches:
                        self.trouble = ""
                        self._pause.answered()
                        self._take(batch)
                        # Many may have been listed before the gateway began: clients come first.
                        await asyncio.sleep(0)
            except SsmdError as error:
                if not self.trouble:
                    self._log.warning("cannot read the listings", error=error.message)
                self.trouble = error.message
                await self._pause.wait()

    def _take(self, batch: list[Any]) -> None:
        for recorded in batch:
            self._position = recorded.position
            if isinstance(recorded, RecordedEvent) and id_parts(recorded.envelope)[0] == self._feed:
                event: Any = CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data)
                self._listings.apply(event)
