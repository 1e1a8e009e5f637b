"""Records as JSON lines for people and programs: names of `records`, prices and sizes as exact decimal text.

    {"kind":"book","feed":"kalshi","ticker":"..","ts_event_ns":..,"ts_recv_ns":..,"session":..,"n":..,"index":0,
     "sid":1,"seq":7,"price":"0.4000","size":"5.00","side":"bid","meaning":"change"}

A price or size the venue did not give is null. Levels of a snapshot are [price, size] pairs, best first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from ssmd.schemas.decimals import render
from ssmd.schemas.records import KIND_OF, BookDelta, BookSnapshot, Gap, MarketStatus, Quote, Record, Trade

_PRICES: Final = frozenset({"price", "bid_price", "ask_price", "last_price", "settlement_price"})
_SIZES: Final = frozenset({"size", "bid_size", "ask_size", "last_size", "volume", "open_interest"})
_ENUMS: Final = frozenset({"side", "aggressor", "meaning"})
_LEVELS: Final = frozenset({"bids", "asks"})
_HEAD: Final = ("feed", "ticker", "ts_event_ns", "ts_recv_ns", "session", "n", "index", "sid", "seq")
_ENCODER: Final = msgspec.json.Encoder()


def fields_of(record: Record) -> dict[str, Any]:
    """The record's fields as the lines have them; exponents are gone into the decimals."""
    price, size = record.price_exponent, record.size_exponent
    fields: dict[str, Any] = {"kind": KIND_OF[type(record)]}
    for name in _HEAD:
        fields[name] = getattr(record, name)
    for name in record.__struct_fields__[11:]:
        value = getattr(record, name)
        if name in _PRICES:
            value = None if value is None else render(value, price)
        elif name in _SIZES:
            value = None if value is None else render(value, size)
        elif name in _ENUMS:
            value = value.name.lower()
        elif name in _LEVELS:
            value = [(render(at, price), render(amount, size)) for at, amount in value]
        fields[name] = value
    return fields


def to_lines(records: Iterable[Record]) -> bytes:
    """One line of JSON a record."""
    encode = _ENCODER.encode
    return b"".join(
        [_delta_line(record) if type(record) is BookDelta else encode(fields_of(record)) + b"\n" for record in records]
    )


def _delta_line(record: BookDelta) -> bytes:
    # Nearly all records are these; what needs quoting in a name is left to the encoder.
    names = _names(record.feed, record.ticker)
    return (
        b'{"kind":"book",%b,"ts_event_ns":%d,"ts_recv_ns":%d,"session":%d,"n":%d,"index":%d,"sid":%d,"seq":%d,'
        b'"price":"%b","size":"%b","side":"%b","meaning":"%b"}\n'
        % (
            names, record.ts_event_ns, record.ts_recv_ns, record.session, record.n, record.index, record.sid, record.seq,
            render(record.price, record.price_exponent).encode(), render(record.size, record.size_exponent).encode(),
            record.side.name.lower().encode(), record.meaning.name.lower().encode(),
        )
    )  # fmt: skip


_NAMES_MAX: Final = 65_536
_known: dict[tuple[str, str], bytes] = {}


def _names(feed: str, ticker: str) -> bytes:
    key = feed, ticker
    found = _known.get(key)
    if found is None:
        if len(_known) >= _NAMES_MAX:
            _known.clear()
        found = _known[key] = b'"feed":%b,"ticker":%b' % (_ENCODER.encode(feed), _ENCODER.encode(ticker))
    return found


COLUMNS: Final = {
    kind: ("kind", *_HEAD, *record.__struct_fields__[11:])
    for record, kind in KIND_OF.items()
    if record in (Trade, BookDelta, BookSnapshot, Quote, MarketStatus, Gap)
}
"""Kind -> names of its fields in the lines, in order."""
