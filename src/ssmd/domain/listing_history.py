"""A market's past in both times: when something was true at the venue, and when it became known here.

Valid time of an event: what the venue said (`at_ns`) where it said something, else the time of the event itself. A fact
that became known late counts from when it was true; one that was never known by then does not count at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ssmd.domain.listing import (
    ListingEvent,
    Market,
    MarketAmended,
    MarketClosed,
    MarketDetermined,
    MarketListed,
    MarketRelisted,
    MarketSettled,
    Standing,
    evolve_market,
)


class KnownEvent(NamedTuple):
    """An event of one market: the journal position at which it became known, its envelope's time, and the fact."""

    position: int
    ts_ns: int
    event: ListingEvent

    @property
    def valid_ns(self) -> int:
        """Since when it was true."""
        match self.event:
            case (
                MarketClosed(at_ns=at_ns)
                | MarketDetermined(at_ns=at_ns)
                | MarketSettled(at_ns=at_ns)
                | MarketAmended(at_ns=at_ns)
            ):
                return at_ns or self.ts_ns
            case MarketListed(market=market) | MarketRelisted(market=market):
                # It was traded before we looked: listed since it opened, if that is the earlier.
                return min(market.open_ns or self.ts_ns, self.ts_ns)
            case _:
                return self.ts_ns


def standing_at(events: Iterable[KnownEvent], valid_ns: int) -> Standing | None:
    """The market as it was at `valid_ns`, by these events of it; None = it was not listed then."""
    standing: Standing | None = None
    told = sorted((one for one in events if one.valid_ns <= valid_ns), key=lambda one: (one.valid_ns, one.position))
    for one in told:
        standing = evolve_market(standing or Standing(Market(one.event.ticker)), one.event)
    if standing is None or not any(isinstance(one.event, MarketListed | MarketRelisted) for one in told):
        return None
    return standing
