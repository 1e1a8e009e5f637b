"""Data fetched by REST, as it stands on the tape and in backfills, and the records it becomes.

One `Repair` fact holds one row of the venue, verbatim, and says by its `source` which call gave it. A record made of one
has `sid` 0 and `seq` 0: that is its mark, for on the stream trades and lifecycle always have a sid. It never
takes the place of another record.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.domain.capture import GapRepaired
from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.drift import Finding
from ssmd.exchanges.kalshi.output import Output
from ssmd.exchanges.kalshi.rest_history import read_market, read_trade
from ssmd.exchanges.kalshi.translate import PRICES, SIZES, scaled
from ssmd.schemas.control import Repair
from ssmd.schemas.records import MarketStatus, Side, Trade

TRADES: Final = ("/markets/trades", "/historical/trades")
MARKETS: Final = ("/markets", "/historical/markets")
SUMMARY: Final = "summary"
BACKFILL: Final = "backfill"
"""What the `gap_id` of rows begins with that fill no gap but a past without capture."""


class _Trade(msgspec.Struct):
    yes_price_dollars: str
    count_fp: str
    taker_book_side: str = ""
    taker_side: str = ""
    is_block_trade: bool = False


class _Market(msgspec.Struct):
    status: str = ""
    result: str = ""
    settlement_value_dollars: str | None = None


class RepairSummary(msgspec.Struct, frozen=True):
    """What a repair brought, as the last entry of it tells in its `body` (`source` is `SUMMARY`).

    Attributes:
        source: where the rows came from.
        start_ns, end_ns: of the gap's part that is filled, in the venue's time, `end_ns` exclusive.
        records: rows that became records.
        tickers: the markets that were filled, () = all of the gap.
        evidence: what could and what could not be recovered, for people.
    """

    source: str
    start_ns: int
    end_ns: int
    records: int
    tickers: tuple[str, ...]
    evidence: str


_SIDES: Final = {"bid": Side.BID, "yes": Side.BID, "ask": Side.ASK, "no": Side.ASK}
_DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError)


def path_of(source: str) -> str:
    """The path of the call that gave a row, without its query."""
    return source.partition("?")[0]


def add_repair(out: Output, fact: Repair) -> Finding | None:
    """Add the records of a repair entry to `out`; a finding for a row that cannot be read, None without trouble.

    Candlesticks become no record: there is no kind for them. Nor do books: REST gives them without a sequence number, so
    among deltas they would be wrong by what was under way; the stream's own snapshot has the say. Both stay on the tape
    and in the raw archive.
    """
    path = path_of(fact.source)
    try:
        if path in TRADES:
            out.records.append(_trade(out, fact.body.encode()))
        elif path in MARKETS:
            out.records.append(_market(out, fact.body.encode()))
        elif path == SUMMARY:
            out.facts.append(_repaired(out, fact))
    except Malformed as error:
        return Finding("wrong-type", "repair", path, error.message)
    return None


def _repaired(out: Output, fact: Repair) -> GapRepaired:
    try:
        told = msgspec.json.decode(fact.body, type=RepairSummary)
    except _DECODE_ERRORS as error:
        raise Malformed(f"summary of gap {fact.gap_id}: {error}") from error
    return GapRepaired(
        *out.place, fact.gap_id, told.source, told.start_ns, told.end_ns, told.records, told.tickers, told.evidence
    )


def _trade(out: Output, row: bytes) -> Trade:
    listed = read_trade(row)
    try:
        found = msgspec.json.decode(row, type=_Trade)
    except _DECODE_ERRORS as error:
        raise Malformed(f"trade {listed.trade_id}: {error}") from error
    (price,), price_exponent = scaled((found.yes_price_dollars,), PRICES)
    (size,), size_exponent = scaled((found.count_fp,), SIZES)
    side = _SIDES.get(found.taker_book_side or found.taker_side, Side.UNKNOWN)
    return Trade(
        out.feed, listed.ticker, listed.ts_ns, out.ts_ns, out.session, out.n, len(out.records), 0, 0,
        price_exponent, size_exponent, listed.trade_id, price, size, side, found.is_block_trade,
    )  # fmt: skip


def _market(out: Output, row: bytes) -> MarketStatus:
    listed = read_market(row)
    try:
        found = msgspec.json.decode(row, type=_Market)
    except _DECODE_ERRORS as error:
        raise Malformed(f"market {listed.ticker}: {error}") from error
    settlement, exponent = None, PRICES.exponent
    if found.settlement_value_dollars:
        (settlement,), exponent = scaled((found.settlement_value_dollars,), PRICES)
    return MarketStatus(
        out.feed, listed.ticker, listed.settled_ns, out.ts_ns, out.session, out.n, len(out.records), 0, 0,
        exponent, SIZES.exponent, "settled" if listed.settled_ns else "listed", found.status, listed.open_ns,
        listed.close_ns, found.result, settlement, row.decode(),
    )  # fmt: skip
