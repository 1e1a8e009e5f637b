"""Records to Cap'n Proto messages, packed into place: byte for byte what the reference writes, an order faster.

Frames of one market differ in numbers only, so what lies around the numbers is kept per (feed, ticker).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from msgspec.structs import astuple

from ssmd.errors import Malformed
from ssmd.schemas import record_layout as layout
from ssmd.schemas.records import BookDelta, BookSnapshot, Gap, MarketStatus, Quote, Record, Trade

TEMPLATES_MAX: Final = 65_536
"""Templates kept per kind; past that all are dropped and made anew (the bytes do not depend on it)."""

_Template = tuple[Callable[..., bytes], bytes, bytes]
"""A struct's `pack`, the message's prefix, and the names part."""

_UNDEFINED: Final = layout.UNDEFINED
_INT64: Final = (-(1 << 63), (1 << 63) - 2)
_UINT64: Final = (0, (1 << 64) - 1)
_RANGES: Final[dict[str, tuple[int, int]]] = {
    "index": (0, (1 << 32) - 1),
    "sid": (0, (1 << 32) - 1),
    "price_exponent": (-128, 127),
    "size_exponent": (-128, 127),
    "session": _UINT64,
    "n": _UINT64,
    "seq": _UINT64,
    "seq_expected": _UINT64,
    "seq_found": _UINT64,
}


class RecordEncoder:
    """Encodes records; keeps templates, at most `templates_max` a kind. Not for use by several threads at once."""

    def __init__(self, templates_max: int = TEMPLATES_MAX) -> None:
        self._templates_max = templates_max
        self._books: dict[tuple[str, str], _Template] = {}
        self._quotes: dict[tuple[str, str], _Template] = {}
        self._trades: dict[tuple[str, str, int], tuple[Callable[..., bytes], bytes, bytes, bytes]] = {}
        self._by_type: dict[type, Callable[[Any], bytes]] = {
            BookDelta: self._book,
            Quote: self._quote,
            Trade: self._trade,
            BookSnapshot: _snapshot,
            MarketStatus: _status,
            Gap: _gap,
        }

    def encode(self, record: Record) -> bytes:
        """One framed message, root Record.

        Raises:
            Malformed: a number does not fit its field, or is the one that stands for "no value"; or a text is no UTF-8.
        """
        try:
            return self._by_type[type(record)](record)
        except (struct.error, UnicodeEncodeError, TypeError, AttributeError, KeyError) as error:
            raise refusal(record, error) from error

    def _book(self, record: BookDelta) -> bytes:
        (feed, ticker, event, recv, session, n, index, sid, seq, pexp, sexp, price, size, side, meaning) = astuple(record)
        if _UNDEFINED in (price, size):
            raise refusal(record, None)
        template = self._books.get((feed, ticker))
        if template is None:
            template = _template(feed, ticker, layout.BOOK, layout.BOOK_FORMAT)
            self._keep(self._books, (feed, ticker), template)
        pack, head, names = template
        return pack(head, event, recv, session, n, index, sid, seq, pexp, sexp, layout.BOOK, names, price, size, side, meaning)

    def _quote(self, record: Quote) -> bytes:
        feed, ticker, *rest = astuple(record)
        numbers = rest[9:]
        if _UNDEFINED in numbers:
            raise refusal(record, None)
        template = self._quotes.get((feed, ticker))
        if template is None:
            template = _template(feed, ticker, layout.QUOTE, layout.QUOTE_FORMAT)
            self._keep(self._quotes, (feed, ticker), template)
        pack, head, names = template
        if None in numbers:
            numbers = [_UNDEFINED if number is None else number for number in numbers]
        return pack(head, *rest[:9], layout.QUOTE, names, *numbers)

    def _trade(self, record: Trade) -> bytes:
        (feed, ticker, event, recv, session, n, index, sid, seq, pexp, sexp, trade_id, price, size, aggressor, is_block) = (
            astuple(record)
        )
        if _UNDEFINED in (price, size):
            raise refusal(record, None)
        text = trade_id.encode()
        template = self._trades.get((feed, ticker, len(text)))
        if template is None:
            words = layout.padded_words(len(text))
            fixed = _template(feed, ticker, layout.TRADE, f"{layout.TRADE_FORMAT}8s{words << 3}s", 1 + words)
            template = (*fixed, layout.text_pointer(0, len(text)))
            self._keep(self._trades, (feed, ticker, len(text)), template)
        pack, head, names, pointer = template
        return pack(
            head, event, recv, session, n, index, sid, seq, pexp, sexp, layout.TRADE,
            names, price, size, aggressor, is_block, pointer, text,
        )  # fmt: skip

    def _keep(self, templates: dict[Any, Any], key: Any, template: Any) -> None:
        if len(templates) >= self._templates_max:
            templates.clear()
        templates[key] = template


def _template(feed: str, ticker: str, member: int, body_format: str, extra_words: int = 0) -> _Template:
    """What packs a whole message of one market, given (prefix, Record's data, names, the struct's fields)."""
    names = layout.names_part(feed.encode(), ticker.encode(), member)
    words = layout.RECORD_WORDS - 3 + (len(names) >> 3) + layout.WORDS[member][0] + extra_words
    return Struct(f"<16s{layout.HEAD_FORMAT}{len(names)}s{body_format}").pack, layout.prefix(words), names


def _whole(record: Record, member: int, body: bytes) -> bytes:
    names = layout.names_part(record.feed.encode(), record.ticker.encode(), member)
    head = layout.HEAD.pack(
        record.ts_event_ns,
        record.ts_recv_ns,
        record.session,
        record.n,
        record.index,
        record.sid,
        record.seq,
        record.price_exponent,
        record.size_exponent,
        member,
    )
    words = layout.RECORD_WORDS - 3 + (len(names) + len(body) >> 3)
    return b"".join((layout.prefix(words), head, names, body))


def _snapshot(record: BookSnapshot) -> bytes:
    levels = layout.levels_part(record.bids, record.asks)
    if any(_UNDEFINED in level for side in (record.bids, record.asks) for level in side):
        raise refusal(record, None)
    return _whole(record, layout.SNAPSHOT, layout.SNAPSHOT_BODY.pack(record.is_derived) + levels)


def _status(record: MarketStatus) -> bytes:
    price = record.settlement_price
    if price == _UNDEFINED:
        raise refusal(record, None)
    texts = layout.texts_part([text.encode() for text in (record.change, record.status, record.result, record.detail)])
    data = layout.STATUS_BODY.pack(record.open_ns, record.close_ns, _UNDEFINED if price is None else price)
    return _whole(record, layout.STATUS, data + texts)


def _gap(record: Gap) -> bytes:
    texts = layout.texts_part(
        [text.encode() for text in (record.gap_id, record.state, record.cause, record.channel, record.evidence)]
    )
    data = layout.GAP_BODY.pack(record.start_ns, record.end_ns, record.seq_expected, record.seq_found)
    return _whole(record, layout.GAP, data + texts)


def refusal(record: Record, cause: Exception | None) -> Malformed:
    """Why `record` cannot be encoded: names the first field that does not fit its type."""
    name = type(record).__name__
    if not isinstance(record, Record):
        return Malformed(f"{name} is no record")
    place = f"{name} of {record.feed}/{record.ticker} at session {record.session}, n {record.n}"
    for field in record.__struct_fields__:
        found = getattr(record, field)
        if isinstance(found, bool) or found is None:
            continue
        if isinstance(found, int):
            low, high = _RANGES.get(field, _UINT64 if field.endswith("_ns") else _INT64)
            if not low <= found <= high:
                return Malformed(f"{place}: {field} = {found} is not in {low}..{high}")
        elif isinstance(found, tuple) and any(not _INT64[0] <= number <= _INT64[1] for level in found for number in level):
            return Malformed(f"{place}: a level in {field} is not in {_INT64[0]}..{_INT64[1]}")
        elif isinstance(found, str) and not _is_utf8(found):
            return Malformed(f"{place}: {field} = {found!r} is no UTF-8 text")
    return Malformed(f"{place} does not fit its definition: {cause}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
