"""View `secmaster`: the markets of each feed, found by ticker, category, series or date of expiry.

market/{feed}/{ticker}                       -> MarketRow
category/{feed}/{category}/{ticker}          -> Found
series/{feed}/{series}/{ticker}              -> Found
expiry/{feed}/{UTC date}/{ticker}            -> Found
sync/{feed}                                  -> SyncRow
"""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.domain import listing, secmaster_sync
from ssmd.domain.listing import Market, Stage, Standing
from ssmd.domain.secmaster_sync import Counts
from ssmd.projections.projection import Projection, Rows, id_parts, row_key, row_prefix, utc_date
from ssmd.streams.journal import RecordedEvent

NAME: Final = "secmaster"
_MARKET: Final = "market"
CATEGORY: Final = "category"
SERIES: Final = "series"
EXPIRY: Final = "expiry"
_SYNC: Final = "sync"


class MarketRow(msgspec.Struct, frozen=True):
    """A market as it is known now. `event`: the venue event it belongs to; `stage`, `result`, `value` as `listing`."""

    feed: str
    event: str
    market: Market
    stage: Stage
    result: str
    value: str
    is_delisted: bool
    listed_ns: int
    changed_ns: int
    config: str
    position: int


class Found(msgspec.Struct, frozen=True, gc=False):
    """An entry of an index."""

    ticker: str


class SyncRow(msgspec.Struct, frozen=True):
    """The latest run.

    Attributes:
        scope: what of the venue it covers, "" = everything.
        status: running | completed | failed.
        completed_ns: when one last was completed.
        covered_ns: everything the venue changed before then has been compared.
    """

    feed: str
    sync_id: str = ""
    status: str = ""
    started_ns: int = 0
    completed_ns: int = 0
    error: str = ""
    counts: Counts | None = None
    position: int = 0
    scope: str = ""
    covered_ns: int = 0


def market_key(feed: str, ticker: str) -> str:
    """Key of a `MarketRow`."""
    return row_key(_MARKET, feed, ticker)


def markets_prefix(feed: str) -> str:
    """Prefix of a feed's `MarketRow`s."""
    return row_prefix(_MARKET, feed)


def index_prefix(index: str, feed: str, value: str) -> str:
    """Prefix of the `Found` rows of `index` (CATEGORY, SERIES, EXPIRY) at `value`."""
    return row_prefix(index, feed, value)


def sync_key(feed: str) -> str:
    """Key of a `SyncRow`."""
    return row_key(_SYNC, feed)


def _fold(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    if recorded.envelope.aggregate == secmaster_sync.AGGREGATE:
        _fold_sync(rows, recorded, event)
    elif isinstance(event, listing.EVENTS):
        _fold_listing(rows, recorded, event)


def _fold_listing(rows: Rows, recorded: RecordedEvent, event: listing.ListingEvent) -> None:
    feed, venue_event = id_parts(recorded.envelope)
    ticker = event.ticker
    key = row_key(_MARKET, feed, ticker)
    before = rows.get(key, MarketRow)
    if (
        before is not None
        and before.event != venue_event
        and not isinstance(event, listing.MarketListed | listing.MarketRelisted)
    ):
        # The ticker is another event's by now: what becomes of the old one's market is in the journal.
        return
    ts_ns = recorded.envelope.ts_ns
    standing = (
        Standing(Market(ticker))
        if before is None
        else Standing(before.market, before.stage, before.result, before.value, before.is_delisted)
    )
    after = listing.evolve_market(standing, event)
    rows.put(
        key,
        MarketRow(
            feed=feed,
            event=venue_event,
            market=after.market,
            stage=after.stage,
            result=after.result,
            value=after.value,
            is_delisted=after.is_delisted,
            listed_ns=ts_ns if before is None else before.listed_ns,
            changed_ns=ts_ns,
            config=recorded.envelope.config,
            position=recorded.position,
        ),
    )
    old = set() if before is None else set(_index_keys(feed, before.market))
    new = set(_index_keys(feed, after.market))
    for gone in sorted(old - new):
        rows.delete(gone)
    for fresh in sorted(new - old):
        rows.put(fresh, Found(ticker))


def _index_keys(feed: str, market: Market) -> list[str]:
    expiry = utc_date(market.expiry_ns) if market.expiry_ns > 0 else ""
    named = ((CATEGORY, market.category), (SERIES, market.series), (EXPIRY, expiry))
    return [row_key(index, feed, value, market.ticker) for index, value in named if value]


def _fold_sync(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    (feed,) = id_parts(recorded.envelope)
    row = rows.get(sync_key(feed), SyncRow) or SyncRow(feed)
    ts_ns = recorded.envelope.ts_ns
    match event:
        case secmaster_sync.Started(sync_id=sync_id, scope=scope):
            row = msgspec.structs.replace(row, sync_id=sync_id, status="running", started_ns=ts_ns, error="", scope=scope)
        case secmaster_sync.Completed(sync_id=sync_id, counts=counts):
            # Some series only: the others may have changed meanwhile.
            covered_ns = row.covered_ns if row.scope.startswith("series") else row.started_ns
            row = msgspec.structs.replace(
                row, sync_id=sync_id, status="completed", completed_ns=ts_ns, covered_ns=covered_ns, error="", counts=counts
            )
        case secmaster_sync.Failed(sync_id=sync_id, error=error):
            row = msgspec.structs.replace(row, sync_id=sync_id, status="failed", error=error)
    rows.put(sync_key(feed), msgspec.structs.replace(row, position=recorded.position))


SECMASTER: Final = Projection(NAME, 1, frozenset({listing.AGGREGATE, secmaster_sync.AGGREGATE}), _fold)
