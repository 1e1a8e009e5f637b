"""A frame's body -> a market record. Prices are in 1/10,000 dollar and sizes in 1/100 contract unless a value is finer.

Books are on the YES side: a NO bid at p is a YES ask at 1 - p.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.drift import Finding, prune, unknown_field
from ssmd.exchanges.kalshi.frames import (
    UNREADABLE,
    Body,
    EventFeeUpdateBody,
    EventLifecycle,
    EventLifecycleBody,
    Lifecycle,
    MarketLifecycle,
    MarketLifecycleBody,
    MultivariateLifecycle,
    OrderbookDelta,
    OrderbookSnapshot,
    TickerFrame,
    TradeFrame,
)
from ssmd.exchanges.kalshi.output import Output, type_of
from ssmd.exchanges.kalshi.timestamps import event_ns
from ssmd.schemas.decimals import MANTISSA_MAX, MANTISSA_MIN, Memo, parse_fitting, rescale
from ssmd.schemas.records import BookDelta, BookSnapshot, MarketStatus, Quote, Side, SizeMeaning, Trade

PRICE_EXPONENT: Final = -4
SIZE_EXPONENT: Final = -2
ONE: Final = 10_000
PRICES: Final = Memo(PRICE_EXPONENT, (0, ONE))
"""Price text -> mantissa; a contract pays 0 to 1 dollar."""
SIZES: Final = Memo(SIZE_EXPONENT, (0, MANTISSA_MAX))
CHANGES: Final = Memo(SIZE_EXPONENT)
"""Signed sizes."""

_AGGRESSOR: Final = {"bid": Side.BID, "yes": Side.BID, "ask": Side.ASK, "no": Side.ASK}
_NS: Final = 1_000_000_000
_STATUS_AFTER: Final = {
    "created": "initialized",
    "activated": "active",
    "deactivated": "inactive",
    "determined": "determined",
    "settled": "finalized",
    "close_date_updated": "",
    "price_level_structure_updated": "",
    "metadata_updated": "",
    # Only in March and April 2026.
    "fractional_trading_updated": "",
}
BodyT = TypeVar("BodyT", bound=Body)

_MARKET: Final = msgspec.json.Decoder(MarketLifecycleBody)
_EVENT: Final = msgspec.json.Decoder(EventLifecycleBody)
_FEE: Final = msgspec.json.Decoder(EventFeeUpdateBody)


def scaled(texts: Sequence[str], memo: Memo) -> tuple[list[int], int]:
    """The mantissas of `texts` at one exponent: the memo's, or a finer one where a text has more decimals.

    Raises:
        Malformed: no decimal, out of the memo's bounds, or beyond 64 bits at the common exponent.
    """
    try:
        return [memo[text] for text in texts], memo.exponent
    except Malformed:
        fitted = [parse_fitting(text, memo.exponent) for text in texts]
    exponent = min(found for _, found in fitted)
    mantissas = [rescale(mantissa, found, exponent) for mantissa, found in fitted]
    for mantissa, text in zip(mantissas, texts, strict=True):
        memo.check(mantissa, exponent, text)
        if not MANTISSA_MIN <= mantissa <= MANTISSA_MAX:
            raise Malformed(f"{text!r} does not fit 64 bits at exponent {exponent}")
    return mantissas, exponent


def _time_of(text: str, ts_ms: int, frame_type: str, field: str, notes: list[Finding]) -> int:
    try:
        return event_ns(text, ts_ms)
    except Malformed as error:
        notes.append(Finding("unknown-value", frame_type, field, error.message))
        return ts_ms * 1_000_000


def delta(out: Output, frame: OrderbookDelta, notes: list[Finding], *, is_yes_priced: bool) -> BookDelta:
    """Raises: Malformed for a price or size that is none."""
    msg = frame.msg
    (price,), price_exponent = scaled((msg.price_dollars,), PRICES)
    (size,), size_exponent = scaled((msg.delta_fp,), CHANGES)
    is_no = msg.side == "no"
    if is_no and not is_yes_priced:
        price = rescale(ONE, PRICE_EXPONENT, price_exponent) - price
    return BookDelta(
        out.feed,
        msg.market_ticker,
        _time_of(msg.ts, msg.ts_ms, "orderbook_delta", "msg.ts", notes),
        out.ts_ns,
        out.session,
        out.n,
        len(out.records),
        frame.sid,
        frame.seq,
        price_exponent,
        size_exponent,
        price,
        size,
        Side.ASK if is_no else Side.BID,
        SizeMeaning.CHANGE,
    )


def snapshot(out: Output, frame: OrderbookSnapshot, *, is_yes_priced: bool) -> BookSnapshot:
    """Levels best first, whatever their order on the wire.

    Raises:
        Malformed: a price or size that is none, a negative size, or a price that a side names twice.
    """
    msg = frame.msg
    yes, no = msg.yes_dollars_fp or (), msg.no_dollars_fp or ()
    prices, price_exponent = scaled([price for price, _ in (*yes, *no)], PRICES) if yes or no else ([], PRICE_EXPONENT)
    sizes, size_exponent = scaled([size for _, size in (*yes, *no)], SIZES) if yes or no else ([], SIZE_EXPONENT)
    bids = sorted(zip(prices[: len(yes)], sizes[: len(yes)], strict=True), reverse=True)
    one = rescale(ONE, PRICE_EXPONENT, price_exponent)
    no_prices: Iterable[int] = prices[len(yes) :] if is_yes_priced else [one - price for price in prices[len(yes) :]]
    asks = sorted(zip(no_prices, sizes[len(yes) :], strict=True))
    for side in (bids, asks):
        if len({price for price, _ in side}) != len(side):
            raise Malformed(f"snapshot of {msg.market_ticker} names a price twice on one side")
    return BookSnapshot(
        out.feed,
        msg.market_ticker,
        0,
        out.ts_ns,
        out.session,
        out.n,
        len(out.records),
        frame.sid,
        frame.seq,
        price_exponent,
        size_exponent,
        tuple(bids),
        tuple(asks),
        False,
    )


def quote(out: Output, frame: TickerFrame, notes: list[Finding]) -> Quote:
    """A price of 0 (bid, last) or 1 (ask) without a size is Kalshi's way to say that there is none.

    Raises:
        Malformed: a price or size that is none.
    """
    msg = frame.msg
    (bid, ask, last), price_exponent = scaled((msg.yes_bid_dollars, msg.yes_ask_dollars, msg.price_dollars), PRICES)
    texts = (msg.yes_bid_size_fp, msg.yes_ask_size_fp, msg.last_trade_size_fp, msg.volume_fp, msg.open_interest_fp)
    told, size_exponent = scaled([text for text in texts if text is not None], SIZES)
    sizes = iter(told)
    bid_size, ask_size, last_size, volume, interest = [None if text is None else next(sizes) for text in texts]
    has_bid = bid > 0 or bool(bid_size)
    has_ask = ask < rescale(ONE, PRICE_EXPONENT, price_exponent) or bool(ask_size)
    return Quote(
        out.feed,
        msg.market_ticker,
        _time_of(msg.time, msg.ts_ms, "ticker", "msg.time", notes) or msg.ts * _NS,
        out.ts_ns,
        out.session,
        out.n,
        len(out.records),
        frame.sid,
        0,
        price_exponent,
        size_exponent,
        bid if has_bid else None,
        bid_size if has_bid else None,
        ask if has_ask else None,
        ask_size if has_ask else None,
        last or None,
        last_size if last else None,
        volume,
        interest,
    )


def trade(out: Output, frame: TradeFrame, notes: list[Finding]) -> Trade:
    """`aggressor` BID = the taker bought YES.

    Raises:
        Malformed: a price or size that is none.
    """
    msg = frame.msg
    (price,), price_exponent = scaled((msg.yes_price_dollars,), PRICES)
    (size,), size_exponent = scaled((msg.count_fp,), SIZES)
    if msg.no_price_dollars:
        (yes, no), exponent = scaled((msg.yes_price_dollars, msg.no_price_dollars), PRICES)
        if yes + no != rescale(ONE, PRICE_EXPONENT, exponent):
            detail = f"trade {msg.trade_id[:40]}: YES {msg.yes_price_dollars} and NO {msg.no_price_dollars} do not sum to 1"
            notes.append(Finding("unknown-value", "trade", "msg.no_price_dollars", detail))
    taker = msg.taker_book_side or msg.taker_outcome_side or msg.taker_side
    aggressor = _AGGRESSOR.get(taker, Side.UNKNOWN)
    if aggressor is Side.UNKNOWN:
        notes.append(Finding("unknown-value", "trade", "msg.taker_book_side", f"{taker[:40]!r} is neither bid nor ask"))
    return Trade(
        out.feed,
        msg.market_ticker,
        msg.ts_ms * 1_000_000 or msg.ts * _NS,
        out.ts_ns,
        out.session,
        out.n,
        len(out.records),
        frame.sid,
        frame.seq,
        price_exponent,
        size_exponent,
        msg.trade_id,
        price,
        size,
        aggressor,
        msg.is_block_trade,
    )


def status(out: Output, frame: Lifecycle, notes: list[Finding]) -> MarketStatus:
    """A market's or (ticker = event ticker) a venue event's change.

    Raises:
        one of frames.UNREADABLE.
    """
    frame_type = type_of(frame)
    raw = bytes(frame.msg)
    detail = raw.decode()
    if isinstance(frame, MarketLifecycle | MultivariateLifecycle):
        return _market_status(out, frame, _body(_MARKET, raw, frame_type, notes), detail, notes)
    if isinstance(frame, EventLifecycle):
        ticker = _body(_EVENT, raw, frame_type, notes).event_ticker
    else:
        ticker = _body(_FEE, raw, frame_type, notes).event_ticker
    return _status(out, frame, ticker, frame_type, detail=detail)


def _body(decoder: msgspec.json.Decoder[BodyT], raw: bytes, frame_type: str, notes: list[Finding]) -> BodyT:
    try:
        return decoder.decode(raw)
    except UNREADABLE:
        known, unknown = prune(raw, decoder.type)
        body = decoder.decode(known)
        notes.extend(unknown_field(frame_type, f"msg.{name}") for name in unknown)
        return body


def _market_status(out: Output, frame: Lifecycle, msg: MarketLifecycleBody, detail: str, notes: list[Finding]) -> MarketStatus:
    frame_type = type_of(frame)
    if msg.event_type not in _STATUS_AFTER:
        notes.append(Finding("unknown-value", frame_type, "msg.event_type", f"{msg.event_type[:40]!r} is a new kind of change"))
    price, price_exponent = None, PRICE_EXPONENT
    if msg.settlement_value:
        try:
            (price,), price_exponent = scaled((msg.settlement_value,), PRICES)
        except Malformed as error:
            notes.append(Finding("unknown-value", frame_type, "msg.settlement_value", error.message))
    return _status(
        out,
        frame,
        msg.market_ticker,
        msg.event_type,
        status=_STATUS_AFTER.get(msg.event_type, ""),
        ts_event_ns=(msg.determination_ts or msg.settled_ts) * _NS,
        open_ns=msg.open_ts * _NS,
        close_ns=msg.close_ts * _NS,
        result=msg.result,
        settlement_price=price,
        price_exponent=price_exponent,
        detail=detail,
    )


def _status(
    out: Output,
    frame: Lifecycle,
    ticker: str,
    change: str,
    *,
    detail: str,
    status: str = "",
    ts_event_ns: int = 0,
    open_ns: int = 0,
    close_ns: int = 0,
    result: str = "",
    settlement_price: int | None = None,
    price_exponent: int = PRICE_EXPONENT,
) -> MarketStatus:
    return MarketStatus(
        out.feed,
        ticker,
        ts_event_ns,
        out.ts_ns,
        out.session,
        out.n,
        len(out.records),
        frame.sid,
        frame.seq,
        price_exponent,
        SIZE_EXPONENT,
        change,
        status,
        open_ns,
        close_ns,
        result,
        settlement_price,
        detail,
    )
