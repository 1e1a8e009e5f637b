"""Repairs one gap: asks the venue for what was missed and hands it to the tape."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ssmd.clock import Clock
from ssmd.errors import Rejected, Unavailable
from ssmd.exchanges.adapter import GapToRepair
from ssmd.exchanges.kalshi.gap_repair import PAD_NS, TapeTold, had_trades, missed_trades, repair_entries
from ssmd.exchanges.kalshi.rest_history import ListedTrade
from ssmd.identifiers import RandomBytes
from ssmd.schemas.control import Repair
from ssmd.services.kalshi_rest.client import KalshiRest, RestAccount, RestSettings, Signer
from ssmd.services.kalshi_rest.history import VenueHistory
from ssmd.streams.tape_cursor import TapeCursor
from ssmd.streams.tape_files import TapePosition, file_of, first_header, indexes

BOOKS_MAX: Final = 100
"""Books fetched for a gap; of more markets the stream's snapshots have to do."""
BY_TICKER_MAX: Final = 20
"""Up to so many markets are asked for one by one; for more, all trades of the time are and most thrown away."""
GAP_NS_MAX: Final = 6 * 3_600 * 10**9
"""Longer gaps are `ssmd data backfill`'s: all their trades do not belong into memory or onto a tape."""

WriteRepairs = Callable[[Sequence[Repair]], Awaitable[None]]
"""Writes to the tape, through to the file; of nothing, what is gathered. Raises Unavailable: it cannot now."""


class KalshiRepairer:
    """`services.connector.venue.Repairer`; one gap at a time, whoever asks.

    Args:
        signer: as of `KalshiRest`.
    """

    def __init__(
        self,
        rest_url: str,
        signer: Signer | None,
        clock: Clock,
        random: RandomBytes,
        settings: RestSettings = RestSettings(),  # noqa: B008 - immutable
        account: RestAccount | None = None,
    ) -> None:
        self._account = account
        self._rest_url = rest_url
        self._signer = signer
        self._clock = clock
        self._random = random
        self._settings = settings
        self._turn = asyncio.Lock()

    async def repair(self, gap: GapToRepair, tape: Path, write: WriteRepairs) -> int:
        """As `repair_gap`; how many entries were written."""

        async def told() -> TapeTold:
            await write(())
            return await asyncio.to_thread(tape_told, tape, gap)

        reached = self._rest_url, self._signer, self._clock, self._random, self._settings, self._account
        async with self._turn, KalshiRest(*reached) as client:
            return len(await repair_gap(gap, client, told, write))


def tape_told(directory: Path, gap: GapToRepair) -> TapeTold:
    """What the tape in `directory` says of `gap`; reads it from a little before the gap on.

    Raises:
        Malformed: the tape is damaged there.
    """
    since_ns = gap.start_ns - PAD_NS
    start, reaches_ns = TapePosition(0, 0), 0
    for index in indexes(directory):
        header = first_header(file_of(directory, index))
        if header is None:
            continue
        reaches_ns = reaches_ns or header.first_ts_ns
        if header.first_ts_ns > since_ns:
            break
        start = TapePosition(index, 0)
    told = TapeTold(gap.gap_id, reaches_ns)
    cursor = TapeCursor(directory, start)
    try:
        while blocks := cursor.read():
            for block in blocks:
                if block.header.last_ts_ns >= since_ns:
                    for entry in block.decode().entries:
                        told.take(entry)
    finally:
        cursor.close()
    return told


async def repair_gap(
    gap: GapToRepair, client: KalshiRest, told: Callable[[], Awaitable[TapeTold]], write: WriteRepairs
) -> list[Repair]:
    """Fetch what `gap` missed, and `write` it: the summary last, which is what makes the repair done.

    The entries go to the tape of the connection that had the gap, into a session that is open; from there the mapper makes
    records and the `capture.gap-repaired` event of them. Nothing is written twice, however often this is asked or
    killed: what the tape holds of the gap is left out, and one whose summary is there is done.

    Args:
        client: its limits and deadlines apply.
        told: what the tape says of the gap now. It is asked after the venue: all that was received has been written then.

    Returns:
        What was written, the summary last; [] = it was repaired before.

    Raises:
        Rejected: "gap-too-long", or the venue refuses the key. Nothing was written.
        Unavailable: the venue does not answer, or the tape cannot be written; it may be tried later.
    """
    if gap.end_ns - gap.start_ns > GAP_NS_MAX:
        hours = (gap.end_ns - gap.start_ns) // (3_600 * 10**9)
        raise Rejected("gap-too-long", f"gap {gap.gap_id} lasts {hours} h; at most 6 h are repaired", mend="ssmd data backfill")
    left = (await told()).left_of(gap)
    if left is None:
        return []
    troubles: list[str] = []
    listed = await _trades(left, client) if had_trades(left) else []
    books = await _books(left, client, troubles)
    known = await told()
    missed = missed_trades(left, listed, known)
    entries = repair_entries(left, missed, books, listed=len(listed), before=known.repaired, troubles=troubles)
    await write(entries)
    return entries


async def _books(gap: GapToRepair, client: KalshiRest, troubles: list[str]) -> dict[str, bytes]:
    books: dict[str, bytes] = {}
    if gap.channel not in {"", "orderbook_delta"}:
        return books
    if len(gap.tickers) > BOOKS_MAX or not gap.tickers:
        troubles.append(f"no books fetched: {len(gap.tickers) or 'all'} markets, at most {BOOKS_MAX} are")
        return books
    for ticker in gap.tickers:
        try:
            # A ticker is what somebody told: it names a market, whatever is in it, and no other path.
            answer = await client.get(f"/markets/{quote(ticker, safe='')}/orderbook", not_before_ns=gap.end_ns)
        except Rejected as error:
            if error.rule == "kalshi-bad-key":
                raise
            troubles.append(f"no book of {ticker}: {error.message}")
        except Unavailable as error:
            troubles.append(f"no book of {ticker}: {error.message}")
        else:
            books[ticker] = answer.body
    return books


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
