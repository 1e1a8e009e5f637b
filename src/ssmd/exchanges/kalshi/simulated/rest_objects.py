"""REST bodies of the venue's objects, as dicts with the real field names (recordings of 2026-06 and 2026-08)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ssmd.exchanges.kalshi.simulated.candles import Candle, Spread
from ssmd.exchanges.kalshi.simulated.listing import Event, Series
from ssmd.exchanges.kalshi.simulated.market import ONE_DOLLAR, Market, Trade
from ssmd.exchanges.kalshi.simulated.wire import custom_strike, exchange_index, price, price_grid, rfc3339, size

_CONTRACT = "https://kalshi-public-docs.s3.amazonaws.com/contract_terms"


def market(held: Market, settlement_timer_s: int) -> dict[str, object]:
    """A market as `/markets/{ticker}` has it; no `series_ticker` (it stands in the event)."""
    spec = held.spec
    bid, no_bid = held.best_yes, held.best_no
    structure, ranges = price_grid(spec)
    close = rfc3339(spec.close_ns)
    body: dict[str, object] = {
        "can_close_early": True,
        "close_time": close,
        "created_time": rfc3339(spec.created_ns),
        "event_ticker": spec.event.ticker,
        "exchange_index": exchange_index(spec.ticker),
        "expected_expiration_time": close,
        "expiration_time": close,
        "expiration_value": "",
        "last_price_dollars": price(held.last_price),
        "latest_expiration_time": close,
        "market_type": "binary",
        "no_ask_dollars": price(ONE_DOLLAR - bid),
        "no_bid_dollars": price(no_bid),
        "no_sub_title": spec.yes_sub_title,
        "notional_value_dollars": "1.0000",
        "open_interest_fp": size(held.open_interest),
        "open_time": rfc3339(spec.open_ns),
        "previous_price_dollars": "0.0000",
        "previous_yes_ask_dollars": "0.0000",
        "previous_yes_bid_dollars": "0.0000",
        "price_level_structure": structure,
        "price_ranges": ranges,
        "result": held.result,
        "rules_primary": f"If {spec.yes_sub_title}, then the market resolves to Yes.",
        "rules_secondary": "",
        "settlement_bounds_type": "default",
        "settlement_timer_seconds": settlement_timer_s,
        "status": held.phase,
        "strike_type": spec.strike_type,
        "ticker": spec.ticker,
        "title": spec.title,
        "updated_time": rfc3339(held.updated_ns),
        "volume_24h_fp": size(held.volume),
        "volume_fp": size(held.volume),
        "yes_ask_dollars": price(ONE_DOLLAR - no_bid),
        "yes_ask_size_fp": size(held.no.get(no_bid, 0)),
        "yes_bid_dollars": price(bid),
        "yes_bid_size_fp": size(held.yes.get(bid, 0)),
        "yes_sub_title": spec.yes_sub_title,
    }
    if spec.floor_strike:
        body["floor_strike"] = msgspec.Raw(spec.floor_strike.encode())
    if spec.combo is not None:
        body["custom_strike"] = custom_strike(spec)
        body["is_provisional"] = True
        body["mve_collection_ticker"] = spec.combo.collection
        body["mve_selected_legs"] = [leg._asdict() for leg in spec.combo.legs]
    if held.result:
        body["settlement_value_dollars"] = price(held.settlement)
    if held.settled_ns:
        body["settlement_ts"] = rfc3339(held.settled_ns)
    return body


def orderbook(held: Market, depth: int = 0) -> dict[str, object]:
    """`orderbook_fp`: both sides present, ascending, NO bids in NO prices; `depth` 0 is all, else the best levels."""
    return {"yes_dollars": _levels(held.yes, depth), "no_dollars": _levels(held.no, depth)}


def trade(held: Trade) -> dict[str, object]:
    """A trade as `/markets/trades` has it (`ticker`, where the stream says `market_ticker`)."""
    outcome, book = ("yes", "bid") if held.taker_yes else ("no", "ask")
    return {
        "count_fp": size(held.size),
        "created_time": rfc3339(held.ts_ns),
        "is_block_trade": False,
        "no_price_dollars": price(ONE_DOLLAR - held.yes_price),
        "taker_book_side": book,
        "taker_outcome_side": outcome,
        "taker_side": outcome,
        "ticker": held.ticker,
        "trade_id": held.trade_id,
        "yes_price_dollars": price(held.yes_price),
    }


def event(held: Event, category: str, updated_ns: int) -> dict[str, object]:
    """An event without its markets."""
    return {
        "available_on_brokers": True,
        "category": category,
        "collateral_return_type": "",
        "event_ticker": held.ticker,
        "exchange_index": exchange_index(held.ticker),
        "last_updated_ts": rfc3339(updated_ns),
        "mutually_exclusive": False,
        "series_ticker": held.series,
        "settlement_sources": [],
        "strike_date": rfc3339(held.strike_ns),
        "strike_period": "",
        "sub_title": held.subtitle,
        "title": held.title,
    }


def series(held: Series, updated_ns: int) -> dict[str, object]:
    """A series. What the venue has null at times is null for the fast ones, a list for the others."""
    is_bare = held.frequency == "fifteen_min"
    return {
        "additional_prohibitions": None if is_bare else [],
        "category": held.category,
        "categories": [held.category],
        "contract_terms_url": f"{_CONTRACT}/{held.ticker}.pdf",
        "contract_url": f"{_CONTRACT}/{held.ticker}.pdf",
        "exchange_index": exchange_index(held.ticker),
        "fee_multiplier": 1,
        "fee_type": "quadratic",
        "frequency": held.frequency,
        "last_updated_ts": rfc3339(updated_ns),
        "settlement_sources": None if is_bare else [{"name": "Simulated", "url": "https://example.com/"}],
        "tags": None if is_bare else [held.category],
        "ticker": held.ticker,
        "title": held.title,
    }


def candle(held: Candle) -> dict[str, object]:
    """A candlestick of the live calls."""
    prices: dict[str, str] = {}
    if held.price is not None:
        prices = _spread(held.price, "_dollars")
        prices |= {
            "mean_dollars": price(held.mean),
            "min_dollars": price(held.price.low),
            "max_dollars": price(held.price.high),
        }
    if held.previous:
        prices["previous_dollars"] = price(held.previous)
    return {
        "end_period_ts": held.end_s,
        "yes_bid": _spread(held.bid, "_dollars"),
        "yes_ask": _spread(held.ask, "_dollars"),
        "price": prices,
        "volume_fp": size(held.volume),
        "open_interest_fp": size(held.open_interest),
    }


def past_candle(held: Candle) -> dict[str, object]:
    """A candlestick of the historical call: no suffixes, null where there is nothing."""
    prices: dict[str, str | None] = dict.fromkeys(("open", "low", "high", "close", "mean", "previous"))
    if held.price is not None:
        prices |= {**_spread(held.price, ""), "mean": price(held.mean)}
    if held.previous:
        prices["previous"] = price(held.previous)
    return {
        "end_period_ts": held.end_s,
        "yes_bid": _spread(held.bid, ""),
        "yes_ask": _spread(held.ask, ""),
        "price": prices,
        "volume": size(held.volume),
        "open_interest": size(held.open_interest),
    }


def _spread(held: Spread, suffix: str) -> dict[str, str]:
    return {f"{name}{suffix}": price(getattr(held, name)) for name in ("open", "low", "high", "close")}


ENDPOINT_COSTS: Mapping[str, object] = {
    "default_cost": 10,
    "endpoint_costs": [
        {"cost": 30, "method": "POST", "path": "/trade-api/v2/account/api_usage_level/upgrade"},
        {"cost": 50, "method": "GET", "path": "/trade-api/v2/cfbenchmarks"},
        {"cost": 2, "method": "GET", "path": "/trade-api/v2/portfolio/orders/:order_id"},
    ],
}
"""Costs in tokens, as recorded in July 2026 (the calls that exist here all have the default)."""

SCHEDULE: Mapping[str, object] = {
    "schedule": {
        "maintenance_windows": [],
        "standard_hours": [
            {
                "start_time": "2024-12-01T00:00:00Z",
                "end_time": "2200-12-01T00:00:00Z",
                **{
                    day: [{"open_time": "00:00", "close_time": "00:00"}]
                    for day in ("monday", "tuesday", "wednesday", "friday", "saturday", "sunday")
                },
                "thursday": [
                    {"open_time": "00:00", "close_time": "03:00"},
                    {"open_time": "05:00", "close_time": "00:00"},
                ],
            }
        ],
    }
}
"""The venue's week in Eastern Time: all day, but for Thursday 03:00 to 05:00."""


def _levels(side: Mapping[int, int], depth: int) -> list[list[str]]:
    kept = sorted(side)[-depth:] if depth else sorted(side)
    return [[price(level), size(side[level])] for level in kept]
