"""State against a naive fold of the same records."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import Tape

from ssmd.gateway import trade_views
from ssmd.gateway.market import GAPS_CLOSED_MAX
from ssmd.gateway.market_state import MarketState
from ssmd.schemas.records import BookDelta, BookSnapshot, Gap, Quote, Record, Side, Trade

TICKERS = ("A-1", "B.2", "C/3")


def fold(*records: Record, **limits: int) -> MarketState:
    state = MarketState("kalshi", **limits)
    for seq, record in enumerate(records, 1):
        state.apply(record, seq)
    return state


def doubt_of(state: MarketState, ticker: str = "A-1") -> tuple[str, str] | None:
    market = state.find(ticker)
    assert market is not None
    doubt = market.book_doubt
    return None if doubt is None else (doubt[0], "" if doubt[1] is None else doubt[1].gap_id)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["trade", "delta", "snapshot", "quote", "open", "close"]),
        st.sampled_from(TICKERS),
        st.integers(1, 6),
        st.integers(-3, 5),
    ),
    max_size=60,
)


def _make(tape: Tape, step: tuple[str, str, int, int]) -> Record:
    kind, ticker, price, size = step
    if kind == "trade":
        return tape.trade(ticker, price, abs(size) + 1)
    if kind == "delta":
        return tape.delta(ticker, price, size, Side.BID)
    if kind == "snapshot":
        return tape.snapshot(ticker, bids=[(price, abs(size) + 1)], asks=[(price + 1, 7)])
    if kind == "quote":
        return tape.quote(ticker, price)
    return tape.gap(ticker, f"g{price}", closed=kind == "close")


@given(STEPS)
@settings(max_examples=80, deadline=None)
def test_state_equals_the_naive_fold(steps: list[tuple[str, str, int, int]]) -> None:
    tape = Tape()
    records = [_make(tape, step) for step in steps]
    state = fold(*records, trades_max=5)
    for ticker in TICKERS:
        mine = [(seq, record) for seq, record in enumerate(records, 1) if record.ticker == ticker]
        market = state.find(ticker)
        if not mine:
            assert market is None
            continue
        assert market is not None
        trades = [(seq, record) for seq, record in mine if isinstance(record, Trade)]
        assert [(held.stream_seq, held.record) for held in market.trades] == trades[-5:]
        assert market.trades_count == len(trades)
        assert market.quote == next((record for _, record in reversed(mine) if isinstance(record, Quote)), None)
        bids: dict[int, int] = {}
        is_good, is_seen = False, False
        for _, record in mine:
            if isinstance(record, BookSnapshot):
                bids, is_good, is_seen = dict(record.bids), True, True
            elif isinstance(record, BookDelta):
                bids[record.price] = bids.get(record.price, 0) + record.size
                is_good, is_seen = is_good and bids[record.price] >= 0, True
            elif isinstance(record, Gap) and record.state == "opened":
                is_good = False
        assert market.has_book == is_seen
        assert (market.book_doubt is None) == is_good
        assert dict(market.book.levels()[0]) == {price: size for price, size in bids.items() if size > 0}
        assert market.last_stream_seq == mine[-1][0]
        assert sum(market.counts.values()) == len(mine)


def test_a_gap_of_the_whole_connection_ends_for_the_book_with_the_next_snapshot_only() -> None:
    tape = Tape()
    opened: list[Record] = [tape.snapshot("A-1"), tape.gap("A-1")]
    closed: list[Record] = [*opened, tape.gap("A-1", closed=True)]
    assert doubt_of(fold(*opened[:1])) is None
    assert doubt_of(fold(*opened)) == ("gap", "g1")
    assert doubt_of(fold(*closed)) == ("gap", "g1")
    assert doubt_of(fold(*closed, tape.snapshot("A-1"))) is None


def test_a_gap_of_one_channel_ends_with_its_closing_record_or_a_snapshot() -> None:
    tape = Tape()
    opened: list[Record] = [tape.snapshot("A-1"), tape.gap("A-1", channel="trade")]
    assert doubt_of(fold(*opened)) == ("gap", "g1")
    assert doubt_of(fold(*opened, tape.gap("A-1", channel="trade", closed=True))) is None
    assert doubt_of(fold(*opened, tape.snapshot("A-1"))) is None


def test_a_book_without_a_snapshot_or_with_a_negative_level_is_not_verified() -> None:
    tape = Tape()
    assert doubt_of(fold(tape.delta("A-1", 10, 5))) == ("no-snapshot", "")
    negative: list[Record] = [tape.snapshot("A-1", bids=[(10, 5)]), tape.delta("A-1", 10, -6)]
    assert doubt_of(fold(*negative)) == ("negative-level", "")
    assert doubt_of(fold(*negative, tape.snapshot("A-1"))) is None


def test_a_gap_of_every_ticker_reaches_markets_known_and_to_come() -> None:
    tape = Tape()
    state = fold(tape.snapshot("A-1"), tape.gap("*", "whole"), tape.delta("B.2", 10, 5))
    assert doubt_of(state) == ("gap", "whole")
    assert doubt_of(state, "B.2") == ("no-snapshot", "")
    market = state.find("B.2")
    assert market is not None
    assert list(market.gaps_open) == ["whole"]
    state.apply(tape.snapshot("A-1"), 9)
    assert doubt_of(state) is None


def test_a_gap_of_an_unfiltered_channel_leaves_books_alone_and_shows_in_the_trades_coverage() -> None:
    tape = Tape()
    state = fold(tape.snapshot("A-1"), tape.trade("A-1"), tape.gap("*", "trades", channel="trade"))
    market = state.find("A-1")
    assert market is not None
    assert doubt_of(state) is None
    coverage = trade_views.trades(state, market, limit=10, before=0).coverage
    assert (coverage.verified, [gap.gap_id for gap in coverage.gaps]) == (False, ["trades"])
    state.apply(tape.gap("*", "trades", channel="trade", closed=True), 4)
    coverage = trade_views.trades(state, market, limit=10, before=0).coverage
    assert [(gap.gap_id, gap.end_ns > 0) for gap in coverage.gaps] == [("trades", True)]


def test_one_hole_of_several_unfiltered_channels_ends_channel_by_channel() -> None:
    tape = Tape()
    state = fold(tape.trade("A-1"), tape.gap("*", channel="trade"), tape.gap("*", channel="lifecycle"))
    state.apply(tape.gap("*", channel="trade", closed=True), 4)
    assert [gap.channel for gap in state.whole_gaps_open.values()] == ["lifecycle"]
    assert [gap.channel for gap in state.whole_gaps_closed] == ["trade"]


def test_gaps_that_were_forgotten_leave_a_doubt() -> None:
    tape = Tape()
    state = fold(tape.trade("A"))
    for number in range(GAPS_CLOSED_MAX + 1):
        for closed in (False, True):
            state.apply(tape.gap("A", f"g{number}", closed=closed), 2)
    market = state.find("A")
    assert market is not None
    assert market.gaps_forgotten_ns > 0
    market.gaps_closed.clear()
    old, new = (trade_views.trades_coverage(state, market, since_ns, is_truncated=False) for since_ns in (0, 2**62))
    assert (old.verified, new.verified) == (False, True)


def test_past_the_limit_the_market_heard_of_least_recently_is_forgotten_and_counted() -> None:
    tape = Tape()
    state = fold(tape.trade("B"), tape.trade("A"), tape.trade("B"), tape.trade("C"), markets_max=2)
    assert state.tickers == ("B", "C")
    assert (state.markets_forgotten, len(state), state.find("A")) == (1, 2, None)


def test_trades_are_paged_newest_first_without_repeats_while_new_ones_come() -> None:
    tape = Tape()
    state = fold(*(tape.trade("A-1", price) for price in range(1, 10)), trades_max=6)
    market = state.find("A-1")
    assert market is not None
    first = trade_views.trades(state, market, limit=2, before=0)
    assert ([trade.price for trade in first.trades], first.cursor) == (["0.0009", "0.0008"], "8")
    state.apply(tape.trade("A-1", 10), 10)
    second = trade_views.trades(state, market, limit=2, before=8)
    assert ([trade.price for trade in second.trades], second.cursor) == (["0.0007", "0.0006"], "6")
    third = trade_views.trades(state, market, limit=2, before=6)
    # The ring holds six: the trade at 0.0004 has gone meanwhile, and the coverage says that older ones are elsewhere.
    assert ([trade.price for trade in third.trades], third.cursor) == (["0.0005"], None)
    assert third.coverage.is_truncated
    assert trade_views.trades(state, market, limit=2, before=2).trades == ()
