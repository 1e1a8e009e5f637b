"""The cents wire: Kalshi's frames of before 2026-03-12, read from old recordings.

Prices were whole cents and sizes whole contracts; dollar text stood beside them from 2025-09 and `_fp` sizes from
2026-01-22 (changelog). Where both are there the finer text is taken. `modern` gives the same frame in today's shape,
so everything behind the decoder is one code path.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.frames import (
    COMMON,
    Body,
    DeltaBody,
    Envelope,
    Frame,
    Levels,
    Lifecycle,
    Millis,
    OrderbookDelta,
    OrderbookSnapshot,
    Reply,
    Seconds,
    Seq,
    Sid,
    SnapshotBody,
    Ticker,
    TickerBody,
    TickerFrame,
    TradeBody,
    TradeFrame,
    YesNo,
    wire_of,
)
from ssmd.schemas.decimals import render

Cents = Annotated[int, msgspec.Meta(ge=0, le=100)]
Contracts = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


def _dollars(cents: int | None, text: str) -> str:
    if text:
        return text
    if cents is None:
        raise Malformed("neither cents nor dollars of a price are given")
    return render(cents, -2)


def _contracts(count: int | None, text: str) -> str:
    if text:
        return text
    if count is None:
        raise Malformed("neither the count nor the fixed-point text of a size is given")
    return str(count)


class CentsSnapshotBody(Body, kw_only=True):
    market_ticker: Ticker
    market_id: str = ""
    yes: tuple[tuple[Cents, Contracts], ...] | None = None
    no: tuple[tuple[Cents, Contracts], ...] | None = None
    yes_dollars: tuple[tuple[str, Contracts], ...] | None = None
    no_dollars: tuple[tuple[str, Contracts], ...] | None = None
    yes_dollars_fp: Levels | None = None
    no_dollars_fp: Levels | None = None


def _levels(
    cents: tuple[tuple[int, int], ...] | None, dollars: tuple[tuple[str, int], ...] | None, fixed: Levels | None
) -> Levels | None:
    if fixed is not None:
        return fixed
    if dollars is not None:
        return tuple((price, str(size)) for price, size in dollars)
    return None if cents is None else tuple((render(price, -2), str(size)) for price, size in cents)


class CentsSnapshot(Envelope, tag="orderbook_snapshot", kw_only=True):
    sid: Sid
    seq: Seq
    msg: CentsSnapshotBody

    def modern(self) -> OrderbookSnapshot:
        msg = self.msg
        body = SnapshotBody(
            market_ticker=msg.market_ticker,
            market_id=msg.market_id,
            yes_dollars_fp=_levels(msg.yes, msg.yes_dollars, msg.yes_dollars_fp),
            no_dollars_fp=_levels(msg.no, msg.no_dollars, msg.no_dollars_fp),
        )
        return OrderbookSnapshot(sid=self.sid, seq=self.seq, msg=body)


class CentsDeltaBody(Body, kw_only=True):
    """`ts` is RFC 3339 text or whole seconds."""

    market_ticker: Ticker
    market_id: str = ""
    price: Cents | None = None
    price_dollars: str = ""
    delta: Contracts | None = None
    delta_fp: str = ""
    side: YesNo
    ts: str | Seconds = ""
    ts_ms: Millis = 0
    client_order_id: str = ""
    subaccount: int = 0


class CentsDelta(Envelope, tag="orderbook_delta", kw_only=True):
    sid: Sid
    seq: Seq
    msg: CentsDeltaBody

    def modern(self) -> OrderbookDelta:
        """Raises: Malformed without a price or a size."""
        msg = self.msg
        is_text = isinstance(msg.ts, str)
        body = DeltaBody(
            market_ticker=msg.market_ticker,
            market_id=msg.market_id,
            price_dollars=_dollars(msg.price, msg.price_dollars),
            delta_fp=_contracts(msg.delta, msg.delta_fp),
            side=msg.side,
            ts=msg.ts if isinstance(msg.ts, str) else "",
            ts_ms=msg.ts_ms if is_text or msg.ts_ms else int(msg.ts) * 1000,
        )
        return OrderbookDelta(sid=self.sid, seq=self.seq, msg=body)


class CentsTickerBody(Body, kw_only=True):
    """`Clock` was a sequence number of the ticker service, gone since 2026-03-12."""

    market_ticker: Ticker
    market_id: str = ""
    price: Cents | None = None
    yes_bid: Cents | None = None
    yes_ask: Cents | None = None
    no_bid: Cents | None = None
    no_ask: Cents | None = None
    price_dollars: str = ""
    yes_bid_dollars: str = ""
    yes_ask_dollars: str = ""
    no_bid_dollars: str = ""
    no_ask_dollars: str = ""
    yes_bid_size_fp: str | None = None
    yes_ask_size_fp: str | None = None
    last_trade_size_fp: str | None = None
    volume: Contracts | None = None
    volume_fp: str | None = None
    open_interest: Contracts | None = None
    open_interest_fp: str | None = None
    dollar_volume: int = 0
    dollar_open_interest: int = 0
    ts: Seconds = 0
    ts_ms: Millis = 0
    time: str = ""
    clock: int = msgspec.field(default=0, name="Clock")


class CentsTicker(Envelope, tag="ticker", kw_only=True):
    sid: Sid
    msg: CentsTickerBody

    def modern(self) -> TickerFrame:
        """Raises: Malformed without a last, bid or ask price."""
        msg = self.msg
        body = TickerBody(
            market_ticker=msg.market_ticker,
            market_id=msg.market_id,
            price_dollars=_dollars(msg.price, msg.price_dollars),
            yes_bid_dollars=_dollars(msg.yes_bid, msg.yes_bid_dollars),
            yes_ask_dollars=_dollars(msg.yes_ask, msg.yes_ask_dollars),
            yes_bid_size_fp=msg.yes_bid_size_fp,
            yes_ask_size_fp=msg.yes_ask_size_fp,
            last_trade_size_fp=msg.last_trade_size_fp,
            volume_fp=str(msg.volume) if msg.volume_fp is None and msg.volume is not None else msg.volume_fp,
            open_interest_fp=str(msg.open_interest)
            if msg.open_interest_fp is None and msg.open_interest is not None
            else msg.open_interest_fp,
            ts=msg.ts,
            ts_ms=msg.ts_ms,
            time=msg.time,
        )
        return TickerFrame(sid=self.sid, msg=body)


class CentsTradeBody(Body, kw_only=True):
    trade_id: str = ""
    market_ticker: Ticker
    yes_price: Cents | None = None
    yes_price_dollars: str = ""
    no_price: Cents | None = None
    no_price_dollars: str = ""
    count: Contracts | None = None
    count_fp: str = ""
    taker_side: str = ""
    ts: Seconds = 0
    ts_ms: Millis = 0


class CentsTrade(Envelope, tag="trade", kw_only=True):
    sid: Sid
    seq: Seq = 0
    msg: CentsTradeBody

    def modern(self) -> TradeFrame:
        """Raises: Malformed without a price or a count."""
        msg = self.msg
        body = TradeBody(
            trade_id=msg.trade_id,
            market_ticker=msg.market_ticker,
            yes_price_dollars=_dollars(msg.yes_price, msg.yes_price_dollars),
            no_price_dollars=msg.no_price_dollars or ("" if msg.no_price is None else render(msg.no_price, -2)),
            count_fp=_contracts(msg.count, msg.count_fp),
            taker_side=msg.taker_side,
            ts=msg.ts,
            ts_ms=msg.ts_ms,
        )
        return TradeFrame(sid=self.sid, seq=self.seq, msg=body)


CentsFrame = CentsDelta | CentsSnapshot | CentsTicker | CentsTrade
_DECODER: Final[msgspec.json.Decoder[CentsFrame | Lifecycle | Reply]] = msgspec.json.Decoder(CentsFrame | Lifecycle | Reply)


def decode(payload: bytes) -> Frame:
    """A cents frame in today's shape. Raises one of `frames.UNREADABLE`."""
    frame = _DECODER.decode(payload)
    return frame.modern() if isinstance(frame, CentsFrame) else frame


CENTS: Final = wire_of("kalshi-cents", decode, (CentsDelta, CentsSnapshot, CentsTicker, CentsTrade, *COMMON))
"""The wire before 2026-03-12."""
