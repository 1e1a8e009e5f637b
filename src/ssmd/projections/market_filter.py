"""Which markets are meant: what commands and the gateway let people say of them."""

from __future__ import annotations

from typing import Final, NamedTuple

from ssmd.projections.secmaster import MarketRow

STATUSES: Final = ("listed", "closed", "determined", "settled", "delisted", "all")


class MarketFilter(NamedTuple):
    """Everything that is given must fit.

    Attributes:
        status: one of STATUSES, "" = all but delisted.
        at_ns, within_ns: closes at or after `at_ns` and within `within_ns` of it; None = any time.
        words: case-folded; each must be in the ticker, the title, or an attribute's text.
    """

    category: str = ""
    series: str = ""
    status: str = ""
    at_ns: int = 0
    within_ns: int | None = None
    words: tuple[str, ...] = ()

    def fits(self, row: MarketRow) -> bool:
        """Whether the market is meant."""
        market = row.market
        return (
            (not self.category or market.category == self.category)
            and (not self.series or market.series == self.series)
            and self._has_status(row)
            and (self.within_ns is None or self.at_ns <= market.close_ns <= self.at_ns + self.within_ns)
            and self._has_words(row)
        )

    def _has_status(self, row: MarketRow) -> bool:
        if self.status == "all":
            return True
        if row.is_delisted or self.status == "delisted":
            return row.is_delisted and self.status == "delisted"
        return not self.status or row.stage == self.status

    def _has_words(self, row: MarketRow) -> bool:
        if not self.words:
            return True
        market = row.market
        text = "\n".join((market.ticker, market.title, row.event, *market.attributes.values())).casefold()
        return all(word in text for word in self.words)
