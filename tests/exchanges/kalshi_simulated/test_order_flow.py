"""The model's laws: exact books, lives in order, the same for the same seed."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.exchanges.kalshi.simulated.market import ONE_DOLLAR
from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel, ModelSettings
from ssmd.exchanges.kalshi.simulated.wire import Message

START_NS = 1_795_363_200_000_000_000


def model(seed: int = 1, **more: Any) -> MarketModel:
    return MarketModel(ModelSettings(**{"seed": seed, "markets": 6, "start_ns": START_NS, "roll_s": 20, "lead_s": 4, **more}))


def run(held: MarketModel, steps: int) -> list[Message]:
    return [message for _ in range(steps) for message in held.step()]


def digest(seed: int, steps: int) -> str:
    return hashlib.sha256(repr(run(model(seed), steps)).encode()).hexdigest()


def test_a_seed_decides_every_byte() -> None:
    assert digest(3, 3_000) == digest(3, 3_000)
    assert digest(3, 3_000) != digest(4, 3_000)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**64), markets=st.integers(1, 12), steps=st.integers(0, 2_500))
def test_books_follow_from_the_messages_and_never_cross(seed: int, markets: int, steps: int) -> None:
    held = model(seed, markets=markets)
    books: dict[str, tuple[dict[int, int], dict[int, int]]] = {
        ticker: (dict(market.yes), dict(market.no)) for ticker, market in held.markets.items()
    }
    for message in run(held, steps):
        if message.kind != "orderbook_delta":
            continue
        msg = msgspec.json.decode(message.body)
        side = books.setdefault(message.ticker, ({}, {}))[msg["side"] == "no"]
        price = int(msg["price_dollars"].replace(".", ""))
        side[price] = side.get(price, 0) + int(msg["delta_fp"].replace(".", ""))
        assert side[price] >= 0
        assert 0 < price < ONE_DOLLAR
        if not side[price]:
            del side[price]
    for ticker, market in held.markets.items():
        assert (market.yes, market.no) == books.get(ticker, ({}, {}))
        assert market.best_yes + market.best_no < ONE_DOLLAR
        assert market.open_interest >= 0


def test_a_trade_is_followed_by_the_delta_of_the_resting_side() -> None:
    held = model()
    out = run(held, 3_000)
    volumes: dict[str, int] = {}
    trades = [number for number, message in enumerate(out) if message.kind == "trade"]
    assert len(trades) > 100
    for number in trades:
        trade, delta = msgspec.json.decode(out[number].body), msgspec.json.decode(out[number + 1].body)
        assert delta["delta_fp"] == f"-{trade['count_fp']}"
        assert delta["market_ticker"] == trade["market_ticker"]
        assert delta["side"] == ("no" if trade["taker_outcome_side"] == "yes" else "yes")
        assert delta["price_dollars"] == trade[f"{delta['side']}_price_dollars"]
        volumes[trade["market_ticker"]] = volumes.get(trade["market_ticker"], 0) + int(trade["count_fp"].replace(".", ""))
    assert {ticker: market.volume for ticker, market in held.markets.items() if market.volume} == volumes


def test_a_no_delta_in_yes_prices_is_its_complement() -> None:
    deltas = [message for message in run(model(), 500) if message.kind == "orderbook_delta"]
    for message in deltas:
        plain = msgspec.json.decode(message.body)
        if plain["side"] == "yes":
            assert message.yes_body == b""
        else:
            priced = msgspec.json.decode(message.yes_body)
            complement = ONE_DOLLAR - int(plain["price_dollars"].replace(".", ""))
            assert priced == {**plain, "price_dollars": f"0.{complement:04d}"}


def test_tickers_come_at_most_once_a_second_a_market() -> None:
    last: dict[str, int] = {}
    for message in run(model(), 4_000):
        if message.kind == "ticker":
            ts_ms = msgspec.json.decode(message.body)["ts_ms"]
            assert ts_ms - last.get(message.ticker, 0) >= 999  # both rounded down
            last[message.ticker] = ts_ms
    assert len(last) >= 6


def test_a_rolling_market_lives_as_the_venues_do() -> None:
    held = model(markets=2, rate=50)
    first = next(market for market in held.markets.values() if market.spec.rolling)
    out = run(held, 50 * 120)
    of_first = [(message.kind, msgspec.json.decode(message.body)) for message in out if message.ticker == first.spec.ticker]
    close_ms = first.spec.close_ns // 1_000_000
    drain = [msg for kind, msg in of_first if kind == "orderbook_delta" and msg["ts_ms"] >= close_ms]
    assert len(drain) > 20
    assert {msg["delta_fp"][0] for msg in drain} == {"-"}
    assert len({msg["ts_ms"] for msg in drain}) == 1
    after = of_first[of_first.index(("orderbook_delta", drain[-1])) + 1 :]
    kinds = [kind for kind, _ in after]
    assert kinds == ["ticker", "orderbook_snapshot"]
    ticker = after[0][1]
    assert (ticker["yes_bid_dollars"], ticker["yes_bid_size_fp"]) == ("0.0000", "0.00")
    assert (ticker["yes_ask_dollars"], ticker["yes_ask_size_fp"]) == ("1.0000", "0.00")
    assert after[1][1] == {"market_ticker": first.spec.ticker, "market_id": first.market_id}
    lifecycle = [msgspec.json.decode(message.body) for message in out if message.kind == "market_lifecycle_v2"]
    ends = [msg for msg in lifecycle if msg["market_ticker"] == first.spec.ticker]
    assert [msg["event_type"] for msg in ends] == ["determined", "settled"]
    assert ends[0]["settlement_value"] == {"yes": "1.0000", "no": "0.0000"}[ends[0]["result"]]
    assert [*ends[0]][-1] == "event_type"
    assert (first.phase, first.result) == ("finalized", ends[0]["result"])
    successor = next(msg for msg in lifecycle if msg["event_type"] == "created")
    born = [msg["event_type"] for msg in lifecycle if msg["market_ticker"] == successor["market_ticker"]]
    assert born[:2] == ["created", "activated"]
    assert successor["open_ts"] == first.spec.close_ns // 1_000_000_000
    assert successor["close_ts"] - successor["open_ts"] == 20
    announced = [msgspec.json.decode(message.body)["event_ticker"] for message in out if message.kind == "event_lifecycle"]
    assert successor["additional_metadata"]["event_ticker"] in announced


def test_tickers_are_unique_and_one_has_a_point() -> None:
    held = model(markets=200)
    assert len(held.markets) == 200
    assert "." in next(iter(held.markets))


def test_no_body_is_anything_but_compact_json() -> None:
    for message in run(model(), 2_000):
        for body in (message.body, message.yes_body or b"{}"):
            assert msgspec.json.format(body, indent=-1) == body


@pytest.mark.parametrize(("name", "value"), [("markets", 0), ("rate", 0), ("roll_s", 3)])
def test_settings_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        model(**{name: value})
