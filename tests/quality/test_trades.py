"""Trades against the venue's list: each kind of disagreement is counted, and only where it proves something."""

from __future__ import annotations

from ssmd.quality.coverage import Span
from ssmd.quality.trades import HeldTrades, TradeMatch, VenueTrade
from ssmd.schemas.records import Side

SECOND = 1_000_000_000
SPANS = (Span(100 * SECOND, 200 * SECOND, "verified"), Span(200 * SECOND, 300 * SECOND, "missing"))


def trade(trade_id: str, at_s: int, price: int = 3000, exponent: int = -4, size: int = 250) -> VenueTrade:
    return VenueTrade(trade_id, price, exponent, size, -2, Side.BID, at_s * SECOND)


def test_each_disagreement_is_counted_where_it_proves_something() -> None:
    held = HeldTrades()
    for one in (trade("same", 110), trade("other-price", 120, 3100), trade("finer", 130, 300_000, -6), trade("extra", 140)):
        held.add(one)
    told = [
        trade("same", 110),
        trade("same", 110),  # the venue's pages may overlap
        trade("other-price", 120),
        trade("finer", 130),
        trade("absent", 150),
        trade("in-the-hole", 250),
        trade("before-it", 199),
        trade("first-second", 101),
        trade("not-captured", 50),
        trade("later", 400),
    ]
    assert held.match("T", told, SPANS) == TradeMatch(
        ticker="T", held=4, told=7, matched=2, differing=1, missing=1, missing_in_gaps=2, at_edges=1, extra=1,
        examples=("other-price", "absent"),
    )  # fmt: skip


def test_a_trade_that_came_twice_is_one() -> None:
    held = HeldTrades()
    for _ in range(3):
        held.add(trade("same", 110))
    assert (len(held), held.duplicates) == (3, 2)
    assert held.match("T", [trade("same", 110)], SPANS).held == 1
