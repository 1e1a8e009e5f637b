"""Gaps that are over and were not filled since: what a second attempt at repairing them begins with."""

from __future__ import annotations

from collections.abc import Iterable

from ssmd.projections import queries
from ssmd.projections.queries import GapLine
from ssmd.projections.views import Views
from ssmd.schemas.records import WHOLE_CHANNEL


def is_repaired(gap: GapLine) -> bool:
    """Whether a repair of it is journaled, for every ticker it concerned by name."""
    if any(not one.tickers for one in gap.repairs):
        return True
    named = {ticker for ticker in gap.tickers if ticker != WHOLE_CHANNEL}
    return bool(named) and named <= {ticker for one in gap.repairs for ticker in one.tickers}


async def unrepaired_gaps(views: Views, feed: str, dates: Iterable[str], until_ns: int) -> list[GapLine]:
    """Gaps that touch one of the UTC `dates`, were over by `until_ns` and are not repaired; the latest first.

    Of the latest the venue and the tape still have most.
    """
    found = {(gap.connection, gap.gap_id): gap for date in dates for gap in await queries.gaps(views, feed, date)}
    left = [one for one in found.values() if one.end_ns is not None and one.end_ns <= until_ns and not is_repaired(one)]
    return sorted(left, key=lambda gap: (-gap.start_ns, gap.connection, gap.gap_id))
