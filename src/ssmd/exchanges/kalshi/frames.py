"""Every message Kalshi's WebSocket server sends on market data channels, as typed structs: the dollar wire.

Sources: kalshi AsyncAPI of 2026-08-22 and recordings up to 2026-10. Prices are dollar text, sizes contract text.
The structs refuse unknown fields, so a frame that decodes has been compared with this file key by key, at no cost;
`drift.salvage` takes the frames that do not decode, names what is new in them and decodes the rest.
Fields with a default are optional on the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from ssmd.errors import Malformed

Sid = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Ticker = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=9_000_000_000_000)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=9_000_000_000)]
Levels = tuple[tuple[str, str], ...]
YesNo = Literal["yes", "no"]


class Envelope(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, kw_only=True, gc=False):
    """Keys any message may carry. `id` echoes a command's id, 0 = none."""

    id: int = 0
    sending_ts_ms: Millis = 0


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Root of the `msg` objects."""


# Replies


class SubscribedBody(Body, kw_only=True):
    channel: str
    sid: Sid


class Subscribed(Envelope, tag="subscribed", kw_only=True):
    """One per channel of a `subscribe` command; takes no seq."""

    msg: SubscribedBody


class OkBody(Body, kw_only=True):
    """The tickers of the subscription after the change, all of them; absent with `skip_ticker_ack`."""

    market_tickers: tuple[Ticker, ...] | None = None
    market_ids: tuple[str, ...] | None = None


class ListedSubscription(Body, kw_only=True):
    channel: str
    sid: Sid


class Ok(Envelope, tag="ok", kw_only=True):
    """`msg` is a list where it answers `list_subscriptions` (then there is no sid)."""

    sid: Sid = 0
    seq: Seq = 0
    msg: OkBody | tuple[ListedSubscription, ...] | None = None


class Unsubscribed(Envelope, tag="unsubscribed", kw_only=True):
    sid: Sid
    seq: Seq = 0


class ErrorBody(Body, kw_only=True):
    code: int
    msg: str = ""
    market_id: str = ""
    market_ticker: str = ""
    market_tickers: tuple[str, ...] | None = None
    market_ids: tuple[str, ...] | None = None


class Error(Envelope, tag="error", kw_only=True):
    """`sid` and `seq` where it concerns one subscription."""

    sid: Sid = 0
    seq: Seq = 0
    msg: ErrorBody


TERMINAL_ERRORS: Final = (10, 25)
"""Error codes after which the subscription is gone: channel error, subscription buffer overflow."""


# Book, ticker, trade


class SnapshotBody(Body, kw_only=True):
    """Resting bids of both outcomes, ascending; a side's key is absent when it is empty."""

    market_ticker: Ticker
    market_id: str = ""
    yes_dollars_fp: Levels | None = None
    no_dollars_fp: Levels | None = None


class OrderbookSnapshot(Envelope, tag="orderbook_snapshot", kw_only=True):
    sid: Sid
    seq: Seq
    msg: SnapshotBody


class DeltaBody(Body, kw_only=True):
    """`ts` is RFC 3339 with up to microseconds; `ts_ms` is there since 2026-04."""

    market_ticker: Ticker
    market_id: str = ""
    price_dollars: str
    delta_fp: str
    side: YesNo
    ts: str = ""
    ts_ms: Millis = 0
    client_order_id: str = ""
    subaccount: int = 0


class OrderbookDelta(Envelope, tag="orderbook_delta", kw_only=True):
    sid: Sid
    seq: Seq
    msg: DeltaBody


class TickerBody(Body, kw_only=True):
    market_ticker: Ticker
    market_id: str = ""
    price_dollars: str
    yes_bid_dollars: str
    yes_ask_dollars: str
    yes_bid_size_fp: str | None = None
    yes_ask_size_fp: str | None = None
    last_trade_size_fp: str | None = None
    volume_fp: str | None = None
    open_interest_fp: str | None = None
    dollar_volume: int = 0
    dollar_open_interest: int = 0
    ts: Seconds = 0
    ts_ms: Millis = 0
    time: str = ""


class TickerFrame(Envelope, tag="ticker", kw_only=True):
    """Last value only, about one a second a market; takes no seq."""

    sid: Sid
    msg: TickerBody


class TradeBody(Body, kw_only=True):
    trade_id: str
    market_ticker: Ticker
    yes_price_dollars: str
    no_price_dollars: str = ""
    count_fp: str
    taker_side: str = ""
    taker_outcome_side: str = ""
    taker_book_side: str = ""
    is_block_trade: bool = False
    ts: Seconds = 0
    ts_ms: Millis = 0


class TradeFrame(Envelope, tag="trade", kw_only=True):
    sid: Sid
    seq: Seq = 0
    msg: TradeBody


# Lifecycle. `msg` stays raw: its text becomes `MarketStatus.detail`; the bodies below read it.


class MarketLifecycle(Envelope, tag="market_lifecycle_v2", kw_only=True):
    sid: Sid
    seq: Seq = 0
    msg: msgspec.Raw


class MultivariateLifecycle(Envelope, tag="multivariate_market_lifecycle", kw_only=True):
    sid: Sid
    seq: Seq = 0
    msg: msgspec.Raw


class EventLifecycle(Envelope, tag="event_lifecycle", kw_only=True):
    sid: Sid
    seq: Seq = 0
    msg: msgspec.Raw


class EventFeeUpdate(Envelope, tag="event_fee_update", kw_only=True):
    sid: Sid
    seq: Seq = 0
    msg: msgspec.Raw


class MarketMetadata(Body, kw_only=True):
    """Master data at creation; nothing here is normalized, strikes are JSON numbers and stay text."""

    name: str = ""
    title: str = ""
    yes_sub_title: str = ""
    no_sub_title: str = ""
    rules_primary: str = ""
    rules_secondary: str = ""
    can_close_early: bool = False
    event_ticker: str = ""
    expected_expiration_ts: Seconds = 0
    strike_type: str = ""
    floor_strike: msgspec.Raw = msgspec.Raw()
    cap_strike: msgspec.Raw = msgspec.Raw()
    custom_strike: msgspec.Raw = msgspec.Raw()


class MarketLifecycleBody(Body, kw_only=True):
    """`settlement_value` is dollar text since 2026-02."""

    market_ticker: Ticker
    event_type: str
    open_ts: Seconds = 0
    close_ts: Seconds = 0
    determination_ts: Seconds = 0
    settled_ts: Seconds = 0
    result: str = ""
    settlement_value: str = ""
    is_deactivated: bool = False
    exchange_index: int = 0
    price_level_structure: str = ""
    price_ranges: msgspec.Raw = msgspec.Raw()
    strike_type: str = ""
    floor_strike: msgspec.Raw = msgspec.Raw()
    cap_strike: msgspec.Raw = msgspec.Raw()
    custom_strike: msgspec.Raw = msgspec.Raw()
    yes_sub_title: str = ""
    fractional_trading_enabled: bool = False
    additional_metadata: MarketMetadata | None = None


class EventLifecycleBody(Body, kw_only=True):
    event_ticker: Ticker
    exchange_index: int = 0
    title: str = ""
    subtitle: str = ""
    collateral_return_type: str = ""
    series_ticker: str = ""
    strike_date: Seconds = 0
    strike_period: str = ""


class EventFeeUpdateBody(Body, kw_only=True):
    event_ticker: Ticker
    fee_type_override: str | None = None
    fee_multiplier_override: msgspec.Raw = msgspec.Raw()


Lifecycle = MarketLifecycle | MultivariateLifecycle | EventLifecycle | EventFeeUpdate
Reply = Subscribed | Ok | Unsubscribed | Error
DataFrame = OrderbookDelta | OrderbookSnapshot | TickerFrame | TradeFrame | Lifecycle
Frame = DataFrame | Reply


class Wire(NamedTuple):
    """One era of the wire: how to decode its frames (raises one of UNREADABLE), and the struct of each `type`."""

    name: str
    decode: Callable[[bytes], Frame]
    types: dict[str, type[Envelope]]


def wire_of(name: str, decode: Callable[[bytes], Frame], structs: tuple[type[Envelope], ...]) -> Wire:
    """The wire `name`, whose frames are `structs`."""
    return Wire(name, decode, {str(struct.__struct_config__.tag): struct for struct in structs})


COMMON: Final[tuple[type[Envelope], ...]] = (
    MarketLifecycle,
    MultivariateLifecycle,
    EventLifecycle,
    EventFeeUpdate,
    Subscribed,
    Ok,
    Unsubscribed,
    Error,
)
DOLLARS: Final = wire_of(
    "kalshi-dollars",
    msgspec.json.Decoder(Frame).decode,
    (OrderbookDelta, OrderbookSnapshot, TickerFrame, TradeFrame, *COMMON),
)
"""The wire since 2026-03-12."""

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Malformed)
"""What reading a venue's bytes may raise; RecursionError is msgspec's answer to deep nesting."""
