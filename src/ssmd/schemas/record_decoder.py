"""Cap'n Proto messages to records, read in place where they are laid out as `record_layout` writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ssmd.schemas import record_layout as layout
from ssmd.schemas.records import BookDelta, BookSnapshot, Gap, MarketStatus, Quote, Record, Side, SizeMeaning, Trade

_NAMES_MAX: Final = 65_536
_SIDES: Final = tuple(Side)
_MEANINGS: Final = tuple(SizeMeaning)
_BLOCK: Final = (False, True)


def read_message(data: bytes, at: int, end: int) -> Record:
    """The record in the message at `at`..`end`.

    Raises:
        Unusual: it is not laid out as `record_layout` writes.
        struct.error, IndexError: likewise (reading past the end, a number no enum has).
        UnicodeDecodeError: a text is no UTF-8.
    """
    if data[at : at + 4] != b"\0\0\0\0" or data[at + 8 : at + 16] != layout.ROOT:
        raise layout.Unusual
    head: tuple[int, ...] = layout.HEAD.unpack_from(data, at + layout.HEAD_AT)
    return _READERS[head[9]](data, at + layout.POINTERS_AT, end, head)


_names_of: dict[tuple[bytes, int], tuple[str, str]] = {}


def _names(part: bytes, member: int) -> tuple[str, str]:
    """(feed, ticker) of a names part, once it is known to be laid out as we do."""
    known = _names_of.get((part, member))
    if known is None:
        known = layout.read_text(part, 0, 0, len(part)), layout.read_text(part, 8, 0, len(part))
        if layout.names_part(known[0].encode(), known[1].encode(), member) != part:
            raise layout.Unusual
        if len(_names_of) >= _NAMES_MAX:
            _names_of.clear()
        _names_of[part, member] = known
    return known


def _read_book(data: bytes, at: int, end: int, head: Any) -> Record:
    body = end - layout.BOOK_BODY.size
    feed, ticker = _names(data[at:body], layout.BOOK)
    price, size, side, meaning = layout.BOOK_BODY.unpack_from(data, body)
    if layout.UNDEFINED in (price, size):
        raise layout.Unusual
    event, recv, session, n, index, sid, seq, pexp, sexp, _ = head
    return BookDelta(
        feed, ticker, event, recv, session, n, index, sid, seq, pexp, sexp, price, size, _SIDES[side], _MEANINGS[meaning]
    )


def _read_quote(data: bytes, at: int, end: int, head: Any) -> Record:
    body = end - layout.QUOTE_BODY.size
    feed, ticker = _names(data[at:body], layout.QUOTE)
    numbers: tuple[int | None, ...] = layout.QUOTE_BODY.unpack_from(data, body)
    if layout.UNDEFINED in numbers:
        numbers = tuple(None if number == layout.UNDEFINED else number for number in numbers)
    event, recv, session, n, index, sid, seq, pexp, sexp, _ = head
    return Quote(feed, ticker, event, recv, session, n, index, sid, seq, pexp, sexp, *numbers)


def _read_trade(data: bytes, at: int, end: int, head: Any) -> Record:
    body = layout.read_struct(data, at + 16, end, layout.TRADE)
    feed, ticker = _names(data[at:body], layout.TRADE)
    price, size, aggressor, is_block = layout.TRADE_BODY.unpack_from(data, body)
    if layout.UNDEFINED in (price, size):
        raise layout.Unusual
    trade_id = layout.read_text(data, body + layout.TRADE_BODY.size, at, end)
    event, recv, session, n, index, sid, seq, pexp, sexp, _ = head
    return Trade(
        feed, ticker, event, recv, session, n, index, sid, seq, pexp, sexp,
        trade_id, price, size, _SIDES[aggressor], _BLOCK[is_block],
    )  # fmt: skip


def _read_snapshot(data: bytes, at: int, end: int, head: Any) -> Record:
    body = layout.read_struct(data, at + 16, end, layout.SNAPSHOT)
    (is_derived,) = layout.SNAPSHOT_BODY.unpack_from(data, body)
    bids, asks = (layout.read_levels(data, body + 8 + 8 * i, at, end) for i in range(2))
    fields = (*_names(data[at:body], layout.SNAPSHOT), *head[:9], bids, asks, _BLOCK[is_derived])
    return BookSnapshot(*fields)


def _read_status(data: bytes, at: int, end: int, head: Any) -> Record:
    body = layout.read_struct(data, at + 16, end, layout.STATUS)
    open_ns, close_ns, price = layout.STATUS_BODY.unpack_from(data, body)
    change, status, result, detail = (layout.read_text(data, body + 24 + 8 * i, at, end) for i in range(4))
    settled = None if price == layout.UNDEFINED else price
    names = _names(data[at:body], layout.STATUS)
    fields = (*names, *head[:9], change, status, open_ns, close_ns, result, settled, detail)
    return MarketStatus(*fields)


def _read_gap(data: bytes, at: int, end: int, head: Any) -> Record:
    body = layout.read_struct(data, at + 16, end, layout.GAP)
    numbers = layout.GAP_BODY.unpack_from(data, body)
    gap_id, state, cause, channel, evidence = (layout.read_text(data, body + 32 + 8 * i, at, end) for i in range(5))
    start_ns, end_ns, expected, found = numbers
    names = _names(data[at:body], layout.GAP)
    fields = (*names, *head[:9], gap_id, state, cause, start_ns, end_ns, channel, expected, found, evidence)
    return Gap(*fields)


_READERS: Final[tuple[Callable[[bytes, int, int, Any], Record], ...]] = (
    _read_trade,
    _read_book,
    _read_snapshot,
    _read_quote,
    _read_status,
    _read_gap,
)
"""By number of the union's member."""
