"""A book's text is made anew whenever the book changed, and only then."""

from __future__ import annotations

import random

from tests.gateway.conftest import Tape

from ssmd.gateway.book_text import BookTexts
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.messages import levels
from ssmd.schemas.records import Side


def test_the_text_is_always_that_of_the_book() -> None:
    chance, tape, state = random.Random(3), Tape(), MarketState("kalshi")
    texts = BookTexts(books_max=2)
    reused = 0
    for seq in range(1, 2_000):
        ticker = f"T{chance.randrange(3)}"
        size, side = chance.choice([100, 200, -100]), chance.choice([Side.BID, Side.ASK])
        record = (
            tape.snapshot(ticker)
            if chance.random() < 0.05
            else tape.delta(ticker, chance.randrange(1, 99) * 100, size, side)
            if chance.random() < 0.6
            else tape.trade(ticker)
        )
        state.apply(record, seq)
        market = state.find(f"T{chance.randrange(3)}")
        if market is None:
            continue
        bids, asks = (levels(one, market.book.price_exponent, market.book.size_exponent) for one in market.book.levels())
        assert texts.sides(market) == (bids, asks)
        again = texts.sides(market)
        reused += again[0] is texts.sides(market)[0]
    assert reused > 1_900
