"""What a venue shows of one market at one time: its master data and how far it is. Input of a security-master sync."""

from __future__ import annotations

from typing import NamedTuple

from ssmd.domain.listing import ListingCommand, Market, ObserveMarket, ObserveStage, Stage


class Observation(NamedTuple):
    """A market as the venue shows it.

    Attributes:
        event: ticker of the venue event it belongs to.
        at_ns: when it came to that stage, 0 = the venue does not say.
        result, value: as `listing.ObserveStage`.
    """

    event: str
    market: Market
    stage: Stage = "listed"
    at_ns: int = 0
    result: str = ""
    value: str = ""

    def commands(self) -> tuple[ListingCommand, ...]:
        """What this says to the listing aggregate of its event."""
        stage = ObserveStage(self.market.ticker, self.stage, self.at_ns, self.result, self.value)
        return (ObserveMarket(self.market), stage)
