"""Candles against a naive fold of every minute."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.exchanges.kalshi.simulated.candles import Candles, Ledger, fold

TRADES = st.lists(st.tuples(st.integers(0, 7_300), st.integers(1, 9_999), st.integers(1, 5_000)), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(trades=TRADES, minutes=st.sampled_from([1, 60]))
def test_trades_become_the_candles_they_would_by_hand(trades: list[tuple[int, int, int]], minutes: int) -> None:
    held = Candles(Ledger())
    by_span: dict[int, list[tuple[int, int]]] = {}
    last = 0
    for at_s, price, size in sorted(trades, key=lambda trade: trade[0]):
        held.trade(at_s, price, size, lambda: (4_000, 6_000), last, 0)
        last = price
        by_span.setdefault(at_s // (60 * minutes), []).append((price, size))
    found = held.between(0, 100_000, minutes)
    assert [candle.end_s for candle in found] == [(span + 1) * 60 * minutes for span in by_span]
    for candle, rows in zip(found, by_span.values(), strict=True):
        prices = [price for price, _ in rows]
        spread = candle.price
        assert spread is not None
        assert (spread.open, spread.high, spread.low, spread.close) == (prices[0], max(prices), min(prices), prices[-1])
        assert candle.volume == sum(size for _, size in rows)
        assert candle.mean == sum(price * size for price, size in rows) // candle.volume
    assert [candle.previous for candle in found] == [0, *(candle.price.close for candle in found[:-1] if candle.price)]


def test_quotes_span_the_minute_and_a_quiet_one_has_no_price() -> None:
    held = Candles(Ledger())
    for at_s, bid, ask in ((61, 4_000, 4_200), (70, 3_900, 4_500), (119, 4_100, 4_150), (130, 4_000, 4_100)):
        held.quote(at_s, bid, ask, 0, 700)
    first, second = held.between(0, 1_000, 1)
    assert (first.bid.open, first.bid.low, first.bid.high, first.bid.close) == (4_000, 3_900, 4_100, 4_100)
    assert (first.ask.open, first.ask.low, first.ask.high, first.ask.close) == (4_200, 4_150, 4_500, 4_150)
    assert (first.price, first.volume, first.end_s, second.end_s) == (None, 0, 120, 180)
    assert [candle.end_s for candle in held.between(180, 180, 1)] == [180]


def test_all_markets_together_keep_a_bounded_number() -> None:
    ledger = Ledger(kept=10)
    markets = [Candles(ledger) for _ in range(3)]
    for minute in range(20):
        for held in markets:
            held.quote(minute * 60, 1, 2, 0, 0)
    kept = [candle.end_s for held in markets for candle in held.between(0, 10_000, 1)]
    assert len(kept) == 10
    assert min(kept) == 17 * 60  # the newest of each


def test_folding_leaves_what_it_folded_as_it_was() -> None:
    held = Candles(Ledger())
    held.trade(0, 10, 1, lambda: (1, 2), 0, 0)
    held.trade(60, 30, 1, lambda: (1, 2), 10, 0)
    minutes = held.between(0, 1_000, 1)
    fold(minutes, 60)
    assert [candle.price.close for candle in minutes if candle.price] == [10, 30]
