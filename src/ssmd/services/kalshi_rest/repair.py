"""Repairs one gap: asks the venue for what was missed and hands it to the tape."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from ssmd.errors import Rejected, Unavailable
from ssmd.exchanges.kalshi.gap_repair import PAD_NS, GapToRepair, RecentTrades, missed_trades, repair_entries
from ssmd.exchanges.kalshi.rest_history import ListedTrade
from ssmd.schemas.control import Repair
from ssmd.services.kalshi_rest.client import KalshiRest
from ssmd.services.kalshi_rest.history import VenueHistory

BOOKS_MAX: Final = 100
"""Books fetched for a gap; of more markets the stream's snapshots have to do."""
BY_TICKER_MAX: Final = 20
"""Up to so many markets are asked for one by one; for more, all trades of the time are and most thrown away."""
GAP_NS_MAX: Final = 6 * 3_600 * 10**9
"""Longer gaps are `ssmd data backfill`'s: all their trades do not belong into memory or onto a tape."""


async def repair_gap(
    gap: GapToRepair,
    client: KalshiRest,
    received: Collection[str] | RecentTrades,
    write: Callable[[Sequence[Repair]], None],
) -> list[Repair]:
    """Fetch what `gap` missed, and `write` it: once, all of it, the summary last.

    The caller writes the entries to the tape of the connection that had the gap (`Recorder.fact`, one after the other, in a
    session that is open), from where the mapper makes records and the `capture.gap-repaired` event of them. Nothing is
    written twice for a gap when the caller asks once; asking again after a kill writes the same trades again, which
    readers know by their ids.

    Args:
        client: its limits and deadlines apply.
        received: ids of trades the stream gave around the gap.

    Returns:
        What was written, the summary last.

    Raises:
        Rejected: "gap-too-long", or the venue refuses the key. Nothing was written.
        Unavailable: the venue does not answer; nothing was written, and it may be tried later.
    """
    if gap.end_ns - gap.start_ns > GAP_NS_MAX:
        hours = (gap.end_ns - gap.start_ns) // (3_600 * 10**9)
        raise Rejected("gap-too-long", f"gap {gap.gap_id} lasts {hours} h; at most 6 h are repaired", mend="ssmd data backfill")
    troubles: list[str] = []
    listed: list[ListedTrade] = []
    if gap.had_trades:
        listed = await _trades(gap, client)
    books: dict[str, bytes] = {}
    if gap.channel in {"", "orderbook_delta"}:
        if len(gap.tickers) > BOOKS_MAX or not gap.tickers:
            troubles.append(f"no books fetched: {len(gap.tickers) or 'all'} markets, at most {BOOKS_MAX} are")
        else:
            for ticker in gap.tickers:
                try:
                    answer = await client.get(f"/markets/{ticker}/orderbook", not_before_ns=gap.end_ns)
                except Rejected as error:
                    if error.rule == "kalshi-bad-key":
                        raise
                    troubles.append(f"no book of {ticker}: {error.message}")
                except Unavailable as error:
                    troubles.append(f"no book of {ticker}: {error.message}")
                else:
                    books[ticker] = answer.body
    entries = repair_entries(gap, missed_trades(gap, listed, received), books, listed=len(listed), troubles=troubles)
    write(entries)
    return entries


async def _trades(gap: GapToRepair, client: KalshiRest) -> list[ListedTrade]:
    history = VenueHistory(client)
    start_ns, end_ns = gap.start_ns - PAD_NS, gap.end_ns + PAD_NS
    # An answer from before the gap's end may lack its last trades.
    if not gap.tickers or len(gap.tickers) > BY_TICKER_MAX:
        found = await history.trades(start_ns, end_ns, not_before_ns=gap.end_ns)
        wanted = frozenset(gap.tickers)
        return [trade for trade in found if not wanted or trade.ticker in wanted]
    listed: list[ListedTrade] = []
    for ticker in gap.tickers:
        listed += await history.trades(start_ns, end_ns, ticker, not_before_ns=gap.end_ns)
    return listed
