"""What is judged of a session's records besides their form: books that cannot be, fields that vanish, clocks apart."""

from __future__ import annotations

import msgspec

from ssmd.exchanges.kalshi.book_check import BookChecks, Broken
from ssmd.exchanges.kalshi.clock_offset import ClockOffset
from ssmd.exchanges.kalshi.drift import Finding
from ssmd.exchanges.kalshi.null_rates import NullRates
from ssmd.exchanges.kalshi.output import Output
from ssmd.schemas.records import BookDelta, BookSnapshot, MarketStatus, Quote, Record, Side


class Checks:
    """Of one session; the mapper's hot path calls the parts directly."""

    def __init__(self) -> None:
        self.books = BookChecks()
        self.nulls = NullRates()
        self.offset = ClockOffset()
        # Ticker -> what its last quote said: quotes have no sequence, so a repetition is known by its content.
        self._quotes: dict[str, tuple[object, ...]] = {}

    def is_repeated(self, quote: Quote, notes: list[Finding]) -> bool:
        """Whether `quote` says, at the same time of the venue, what the one before it said; then that is noted."""
        said = (*msgspec.structs.astuple(quote)[8:], quote.ts_event_ns, quote.sid)
        if quote.ts_event_ns and self._quotes.get(quote.ticker) == said:
            notes.append(Finding("duplicate-quote", "ticker", "", f"{quote.ticker}: told again; not taken"))
            return True
        self._quotes[quote.ticker] = said
        return False

    def record(self, out: Output, record: Record) -> Broken | str | None:
        """Take a record in order; what is wrong with its book, as `BookChecks.change` tells it."""
        if not isinstance(record, MarketStatus):
            # A status tells whole seconds, and often of the future.
            self.offset.see(out.ts_ns, record.ts_event_ns)
        match record:
            case BookDelta(price_exponent=-4, size_exponent=-2):
                is_bid = record.side is Side.BID
                return self.books.change(record.ticker, is_bid, record.price, record.size, out.ts_ns)
            case BookDelta():
                self.books.forget((record.ticker,))
            case BookSnapshot():
                return self.books.replace(record) or None
            case MarketStatus(change="settled"):
                self.books.end(record.ticker)
                self._quotes.pop(record.ticker, None)
            case MarketStatus():
                self.books.learn_grid(record.ticker, record.detail)
            case _:
                pass
        return None
