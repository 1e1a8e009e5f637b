"""One simulated market: its book, its figures and where it is in its life. Integers only."""

from __future__ import annotations

from typing import NamedTuple

from ssmd.exchanges.kalshi.simulated.candles import Candles, Ledger
from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS, MarketSpec

ONE_DOLLAR = 10_000
"""Prices are in 1/10,000 dollar, sizes in 1/100 contract."""


class Trade(NamedTuple):
    """One trade; `yes_price` in 1/10,000 dollar, `size` in 1/100 contract."""

    trade_id: str
    ticker: str
    yes_price: int
    size: int
    taker_yes: bool
    ts_ns: int


class Market:
    """State of one market. `yes` and `no` are resting bids by price, each in its own leg's price; no size is ever <= 0.

    `settlement` is what a YES contract pays once there is a `result`, in 1/10,000 dollar.
    """

    __slots__ = (
        "candles",
        "fair",
        "last_count",
        "last_price",
        "market_id",
        "no",
        "open_interest",
        "phase",
        "result",
        "settled_ns",
        "settlement",
        "spec",
        "ticker_pending",
        "ticker_sent_ns",
        "updated_ns",
        "volume",
        "yes",
    )

    def __init__(self, spec: MarketSpec, market_id: str, fair: int) -> None:
        self.spec = spec
        self.market_id = market_id
        self.fair = fair
        self.yes: dict[int, int] = {}
        self.no: dict[int, int] = {}
        self.phase = "initialized"
        self.result = ""
        self.settlement = 0
        self.last_price = 0
        self.last_count = 0
        self.volume = 0
        self.open_interest = 0
        self.updated_ns = spec.created_ns
        self.settled_ns = 0
        self.ticker_pending = False
        self.ticker_sent_ns = 0
        self.candles: Candles | None = None  # from the first ticker or trade on

    @property
    def best_yes(self) -> int:
        """Highest YES bid, 0 without."""
        return max(self.yes, default=0)

    @property
    def best_no(self) -> int:
        """Highest NO bid, 0 without."""
        return max(self.no, default=0)

    def sample(self, ts_ns: int, ledger: Ledger) -> None:
        """Note best bid and ask for the candles."""
        if self.candles is None:
            self.candles = Candles(ledger)
        self.candles.quote(ts_ns // SECOND_NS, *self._quote(), self.last_price, self.open_interest)

    def traded(self, price: int, count: int, ts_ns: int, ledger: Ledger) -> None:
        """Note a trade for the candles, before it changes `last_price`."""
        if self.candles is None:
            self.candles = Candles(ledger)
        self.candles.trade(ts_ns // SECOND_NS, price, count, self._quote, self.last_price, self.open_interest)

    def _quote(self) -> tuple[int, int]:
        return self.best_yes, ONE_DOLLAR - self.best_no

    def change(self, *, yes: bool, price: int, delta: int) -> None:
        """Add `delta` to a level; a level at exactly 0 is gone.

        Raises:
            ValueError: the level would hold less than nothing; the model must never do that.
        """
        side = self.yes if yes else self.no
        size = side.get(price, 0) + delta
        if size < 0:
            raise ValueError(f"{self.spec.ticker}: level {price} would hold {size}")
        if size:
            side[price] = size
        else:
            side.pop(price, None)
