"""Lifecycle messages as news for whoever follows the venue's markets."""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.exchanges.adapter import ListingChange
from ssmd.exchanges.kalshi.frames import UNREADABLE

LISTING_TYPES: Final = frozenset({"market_lifecycle_v2", "multivariate_market_lifecycle", "event_lifecycle"})


class _Metadata(msgspec.Struct, frozen=True):
    event_ticker: str = ""


class _Body(msgspec.Struct):
    market_ticker: str = ""
    event_type: str = ""
    event_ticker: str = ""
    series_ticker: str = ""
    additional_metadata: _Metadata = _Metadata()


_BODY: Final = msgspec.json.Decoder(_Body)


def change_in(kind: str, msg: msgspec.Raw) -> ListingChange | None:
    """The change a message of type `kind` tells, None = it tells none that can be read."""
    try:
        body = _BODY.decode(msg)
    except UNREADABLE:
        return None
    if kind == "event_lifecycle":
        return ListingChange("event", "", body.event_ticker, body.series_ticker) if body.event_ticker else None
    event = body.additional_metadata.event_ticker
    return ListingChange(body.event_type, body.market_ticker, event, "") if body.market_ticker and body.event_type else None
