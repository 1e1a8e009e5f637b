"""All markets of one feed as the gateway knows them, folded from the market stream. Pure and bounded."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Final

from ssmd.gateway.book_text import BookTexts
from ssmd.gateway.listings import Listings
from ssmd.gateway.market import Market
from ssmd.schemas.records import KIND_OF, WHOLE_CHANNEL, Gap, Record

WHOLE_GAPS_MAX: Final = 256


class MarketState:
    """Markets by ticker.

    Args:
        markets_max: past it the market heard of least recently is forgotten, and counted in `markets_forgotten`.
        trades_max: trades kept per market.
    """

    def __init__(self, feed: str, *, markets_max: int = 100_000, trades_max: int = 500) -> None:
        self.feed = feed
        self.markets_max = markets_max
        self.trades_max = trades_max
        self._markets: OrderedDict[str, Market] = OrderedDict()
        self._tickers: list[str] = []
        self.whole_gaps_open: OrderedDict[tuple[str, str], Gap] = OrderedDict()
        """Open gaps of whole channels, by gap id and channel: one hole may be told for several channels."""
        self.whole_gaps_closed: deque[Gap] = deque(maxlen=WHOLE_GAPS_MAX)
        self.whole_gaps_forgotten_ns = 0
        """Closed gaps of whole channels that ended up to then may be missing from `whole_gaps_closed`."""
        self.stream_seq = 0
        """Everything up to and with this sequence of the market stream is in here."""
        self.is_current = True
        """False while the stream is being caught up with: what is here was true once, newer things are known."""
        self.records = 0
        self.markets_forgotten = 0
        self.book_texts = BookTexts()
        self.listings = Listings()
        """The venue's own list; not of the market stream, so no reset touches it."""

    def apply(self, record: Record, stream_seq: int, connection: str = "") -> None:
        """Take the next record in tape order, of `connection`'s tape; `stream_seq` never falls."""
        self.stream_seq = stream_seq
        self.records += 1
        if record.ticker == WHOLE_CHANNEL:
            if isinstance(record, Gap):
                self._apply_whole(record, stream_seq)
            return
        market = self._markets.get(record.ticker)
        if market is None:
            market = self._add(record.ticker)
        else:
            self._markets.move_to_end(record.ticker)
        if stream_seq > market.as_of:
            market.connection = connection
            market.apply(record, KIND_OF[type(record)], stream_seq)

    def advance(self, stream_seq: int) -> None:
        """A block without records ended at `stream_seq`."""
        self.stream_seq = max(self.stream_seq, stream_seq)

    def _apply_whole(self, gap: Gap, stream_seq: int) -> None:
        key = (gap.gap_id, gap.channel)
        if gap.state == "closed":
            self.whole_gaps_open.pop(key, None)
            if len(self.whole_gaps_closed) == WHOLE_GAPS_MAX:
                ended_ns = self.whole_gaps_closed[0].end_ns
                self.whole_gaps_forgotten_ns = max(self.whole_gaps_forgotten_ns, ended_ns)
            self.whole_gaps_closed.append(gap)
        else:
            self.whole_gaps_open[key] = gap
            if len(self.whole_gaps_open) > WHOLE_GAPS_MAX:
                self.whole_gaps_open.popitem(last=False)
        # A named channel without a ticker filter carries no books (books need a filter on every venue we know).
        if not gap.channel:
            for market in self._markets.values():
                if stream_seq > market.as_of:
                    market.apply_gap(gap)

    def restore(self, markets: Iterable[Market]) -> None:
        """Put back markets saved before; only into an empty state."""
        for market in markets:
            self._markets[market.ticker] = market
        self._tickers = sorted(self._markets)

    def tickers_of(self, connection: str) -> list[str]:
        """Tickers last heard of on the tape of `connection`, ascending."""
        return [ticker for ticker in self._tickers if self._markets[ticker].connection == connection]

    def _add(self, ticker: str) -> Market:
        if len(self._markets) >= self.markets_max:
            forgotten, _ = self._markets.popitem(last=False)
            del self._tickers[bisect_right(self._tickers, forgotten) - 1]
            self.markets_forgotten += 1
        market = self._markets[ticker] = Market(ticker, self.trades_max)
        # Above that of any market of this ticker there was before.
        market.revision = self.records
        for gap in self.whole_gaps_open.values():
            if not gap.channel:
                market.apply_gap(gap)
        insort(self._tickers, ticker)
        return market

    def reset(self) -> None:
        """Forget everything: the stream is another one now."""
        self._markets.clear()
        self._tickers.clear()
        self.book_texts.clear()
        self.whole_gaps_open.clear()
        self.whole_gaps_closed.clear()
        self.whole_gaps_forgotten_ns = 0
        self.stream_seq = 0

    def find(self, ticker: str) -> Market | None:
        return self._markets.get(ticker)

    def __len__(self) -> int:
        return len(self._markets)

    @property
    def tickers(self) -> tuple[str, ...]:
        """All tickers, ascending."""
        return tuple(self._tickers)

    def after(self, ticker: str) -> Iterator[Market]:
        """Markets whose ticker is behind `ticker`, ascending; "" = all."""
        for at in range(bisect_right(self._tickers, ticker) if ticker else 0, len(self._tickers)):
            yield self._markets[self._tickers[at]]
