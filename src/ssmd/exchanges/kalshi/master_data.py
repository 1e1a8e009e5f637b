"""Kalshi's REST objects of series, events and markets as master data.

Only fields named here are taken: prices, volumes, open interest and update times change without end and are no master
data, and a field Kalshi adds tomorrow must not rewrite every market. Field names: Kalshi's OpenAPI 3.25.0.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from ssmd.domain.listing import Market, Stage
from ssmd.domain.observation import Observation
from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.timestamps import rfc3339_ns

Page = TypeVar("Page")

STAGES: Final[dict[str, Stage]] = {
    "initialized": "listed",
    "unopened": "listed",
    "active": "listed",
    "open": "listed",
    "inactive": "listed",
    "paused": "listed",
    "closed": "closed",
    "determined": "determined",
    "disputed": "determined",
    "amended": "determined",
    "finalized": "settled",
    "settled": "settled",
}
"""Kalshi's market status -> ours. A pause is the exchange's state, not the market's master data."""


class RestMarket(msgspec.Struct, gc=False):
    """What is read of a market; anything else in it is passed by. Attributes stay raw, so that numbers stay exact."""

    ticker: str
    event_ticker: str
    status: str
    title: str = ""
    open_time: str | None = None
    close_time: str | None = None
    expected_expiration_time: str | None = None
    latest_expiration_time: str | None = None
    result: str | None = None
    settlement_value_dollars: str | None = None
    settlement_ts: str | None = None
    market_type: msgspec.Raw = msgspec.Raw()
    yes_sub_title: msgspec.Raw = msgspec.Raw()
    no_sub_title: msgspec.Raw = msgspec.Raw()
    settlement_timer_seconds: msgspec.Raw = msgspec.Raw()
    notional_value_dollars: msgspec.Raw = msgspec.Raw()
    can_close_early: msgspec.Raw = msgspec.Raw()
    early_close_condition: msgspec.Raw = msgspec.Raw()
    occurrence_datetime: msgspec.Raw = msgspec.Raw()
    strike_type: msgspec.Raw = msgspec.Raw()
    floor_strike: msgspec.Raw = msgspec.Raw()
    cap_strike: msgspec.Raw = msgspec.Raw()
    functional_strike: msgspec.Raw = msgspec.Raw()
    custom_strike: msgspec.Raw = msgspec.Raw()
    rules_primary: msgspec.Raw = msgspec.Raw()
    rules_secondary: msgspec.Raw = msgspec.Raw()
    mve_collection_ticker: msgspec.Raw = msgspec.Raw()
    mve_selected_legs: msgspec.Raw = msgspec.Raw()
    price_level_structure: msgspec.Raw = msgspec.Raw()
    price_ranges: msgspec.Raw = msgspec.Raw()
    is_provisional: msgspec.Raw = msgspec.Raw()
    exchange_index: msgspec.Raw = msgspec.Raw()
    settlement_bounds_type: msgspec.Raw = msgspec.Raw()
    fee_waiver_expiration_time: msgspec.Raw = msgspec.Raw()


class RestEvent(msgspec.Struct, gc=False):
    """What is read of an event."""

    event_ticker: str
    series_ticker: str = ""
    title: str = ""
    category: str | None = None
    mutually_exclusive: bool | None = None
    markets: list[RestMarket] | None = None


class EventsPage(msgspec.Struct):
    """Body of GET /events. `cursor` "" = the last page."""

    events: list[RestEvent]
    cursor: str = ""


class MarketsPage(msgspec.Struct):
    """Body of GET /markets. `cursor` "" = the last page."""

    markets: list[RestMarket]
    cursor: str = ""


class RestSeries(msgspec.Struct):
    """What is read of a series."""

    ticker: str
    category: str | None = None


class SeriesList(msgspec.Struct):
    """Body of GET /series, which has no pages."""

    series: list[RestSeries] | None = None


_ATTRIBUTES: Final = tuple(field.name for field in msgspec.structs.fields(RestMarket) if field.type is msgspec.Raw)
_EVENTS: Final = msgspec.json.Decoder(EventsPage)
_MARKETS: Final = msgspec.json.Decoder(MarketsPage)
_SERIES: Final = msgspec.json.Decoder(SeriesList)


def decode_events(body: bytes) -> EventsPage:
    """Raises Malformed: it is no page of events."""
    return _decoded(_EVENTS, body, "a page of events")


def decode_markets(body: bytes) -> MarketsPage:
    """Raises Malformed: it is no page of markets."""
    return _decoded(_MARKETS, body, "a page of markets")


def decode_series(body: bytes) -> SeriesList:
    """Raises Malformed: it is no list of series."""
    return _decoded(_SERIES, body, "a list of series")


def _decoded(decoder: msgspec.json.Decoder[Page], body: bytes, what: str) -> Page:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"Kalshi's answer is not {what}: {error}") from error


def observation_of(market: RestMarket, event: RestEvent, category: str = "") -> Observation:
    """The market as it is shown within its event.

    Args:
        category: of its series, where that is known; else the event's own (which Kalshi calls deprecated).

    Raises:
        Malformed: a status nobody knows, or a time that is none.
    """
    stage = STAGES.get(market.status)
    if stage is None:
        raise Malformed(f"market {market.ticker} has the unknown status {market.status!r}")
    attributes = {name: text for name in _ATTRIBUTES if (text := text_of(getattr(market, name))) is not None}
    if event.mutually_exclusive is not None:
        attributes["mutually_exclusive"] = "true" if event.mutually_exclusive else "false"
    if event.title:
        attributes["event_title"] = event.title
    close_ns = _time(market.close_time)
    shown = Market(
        ticker=market.ticker,
        series=event.series_ticker,
        category=category or event.category or "",
        title=market.title or event.title,
        open_ns=_time(market.open_time),
        close_ns=close_ns,
        expiry_ns=_time(market.expected_expiration_time) or _time(market.latest_expiration_time),
        attributes=dict(sorted(attributes.items())),
    )
    at_ns = _time(market.settlement_ts) if stage == "settled" else close_ns if stage == "closed" else 0
    is_known = stage in ("determined", "settled")
    return Observation(
        event=market.event_ticker,
        market=shown,
        stage=stage,
        at_ns=at_ns,
        result=(market.result or "") if is_known else "",
        value=(market.settlement_value_dollars or "") if stage == "settled" else "",
    )


def _time(text: str | None) -> int:
    # 0001-01-01T00:00:00Z is how old markets say that there is none.
    return 0 if not text or text.startswith("0001-") else rfc3339_ns(text)


def text_of(raw: msgspec.Raw) -> str | None:
    """A JSON value as exact text: text as it is, numbers as they are written, what has parts as compact JSON with sorted
    keys; None = absent, null, or empty.
    """
    value = bytes(raw)
    if not value or value in {b"null", b'""'}:
        return None
    if value[:1] == b'"':
        text: str = msgspec.json.decode(value)
        return text
    return _PARTS[value] or None if value[:1] in b"[{" else value.decode()


_Parts = dict[str, msgspec.Raw] | list[msgspec.Raw]


class _TextsOfParts(dict[bytes, str]):
    """JSON of a list or object -> the same, compact and sorted; remembered (thousands of markets share a price grid)."""

    def __missing__(self, value: bytes) -> str:
        parts = msgspec.json.decode(value, type=_Parts)
        # The parts stay raw: a number is written as it came.
        text = msgspec.json.encode(_sorted(parts)).decode() if parts else ""
        if len(self) >= _PARTS_MAX:
            self.clear()
        self[value] = text
        return text


_PARTS_MAX: Final = 4096
_PARTS: Final = _TextsOfParts()


def _sorted(parts: dict[str, msgspec.Raw] | list[msgspec.Raw]) -> object:
    if isinstance(parts, list):
        return [_sorted_value(one) for one in parts]
    return {name: _sorted_value(parts[name]) for name in sorted(parts)}


def _sorted_value(raw: msgspec.Raw) -> object:
    head = bytes(raw)[:1]
    return _sorted(msgspec.json.decode(raw, type=_Parts)) if head in (b"[", b"{") else raw
