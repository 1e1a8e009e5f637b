"""Intervals of one session: what is claimed at each cut, told with whom, and the same after any restart."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from tests.exchanges.kalshi.test_normalize import SECOND, Tape, delta, snapshot, subscribed, trade

from ssmd.domain import capture
from ssmd.domain.capture import IntervalAssessed
from ssmd.domain.fact_parts import set_digest
from ssmd.errors import Malformed
from ssmd.exchanges.adapter import Mapped
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.exchanges.kalshi.ticker_sets import NamedSet, TickerSets
from ssmd.schemas.control import DayMark, Disconnected, MarketsLeft, PreviousSession, Repair
from ssmd.schemas.records import Gap

HOUR = 3600 * SECOND
MS = 1_000_000


def intervals(*mapped: Mapped) -> list[tuple[Any, ...]]:
    """(sid, channel, verdict, cause, start, end in ms, first_n, first_seq, last_seq, tickers) of each."""
    return [
        (
            one.sid, one.channel, one.verdict, one.cause, one.start_ns / MS, one.end_ns / MS, one.first_n, one.first_seq,
            one.last_seq, one.tickers,
        )
        for entry in mapped
        for one in entry.facts
        if isinstance(one, IntervalAssessed)
    ]  # fmt: skip


def begun(*tickers: str, session: int = 5, previous: PreviousSession | None = None) -> Tape:
    """Books subscribed at 3 ms (entry 3), a snapshot of each at 4, 5, ... ms."""
    tape = Tape(session, previous=previous)
    tape.book(*tickers)
    for seq, ticker in enumerate(tickers, 1):
        tape.frame(snapshot(ticker, seq))
    return tape


def test_a_book_is_verified_from_its_snapshot_to_the_last_counted_frame_and_the_tail_is_not() -> None:
    tape = begun("A", "B")
    tape.frame(delta("A", 3), ts_ns=2 * SECOND)
    tape.frame(subscribed("ticker", 2), ts_ns=3 * SECOND)
    end = tape.ctl(Disconnected("connection-lost", last_recv_ns=3 * SECOND), ts_ns=4 * SECOND)
    assert intervals(end) == [
        # Both from the second of the two snapshots, which came within a second.
        (1, "orderbook_delta", "verified", "", 5, 2000, 5, 2, 3, ("A", "B")),
        (1, "orderbook_delta", "unverifiable", "tail", 2000, 3000, 5, 3, 3, ()),
    ]
    first, tail = (one for one in end.facts if isinstance(one, IntervalAssessed))
    assert (first.ticker_set, first.base, first.evidence) == (set_digest("AB"), "", "seq 2 to 3 of sid 1, none missing")
    assert (tail.ticker_set, tail.base, tail.dropped) == (set_digest("AB"), set_digest("AB"), ())
    assert tail.evidence == "nothing counted came on sid 1 after seq 3"


def test_a_jump_is_missing_from_the_last_proven_frame_to_the_snapshot() -> None:
    tape = begun("A")
    tape.frame(delta("A", 2), ts_ns=2 * SECOND)
    jump = tape.frame(delta("A", 4), ts_ns=5 * SECOND)
    assert intervals(jump) == [(1, "orderbook_delta", "verified", "", 4, 2000, 4, 1, 2, ("A",))]
    back = tape.frame(snapshot("A", 5), ts_ns=6 * SECOND)
    assert intervals(back) == [(1, "orderbook_delta", "missing", "sequence-jump", 2000, 6000, 6, 2, 4, ())]
    (closed,) = (one for one in back.facts if isinstance(one, capture.GapClosed))
    missing = back.facts[-1]
    assert isinstance(missing, IntervalAssessed)
    assert (missing.gap_id, missing.start_ns, missing.end_ns) == (closed.gap_id, closed.start_ns, closed.end_ns)
    tape.frame(delta("A", 6), ts_ns=7 * SECOND)
    assert intervals(tape.ctl(DayMark("1970-01-01"), ts_ns=8 * SECOND)) == [
        (1, "orderbook_delta", "verified", "", 6000, 7000, 7, 5, 6, ())
    ]


def test_uncounted_channels_are_unverifiable_and_never_verified() -> None:
    tape = Tape()
    tape.out(1, channels=["ticker"], market_tickers=["A"])
    tape.frame(subscribed("ticker", 2))
    assert intervals(tape.ctl(DayMark("1970-01-01"), ts_ns=SECOND)) == [
        (2, "ticker", "unverifiable", "no-sequence", 3, 1000, 3, 0, 0, ("A",))
    ]
    assert intervals(tape.ctl(Disconnected("stopped", last_recv_ns=2 * SECOND), ts_ns=2 * SECOND)) == [
        (2, "ticker", "unverifiable", "no-sequence", 1000, 2000, 4, 0, 0, ())
    ]


def test_without_the_acknowledgement_nothing_is_verified_and_one_that_comes_late_will_do() -> None:
    tape = Tape()
    tape.frame(snapshot("A", 7))
    late = copy.deepcopy(tape)
    tape.frame(delta("A", 8), ts_ns=SECOND)
    end = Disconnected("stopped", last_recv_ns=SECOND)
    assert intervals(tape.ctl(end, ts_ns=SECOND)) == [
        (1, "orderbook_delta", "unverifiable", "no-beginning", 2, 1000, 2, 7, 8, ("A",))
    ]
    late.frame(subscribed("orderbook_delta", 1))
    late.frame(delta("A", 8), ts_ns=SECOND)
    assert intervals(late.ctl(end, ts_ns=SECOND)) == [(1, "orderbook_delta", "verified", "", 2, 1000, 2, 7, 8, ("A",))]


def test_a_silent_trade_channel_proves_nothing_and_one_lost_trade_is_missing() -> None:
    tape = Tape()
    tape.out(1, channels=["trade"], market_tickers=["A"])
    tape.frame(subscribed("trade", 2))
    silent = copy.deepcopy(tape)
    end = Disconnected("stopped", last_recv_ns=9 * SECOND)
    assert intervals(silent.ctl(end, ts_ns=9 * SECOND)) == [(2, "trade", "unverifiable", "tail", 3, 9000, 3, 0, 0, ("A",))]
    tape.frame(trade("A", 1), ts_ns=SECOND)
    jump = tape.frame(trade("A", 3), ts_ns=2 * SECOND)
    assert intervals(jump) == [
        (2, "trade", "verified", "", 3, 1000, 3, 0, 1, ("A",)),
        (2, "trade", "missing", "sequence-jump", 1000, 2000, 5, 1, 3, ()),
    ]
    tape.frame(trade("A", 4), ts_ns=3 * SECOND)
    assert intervals(tape.ctl(end, ts_ns=9 * SECOND)) == [
        (2, "trade", "verified", "", 2000, 3000, 5, 3, 4, ()),
        (2, "trade", "unverifiable", "tail", 3000, 9000, 5, 4, 4, ()),
    ]


def test_markets_come_and_go_each_with_its_own_time() -> None:
    tape = begun("A", "B")
    tape.out(2, "update_subscription", sid=1, action="add_markets", market_tickers=["C"])
    tape.frame({"type": "ok", "id": 2, "sid": 1, "seq": 3}, ts_ns=2 * SECOND)
    tape.frame(snapshot("C", 4), ts_ns=3 * SECOND)
    tape.out(3, "update_subscription", sid=1, action="delete_markets", market_tickers=["A"])
    gone = tape.frame({"type": "ok", "id": 3, "sid": 1, "seq": 5}, ts_ns=4 * SECOND)
    assert intervals(gone) == [(1, "orderbook_delta", "verified", "", 5, 4000, 5, 2, 5, ("A",))]
    end = tape.frame({"type": "unsubscribed", "sid": 1, "seq": 6}, ts_ns=5 * SECOND)
    assert intervals(end) == [
        (1, "orderbook_delta", "verified", "", 5, 5000, 5, 2, 6, ("B",)),
        (1, "orderbook_delta", "verified", "", 3000, 5000, 8, 4, 6, ("C",)),
    ]
    assert intervals(tape.ctl(Disconnected("stopped", last_recv_ns=6 * SECOND), ts_ns=6 * SECOND)) == []


def test_each_full_hour_tells_what_is_proven_and_joins_who_goes_on_together() -> None:
    tape = begun("A")
    tape.out(2, "update_subscription", sid=1, action="add_markets", market_tickers=["B"])
    tape.frame({"type": "ok", "id": 2, "sid": 1, "seq": 2}, ts_ns=2 * SECOND)
    tape.frame(snapshot("B", 3), ts_ns=3 * SECOND)
    tape.frame(delta("A", 4), ts_ns=HOUR - SECOND)
    hour = tape.frame(delta("A", 5), ts_ns=HOUR + 10 * SECOND)
    assert intervals(hour) == [
        (1, "orderbook_delta", "verified", "", 4, 3_599_000, 4, 1, 4, ("A",)),
        (1, "orderbook_delta", "verified", "", 3000, 3_599_000, 7, 3, 4, ("B",)),
    ]
    later = tape.frame(delta("A", 6), ts_ns=2 * HOUR)
    assert intervals(later) == [(1, "orderbook_delta", "verified", "", 3_599_000, 3_610_000, 9, 4, 5, ("A", "B"))]
    assert intervals(tape.frame(delta("A", 7), ts_ns=3 * HOUR - 1)) == []


def test_the_hole_before_a_session_is_told_by_the_one_after_it() -> None:
    tape = begun("A", "B", session=9, previous=PreviousSession(5, 20, 1 * MS, "killed", "the tape ends"))
    told = [one for one in tape.frame(delta("A", 3), ts_ns=2 * SECOND).facts if isinstance(one, IntervalAssessed)]
    assert told == []  # both were back at once
    late = Tape(9, previous=PreviousSession(5, 20, 1 * MS, "killed", "the tape ends"))
    late.book("A", "B")
    late.frame(snapshot("A", 1))
    assert intervals(late.frame(snapshot("B", 2), ts_ns=2 * SECOND)) == [
        (0, "", "missing", "killed", 1, 4, 0, 0, 0, ("A",)),
        (0, "", "missing", "killed", 1, 2000, 0, 0, 0, ("B",)),
    ]


def test_who_left_during_a_hole_is_missing_until_that_is_told() -> None:
    tape = begun("A", session=9, previous=PreviousSession(5, 20, 1 * MS, "killed", "the tape ends"))
    left = tape.ctl(MarketsLeft("5-20", "killed", 1 * MS, ("Y", "Z")), ts_ns=60 * SECOND)
    assert intervals(left)[-1] == (0, "", "missing", "killed", 1, 60_000, 0, 0, 0, ("Y", "Z"))
    assert [fact for fact in left.facts if isinstance(fact, capture.GapClosed)][-1:] == [
        capture.GapClosed(9, tape.n, len(left.facts) - 2, 60 * SECOND, "5-20", MS, 60 * SECOND, ("Y", "Z"))
    ]
    assert [(gap.ticker, gap.state, gap.gap_id) for gap in left.records if isinstance(gap, Gap)] == [
        ("Y", "closed", "5-20"), ("Z", "closed", "5-20"),
    ]  # fmt: skip


def test_a_repair_is_told_for_trades_alone() -> None:
    tape = Tape()
    body = '{"source":"kalshi-rest","start_ns":5,"end_ns":9,"records":2,"tickers":["A"],"evidence":"2 trades"}'
    repaired = tape.ctl(Repair("5-7-1", "summary", body))
    assert intervals(repaired) == [(0, "trade", "repaired", "", 5 / MS, 9 / MS, 0, 0, 0, ("A",))]
    assert isinstance(repaired.facts[0], capture.GapRepaired)


def test_a_state_of_before_there_were_intervals_is_passed_over() -> None:
    with pytest.raises(Malformed, match="earlier version"):
        KalshiMapper("kalshi", 5).__setstate__({"_feed": "kalshi"})


def test_a_mapper_taken_up_anywhere_tells_the_same() -> None:
    def play(tape: Tape, *, pickled: bool) -> list[Mapped]:
        def step(mapped: Mapped) -> Mapped:
            if pickled:
                tape.mapper = pickle.loads(pickle.dumps(tape.mapper))
            return mapped

        found = [step(tape.book("A", "B", "C"))]
        for seq, ticker in enumerate("ABC", 1):
            found.append(step(tape.frame(snapshot(ticker, seq))))
        found.append(step(tape.frame(delta("A", 5), ts_ns=SECOND)))
        found.append(step(tape.frame(snapshot("B", 6), ts_ns=SECOND + 1)))
        found.append(step(tape.frame(snapshot("A", 7), ts_ns=SECOND + 2)))
        found.append(step(tape.frame(delta("A", 8), ts_ns=2 * HOUR)))
        found.append(step(tape.ctl(DayMark("1970-01-01"), ts_ns=2 * HOUR + 1)))
        found.append(step(tape.ctl(Disconnected("stopped", last_recv_ns=2 * HOUR), ts_ns=2 * HOUR + 2)))
        return found

    plain = play(Tape(), pickled=False)
    assert play(Tape(), pickled=True) == plain
    assert [(one[2], one[-1]) for one in intervals(*plain)] == [("missing", ("A", "B")), ("verified", ()), ("missing", ("C",))]


def test_sets_are_named_once_and_then_by_their_difference() -> None:
    sets = TickerSets()
    many = [f"T{number:04}" for number in range(100)]
    (first,) = sets.name(many)
    assert first == NamedSet(set_digest(many), "", tuple(many), ())
    assert list(sets.name(reversed(many))) == [NamedSet(first.ticker_set, first.ticker_set, (), ())]
    changed = [*many[:50], *many[51:], "U"]
    (second,) = sets.name(changed)
    assert second == NamedSet(set_digest(changed), first.ticker_set, ("U",), ("T0050",))
    (small,) = sets.name(["T0001"])
    assert small == NamedSet(set_digest(["T0001"]), "", ("T0001",), ())
    (third,) = sets.name(changed[1:])
    assert third == NamedSet(set_digest(changed[1:]), second.ticker_set, (), ("T0000",))


def test_sets_too_large_for_a_message_are_told_as_several() -> None:
    sets = TickerSets(bytes_max=700)
    many = [f"T{number:04}" for number in range(200)]
    parts = list(sets.name(many))
    assert [ticker for part in parts for ticker in part.tickers] == many
    assert all(len(part.tickers) <= 100 and not part.base for part in parts)
    again = list(sets.name(many[1:]))
    assert all(part.base for part in again)
    assert sum(len(part.tickers) + len(part.dropped) for part in again) < 10
