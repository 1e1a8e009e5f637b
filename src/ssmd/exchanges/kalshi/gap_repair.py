"""What a gap can get back from Kalshi's REST interface, and what not. Pure: rows in, tape entries out.

Trades can be had again, each known by its id. Changes of the book between two snapshots cannot: the venue keeps no
history of books. Quotes are conflated anyway; lifecycle shows as the market's present state. So a repair brings the missed
trades, and the book as REST tells it afterwards, for evidence; the stream's own snapshot has ended the gap already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from ssmd.errors import Malformed
from ssmd.exchanges.adapter import GapToRepair
from ssmd.exchanges.kalshi.repairs import SUMMARY, TRADES, RepairSummary, path_of
from ssmd.exchanges.kalshi.rest_history import ListedTrade, read_trade
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Repair, decode_fact

PAD_NS: Final = 2_000_000_000
"""The venue's times and ours differ, and a trade's frame comes after its trade: so much is asked on both sides."""


def had_trades(gap: GapToRepair) -> bool:
    """Whether trades may have been missed in it."""
    return gap.channel in {"", "trade"}


class _Frame(msgspec.Struct):
    class Body(msgspec.Struct):
        trade_id: str = ""

    type: str = ""
    msg: Body = msgspec.field(default_factory=Body)


_FRAME: Final = msgspec.json.Decoder(_Frame)
_SUMMARY: Final = msgspec.json.Decoder(RepairSummary)


class TapeTold:
    """What a tape says of a gap: which trades are on it, and how far the gap has been repaired.

    Attributes:
        trade_ids: of trades the stream gave, and of those a repair has brought.
        repaired: how many trades a repair of this gap has brought so far.
        is_whole: a repair of all of the gap is there; `tickers`: whom repairs of parts of it were for.
        since_ns: the tape reaches back to here.
    """

    def __init__(self, gap_id: str, since_ns: int) -> None:
        self.trade_ids: set[str] = set()
        self.repaired = 0
        self.is_whole = False
        self.tickers: set[str] = set()
        self.since_ns = since_ns
        self._gap_id = gap_id

    def take(self, entry: Entry) -> None:
        """The next entry. What cannot be read tells nothing."""
        if b"trade_id" not in entry.payload and b"repair" not in entry.payload:
            return
        if entry.kind == EntryKind.IN:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                frame = _FRAME.decode(entry.payload)
                if frame.type == "trade":
                    self.trade_ids.add(frame.msg.trade_id)
        elif entry.kind == EntryKind.CTL:
            with suppress(Malformed, msgspec.DecodeError):
                fact = decode_fact(entry.payload)
                if isinstance(fact, Repair):
                    self._repair(fact)

    def _repair(self, fact: Repair) -> None:
        if path_of(fact.source) in TRADES:
            self.trade_ids.add(read_trade(fact.body.encode()).trade_id)
            self.repaired += fact.gap_id == self._gap_id
        elif fact.source == SUMMARY and fact.gap_id == self._gap_id:
            tickers = _SUMMARY.decode(fact.body).tickers
            self.is_whole |= not tickers
            self.tickers.update(tickers)

    def left_of(self, gap: GapToRepair) -> GapToRepair | None:
        """What of `gap` was not repaired yet; None = nothing is left."""
        if self.is_whole:
            return None
        if not gap.tickers:
            return gap
        tickers = tuple(ticker for ticker in gap.tickers if ticker not in self.tickers)
        return gap._replace(tickers=tickers) if tickers else None


def missed_trades(gap: GapToRepair, listed: Iterable[ListedTrade], told: TapeTold) -> list[ListedTrade]:
    """The trades of the gap's markets and time (with the pad) that are not on the tape, each once, by time then id."""
    wanted = frozenset(gap.tickers)
    # Of the time before the tape nobody knows what was received.
    since_ns = min(gap.start_ns, max(gap.start_ns - PAD_NS, told.since_ns))
    found = {
        trade.trade_id: trade
        for trade in listed
        if trade.trade_id not in told.trade_ids
        and (not wanted or trade.ticker in wanted)
        and since_ns <= trade.ts_ns < gap.end_ns + PAD_NS
    }
    return sorted(found.values(), key=lambda trade: (trade.ts_ns, trade.trade_id))


def repair_entries(
    gap: GapToRepair,
    trades: Sequence[ListedTrade],
    books: Mapping[str, bytes],
    *,
    listed: int,
    before: int = 0,
    troubles: Sequence[str] = (),
) -> list[Repair]:
    """What goes on the tape for a gap, in this order: missed trades, books, and last the summary, which is journaled.

    Args:
        trades: as `missed_trades` gives them.
        books: bodies of `/markets/{ticker}/orderbook`, by ticker.
        listed: how many trades the venue listed for the gap, received ones included.
        before: how many missed trades an interrupted repair of it has brought already.
        troubles: what could not be asked, in words.
    """
    entries = [Repair(gap.gap_id, "/markets/trades", trade.row.decode()) for trade in trades]
    entries += [Repair(gap.gap_id, f"/markets/{ticker}/orderbook", body.decode()) for ticker, body in sorted(books.items())]
    summary = RepairSummary(
        source="kalshi-rest",
        start_ns=gap.start_ns,
        end_ns=gap.end_ns,
        records=len(trades) + before,
        tickers=gap.tickers,
        evidence=_evidence(gap, len(trades) + before, listed, len(books), troubles),
    )
    return [*entries, Repair(gap.gap_id, SUMMARY, msgspec.json.encode(summary).decode())]


def _evidence(gap: GapToRepair, missed: int, listed: int, books: int, troubles: Sequence[str]) -> str:
    told = []
    if had_trades(gap):
        told.append(f"trades: the venue lists {listed}, {missed} of them had been missed and are recovered")
    if gap.channel in {"", "orderbook_delta"}:
        told.append(f"books: {books} fetched afterwards; changes within the gap cannot be recovered, the venue keeps none")
    if gap.channel in {"", "ticker"}:
        told.append("quotes within the gap cannot be recovered")
    if gap.channel in {"", "market_lifecycle_v2"}:
        told.append("lifecycle messages within the gap cannot be recovered; the listing tells the present state")
    return "; ".join((*told, *troubles))
