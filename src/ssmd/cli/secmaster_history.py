"""Markets as lines: their past told in words, and all of them as CSV or JSON lines."""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from ssmd.domain import listing
from ssmd.domain.listing_history import KnownEvent

if TYPE_CHECKING:
    from ssmd.projections.secmaster import MarketRow
    from ssmd.streams.journal import RecordedEvent

_COLUMNS = (
    "ticker",
    "event",
    "series",
    "category",
    "title",
    "status",
    "result",
    "value",
    "open_ns",
    "close_ns",
    "expiry_ns",
    "listed_ns",
    "changed_ns",
    "position",
)


async def history_lines(
    events: AsyncIterator[tuple[str, RecordedEvent, listing.ListingEvent]], ticker: str
) -> AsyncIterator[dict[str, Any]]:
    """What became known of `ticker`, in the order it did."""
    async for event_ticker, recorded, event in events:
        if event.ticker == ticker:
            envelope = recorded.envelope
            yield {
                "position": recorded.position,
                "known_ns": envelope.ts_ns,
                "valid_ns": KnownEvent(recorded.position, envelope.ts_ns, event).valid_ns,
                "event": event_ticker,
                "actor": envelope.actor,
                "type": envelope.type,
                "what": words_of(event, event_ticker),
                "data": event,
            }


def words_of(event: listing.ListingEvent, event_ticker: str) -> str:
    """The fact as a sentence."""
    match event:
        case listing.MarketListed():
            return f"listed in event {event_ticker}"
        case listing.MarketRelisted():
            return f"listed again in event {event_ticker}"
        case listing.MarketChanged(changes=changes):
            return "; ".join(f"{one.field}: {_shown(one.old)} -> {_shown(one.new)}" for one in changes)
        case listing.MarketClosed():
            return "closed"
        case listing.MarketDetermined(result=result):
            return f"determined: {result or 'no result told'}"
        case listing.MarketSettled(result=result, value=value):
            return f"settled: {result or 'no result told'}, pays {value or 'not told'}"
        case listing.MarketAmended(stage=stage, result=result, value=value):
            return f"amended: {' '.join(part for part in (stage, result, value) if part)}"
        case listing.MarketDelisted(reason=reason):
            return f"delisted: {reason}"


def _shown(value: str | None) -> str:
    return "nothing" if value is None else value or '""'


def write_rows(rows: Iterable[MarketRow], form: str) -> None:
    """All of them on stdout: CSV of the plain fields, or JSON lines of everything."""
    if form == "jsonl":
        for row in rows:
            sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        market = row.market
        fields = {
            **{
                name: getattr(market, name)
                for name in ("ticker", "series", "category", "title", "open_ns", "close_ns", "expiry_ns")
            },
            **{name: getattr(row, name) for name in ("event", "result", "value", "listed_ns", "changed_ns", "position")},
            "status": "delisted" if row.is_delisted else row.stage,
        }
        writer.writerow([fields[name] for name in _COLUMNS])
