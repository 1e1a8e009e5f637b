"""Partitions of the archive that no connection wrote: what a venue told of its past, asked for afterwards.

    backfill:all                 trades and settled markets of every market
    backfill:{ticker}            of one
    backfill-candles:{scope}     candlesticks (raw lines only)

No stream stands behind them: archivers pass them over, their incarnation is made of their content. The receive time of an
entry is the venue's time of the row, so that a day's backfill lies on that day and merges in order; when it was fetched
is the time of the seal's event. A backfilled record has no sid and no seq.
"""

from __future__ import annotations

from typing import Final

ROWS: Final = "backfill:"
CANDLES: Final = "backfill-candles:"
ALL: Final = "all"


def is_backfill(partition: str) -> bool:
    """Whether the partition holds what was asked for afterwards."""
    return partition.startswith((ROWS, CANDLES))
