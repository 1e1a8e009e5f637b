"""What the simulated venue writes: the `msg` of each frame, rendered once, and the envelope each subscriber gets.

Frames are compact JSON with the keys in the order type, id, sid, seq, msg and a newline at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from ssmd.exchanges.kalshi.combos import is_combo
from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS, Event, MarketSpec
from ssmd.exchanges.kalshi.simulated.market import ONE_DOLLAR, Market, Trade

_json = msgspec.json.Encoder()


class Message(NamedTuple):
    """One happening as it goes to every subscriber of `channel` that wants `ticker`.

    Attributes:
        ticker: "" for messages no filter applies to.
        body: the `msg` object, JSON.
        yes_body: the same for a subscriber with `use_yes_price`, where it differs.
    """

    channel: str
    kind: str
    ticker: str
    body: bytes
    yes_body: bytes = b""


def price(value: int) -> str:
    """1/10,000 dollar as the venue's dollar text: 5600 is "0.5600"."""
    return f"{value // ONE_DOLLAR}.{value % ONE_DOLLAR:04d}"


def size(value: int) -> str:
    """1/100 contract as the venue's text, with a sign only when negative: -150 is "-1.50"."""
    return f"{value // 100}.{value % 100:02d}" if value >= 0 else f"-{-value // 100}.{-value % 100:02d}"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}"


def rfc3339(ts_ns: int) -> str:
    """UTC, up to microseconds, trailing zeros cut, as the venue writes `ts`."""
    seconds, fraction = divmod(ts_ns // 1000, 1_000_000)
    return f"{_second(seconds)}.{fraction:06d}".rstrip("0").rstrip(".") + "Z"


def frame(kind: str, sid: int, seq: int, body: bytes, command_id: int = 0, sending_ms: int = 0) -> bytes:
    """A frame on a subscription; `seq` 0 leaves the key out (ticker), `command_id` 0 and `sending_ms` 0 too."""
    head = f'{{"type":"{kind}"'
    if command_id:
        head += f',"id":{command_id}'
    head += f',"sid":{sid}'
    if seq:
        head += f',"seq":{seq}'
    if sending_ms:
        return b'%b,"msg":%b,"sending_ts_ms":%d}\n' % (head.encode(), body, sending_ms)
    return b'%b,"msg":%b}\n' % (head.encode(), body)


def reply(kind: str, command_id: int, body: object, sending_ms: int = 0) -> bytes:
    """A frame that answers a command outside any subscription; `command_id` 0 leaves `id` out, `sending_ms` 0 too."""
    head = f'{{"type":"{kind}",' + (f'"id":{command_id},' if command_id else "")
    tail = f',"sending_ts_ms":{sending_ms}' if sending_ms else ""
    return b'%b"msg":%b%b}\n' % (head.encode(), _json.encode(body), tail.encode())


def delta_message(market: Market, *, yes: bool, level: int, delta: int, ts_ns: int) -> Message:
    """An `orderbook_delta`."""
    ticker, side = market.spec.ticker, "yes" if yes else "no"
    head = f'{{"market_ticker":"{ticker}","market_id":"{market.market_id}","price_dollars":"'
    tail = f'","delta_fp":"{size(delta)}","side":"{side}","ts":"{rfc3339(ts_ns)}","ts_ms":{ts_ns // 1_000_000}}}'
    body = f"{head}{price(level)}{tail}".encode()
    return Message(
        "orderbook_delta", "orderbook_delta", ticker, body, b"" if yes else f"{head}{price(ONE_DOLLAR - level)}{tail}".encode()
    )


def snapshot_body(ticker: str, market_id: str, yes: Mapping[int, int], no: Mapping[int, int], *, yes_priced: bool) -> bytes:
    """An `orderbook_snapshot`: ascending levels, an empty side is absent. With `yes_priced` NO bids carry YES prices."""
    shown = {ONE_DOLLAR - level: count for level, count in no.items()} if yes_priced else no
    sides = "".join(f',"{name}_dollars_fp":[{_levels(side)}]' for name, side in (("yes", yes), ("no", shown)) if side)
    return f'{{"market_ticker":{_json.encode(ticker).decode()},"market_id":"{market_id}"{sides}}}'.encode()


def snapshot_message(market: Market) -> Message:
    """A snapshot nobody asked for."""
    spec = market.spec
    plain = snapshot_body(spec.ticker, market.market_id, market.yes, market.no, yes_priced=False)
    priced = snapshot_body(spec.ticker, market.market_id, market.yes, market.no, yes_priced=True)
    return Message("orderbook_delta", "orderbook_snapshot", spec.ticker, plain, priced)


def ticker_body(market: Market, ts_ns: int) -> bytes:
    """A `ticker`: no bid is 0.0000, no ask is 1.0000, each then with size 0.00."""
    bid, no_bid = market.best_yes, market.best_no
    return (
        f'{{"market_id":"{market.market_id}","market_ticker":"{market.spec.ticker}",'
        f'"price_dollars":"{price(market.last_price)}","yes_bid_dollars":"{price(bid)}",'
        f'"yes_ask_dollars":"{price(ONE_DOLLAR - no_bid)}","volume_fp":"{size(market.volume)}",'
        f'"open_interest_fp":"{size(market.open_interest)}","dollar_volume":{market.volume // 200},'
        f'"dollar_open_interest":{market.open_interest // 200},"yes_bid_size_fp":"{size(market.yes.get(bid, 0))}",'
        f'"yes_ask_size_fp":"{size(market.no.get(no_bid, 0))}","last_trade_size_fp":"{size(market.last_count)}",'
        f'"ts":{ts_ns // SECOND_NS},"ts_ms":{ts_ns // 1_000_000},"time":"{rfc3339(ts_ns)}"}}'
    ).encode()


def trade_message(trade: Trade) -> Message:
    """A `trade`."""
    outcome, book = ("yes", "bid") if trade.taker_yes else ("no", "ask")
    body = (
        f'{{"trade_id":"{trade.trade_id}","market_ticker":"{trade.ticker}","yes_price_dollars":"{price(trade.yes_price)}",'
        f'"no_price_dollars":"{price(ONE_DOLLAR - trade.yes_price)}","count_fp":"{size(trade.size)}",'
        f'"taker_side":"{outcome}","taker_outcome_side":"{outcome}","taker_book_side":"{book}","is_block_trade":false,'
        f'"ts":{trade.ts_ns // SECOND_NS},"ts_ms":{trade.ts_ns // 1_000_000}}}'
    )
    return Message("trade", "trade", trade.ticker, body.encode())


def price_grid(spec: MarketSpec) -> tuple[str, list[dict[str, str]]]:
    """Name and ranges of a market's price grid."""
    if spec.combo is not None:
        bounds = ((0, 100, 1), (100, 9_900, spec.tick), (9_900, ONE_DOLLAR, 1))
        ranges = [{"start": price(start), "end": price(end), "step": price(step)} for start, end, step in bounds]
        return "center_deci_edge_centi_cent", ranges
    name = "linear_cent" if spec.tick == 100 else "deci_cent"
    return name, [{"start": "0.0000", "end": "1.0000", "step": price(spec.tick)}]


def exchange_index(ticker: str) -> int:
    """The matching engine of an event or market: combos have their own (changelog of 2026-08-24)."""
    return int(is_combo(ticker))


def custom_strike(spec: MarketSpec) -> dict[str, str]:
    """A combo's legs once more, as comma lists; {} for others."""
    if spec.combo is None:
        return {}
    legs = spec.combo.legs
    return {
        "Associated Events": ",".join(leg.event_ticker for leg in legs),
        "Associated Market Sides": ",".join(leg.side for leg in legs),
        "Associated Markets": ",".join(leg.market_ticker for leg in legs),
        "Multivariate Event Ticker": spec.event.ticker,
    }


def lifecycle_message(ticker: str, event_type: str, fields: Mapping[str, object]) -> Message:
    """A `market_lifecycle_v2`, of a combo its own channel's; `event_type` stands last, as in real frames."""
    body = _json.encode({"market_ticker": ticker, **fields, "event_type": event_type})
    channel = _channel(ticker)
    return Message(channel, channel, "", body)


def _channel(ticker: str) -> str:
    return "multivariate_market_lifecycle" if is_combo(ticker) else "market_lifecycle_v2"


def created_message(spec: MarketSpec) -> Message:
    """The lifecycle message that announces a market."""
    structure, ranges = price_grid(spec)
    metadata: dict[str, object] = {
        "name": spec.yes_sub_title,
        "title": spec.title,
        "yes_sub_title": spec.yes_sub_title,
        "no_sub_title": spec.yes_sub_title,
        "rules_primary": f"If {spec.yes_sub_title}, then the market resolves to Yes.",
        "rules_secondary": "",
        "can_close_early": True,
        "event_ticker": spec.event.ticker,
        "expected_expiration_ts": spec.close_ns // SECOND_NS,
        "strike_type": spec.strike_type,
    }
    if spec.floor_strike:
        metadata["floor_strike"] = msgspec.Raw(spec.floor_strike.encode())
    if spec.combo is not None:
        metadata["custom_strike"] = custom_strike(spec)
    fields = {
        "open_ts": spec.open_ns // SECOND_NS,
        "close_ts": spec.close_ns // SECOND_NS,
        "exchange_index": exchange_index(spec.ticker),
        "price_level_structure": structure,
        "price_ranges": ranges,
        "additional_metadata": metadata,
    }
    return lifecycle_message(spec.ticker, "created", fields)


def event_message(event: Event) -> Message:
    """An `event_lifecycle`."""
    body = {
        "event_ticker": event.ticker,
        "exchange_index": exchange_index(event.ticker),
        "title": event.title,
        "subtitle": event.subtitle,
        "collateral_return_type": "",
        "series_ticker": event.series,
        "strike_date": event.strike_ns // SECOND_NS,
    }
    return Message(_channel(event.ticker), "event_lifecycle", "", _json.encode(body))


def fee_message(event_ticker: str) -> Message:
    """An `event_fee_update` that clears the event's own fees."""
    body = {"event_ticker": event_ticker, "fee_type_override": None, "fee_multiplier_override": None}
    return Message("market_lifecycle_v2", "event_fee_update", "", _json.encode(body))


def _levels(side: Mapping[int, int]) -> str:
    ordered: Iterable[int] = sorted(side)
    return ",".join(f'["{price(level)}","{size(side[level])}"]' for level in ordered)
