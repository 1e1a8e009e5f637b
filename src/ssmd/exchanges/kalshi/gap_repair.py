"""What a gap can get back from Kalshi's REST interface, and what not. Pure: rows in, tape entries out.

Trades can be had again, each known by its id. Changes of the book between two snapshots cannot: the venue keeps no
history of books. Quotes are conflated anyway; lifecycle shows as the market's present state. So a repair brings the missed
trades, and the book as REST tells it afterwards, for evidence; the stream's own snapshot has ended the gap already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from ssmd.exchanges.kalshi.repairs import SUMMARY, RepairSummary
from ssmd.exchanges.kalshi.rest_history import ListedTrade
from ssmd.schemas.control import Repair
from ssmd.schemas.records import Trade

PAD_NS: Final = 2_000_000_000
"""The venue's times and ours differ, and a trade's frame comes after its trade: so much is asked on both sides."""
KEPT: Final = 50_000


class GapToRepair(NamedTuple):
    """A gap that is over.

    Attributes:
        gap_id: as in its events.
        start_ns, end_ns: by our clock, last moment proven good and first one again.
        channel: "" = all of the session's.
        tickers: whom it concerned, () = every market of the channel.
    """

    gap_id: str
    start_ns: int
    end_ns: int
    channel: str
    tickers: tuple[str, ...]

    @property
    def had_trades(self) -> bool:
        """Whether trades may have been missed in it."""
        return self.channel in {"", "trade"}


class RecentTrades:
    """Ids of trades the stream gave lately, so that none is repaired that was received. Bounded: the oldest are forgotten.

    Attributes:
        since_ns: all trades with a time from here on are known; 0 = none was forgotten.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._ids: OrderedDict[str, int] = OrderedDict()
        self.since_ns = 0

    def add(self, trade: Trade) -> None:
        """A trade came."""
        self._ids[trade.trade_id] = trade.ts_event_ns
        if len(self._ids) > self._kept:
            _, ts_ns = self._ids.popitem(last=False)
            self.since_ns = max(self.since_ns, ts_ns + 1)

    def __contains__(self, trade_id: object) -> bool:
        return trade_id in self._ids


def missed_trades(
    gap: GapToRepair, listed: Iterable[ListedTrade], received: Collection[str] | RecentTrades
) -> list[ListedTrade]:
    """The trades of the gap's markets and time (with the pad) that were not received, each once, by time then id."""
    wanted = frozenset(gap.tickers)
    found = {
        trade.trade_id: trade
        for trade in listed
        if trade.trade_id not in received
        and (not wanted or trade.ticker in wanted)
        and gap.start_ns - PAD_NS <= trade.ts_ns < gap.end_ns + PAD_NS
    }
    return sorted(found.values(), key=lambda trade: (trade.ts_ns, trade.trade_id))


def repair_entries(
    gap: GapToRepair, trades: Sequence[ListedTrade], books: Mapping[str, bytes], *, listed: int, troubles: Sequence[str] = ()
) -> list[Repair]:
    """What goes on the tape for a gap, in this order: missed trades, books, and last the summary, which is journaled.

    Args:
        trades: as `missed_trades` gives them.
        books: bodies of `/markets/{ticker}/orderbook`, by ticker.
        listed: how many trades the venue listed for the gap, received ones included.
        troubles: what could not be asked, in words.
    """
    entries = [Repair(gap.gap_id, "/markets/trades", trade.row.decode()) for trade in trades]
    entries += [Repair(gap.gap_id, f"/markets/{ticker}/orderbook", body.decode()) for ticker, body in sorted(books.items())]
    summary = RepairSummary(
        source="kalshi-rest",
        start_ns=gap.start_ns,
        end_ns=gap.end_ns,
        records=len(trades),
        tickers=gap.tickers,
        evidence=_evidence(gap, len(trades), listed, len(books), troubles),
    )
    return [*entries, Repair(gap.gap_id, SUMMARY, msgspec.json.encode(summary).decode())]


def _evidence(gap: GapToRepair, missed: int, listed: int, books: int, troubles: Sequence[str]) -> str:
    told = []
    if gap.had_trades:
        told.append(f"trades: the venue lists {listed}, {missed} of them had been missed and are recovered")
    if gap.channel in {"", "orderbook_delta"}:
        told.append(f"books: {books} fetched afterwards; changes within the gap cannot be recovered, the venue keeps none")
    if gap.channel in {"", "ticker"}:
        told.append("quotes within the gap cannot be recovered")
    if gap.channel in {"", "market_lifecycle_v2"}:
        told.append("lifecycle messages within the gap cannot be recovered; the listing tells the present state")
    return "; ".join((*told, *troubles))
