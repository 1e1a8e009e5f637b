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

Shape = TypeVar("Shape")

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


_ABSENT: Final = msgspec.Raw()
"""Of every field that a row lacks, the very same: told apart by identity."""


class RestMarket(msgspec.Struct, gc=False):
    """What is read of a market; anything else in it is passed by.

    Attributes are those behind `settlement_ts`, in alphabetical order. JSON numbers that may have a fraction, and what has
    parts, stay raw: they are written as they came.
    """

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
    can_close_early: bool | None = None
    cap_strike: msgspec.Raw = _ABSENT
    custom_strike: msgspec.Raw = _ABSENT
    early_close_condition: str | None = None
    exchange_index: int | None = None
    fee_waiver_expiration_time: str | None = None
    floor_strike: msgspec.Raw = _ABSENT
    functional_strike: str | None = None
    is_provisional: bool | None = None
    market_type: str | None = None
    mve_collection_ticker: str | None = None
    mve_selected_legs: msgspec.Raw = _ABSENT
    no_sub_title: str | None = None
    notional_value_dollars: str | None = None
    occurrence_datetime: str | None = None
    price_level_structure: str | None = None
    price_ranges: msgspec.Raw = _ABSENT
    rules_primary: str | None = None
    rules_secondary: str | None = None
    settlement_bounds_type: str | None = None
    settlement_timer_seconds: int | None = None
    strike_type: str | None = None
    yes_sub_title: str | None = None


class RestEvent(msgspec.Struct, gc=False):
    """What is read of an event."""

    event_ticker: str
    series_ticker: str = ""
    title: str = ""
    category: str | None = None
    mutually_exclusive: bool | None = None
    markets: list[RestMarket] | None = None


class SingleMarket(msgspec.Struct):
    """Body of GET /markets/{ticker}."""

    market: RestMarket


class RestSeries(msgspec.Struct):
    """What is read of a series."""

    ticker: str
    category: str | None = None


class SeriesList(msgspec.Struct):
    """Body of GET /series, which has no pages."""

    series: list[RestSeries] | None = None


_FIELDS: Final = RestMarket.__struct_fields__
_FIRST: Final = _FIELDS.index("settlement_ts") + 1
_OF_THE_EVENT: Final = ("event_title", "mutually_exclusive")
_NAMES: Final = (*_FIELDS[_FIRST:], *_OF_THE_EVENT)
_ORDER: Final = tuple(sorted(range(len(_NAMES)), key=_NAMES.__getitem__))
_EVENT: Final = msgspec.json.Decoder(RestEvent)
_MARKET: Final = msgspec.json.Decoder(RestMarket)
_SINGLE: Final = msgspec.json.Decoder(SingleMarket)
_SERIES: Final = msgspec.json.Decoder(SeriesList)


def decode_event(row: bytes | msgspec.Raw) -> RestEvent:
    """Raises Malformed: it is no event."""
    return _decoded(_EVENT, row, "an event")


def decode_market(row: bytes | msgspec.Raw) -> RestMarket:
    """Raises Malformed: it is no market."""
    return _decoded(_MARKET, row, "a market")


def decode_single(body: bytes) -> RestMarket:
    """Raises Malformed: it is no answer about one market."""
    return _decoded(_SINGLE, body, "one market").market


def decode_series(body: bytes) -> SeriesList:
    """Raises Malformed: it is no list of series."""
    return _decoded(_SERIES, body, "a list of series")


def _decoded(decoder: msgspec.json.Decoder[Shape], body: bytes | msgspec.Raw, what: str) -> Shape:
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
    values = (*msgspec.structs.astuple(market)[_FIRST:], event.title, event.mutually_exclusive)
    attributes: dict[str, str] = {}
    for at in _ORDER:
        value = values[at]
        # Most are text; False is a value, "" and None are none.
        if value.__class__ is str:
            if value:
                attributes[_NAMES[at]] = value
        elif value is not None and value is not _ABSENT and (text := text_of(value)) is not None:
            attributes[_NAMES[at]] = text
    close_ns = _time(market.close_time)
    shown = Market(
        ticker=market.ticker,
        series=event.series_ticker,
        category=category or event.category or "",
        title=market.title or event.title,
        open_ns=_time(market.open_time),
        close_ns=close_ns,
        expiry_ns=_time(market.expected_expiration_time) or _time(market.latest_expiration_time),
        attributes=attributes,
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


def text_of(value: msgspec.Raw | bool | int) -> str | None:
    """A JSON value that is no text, as exact text: a number as it is written, what has parts as compact JSON with sorted
    keys; None = absent, null, or empty.
    """
    if not isinstance(value, msgspec.Raw):
        return str(value).lower()
    raw = bytes(value)
    if not raw or raw in {b"null", b'""'}:
        return None
    if raw[:1] == b'"':
        text: str = msgspec.json.decode(raw)
        return text
    return _PARTS[raw] or None if raw[:1] in b"[{" else raw.decode()


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
