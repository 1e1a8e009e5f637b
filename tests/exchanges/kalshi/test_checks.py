"""What the mapper judges beyond a frame's form: books that cannot be, fields that vanish, clocks that are apart."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from ssmd.domain import capture
from ssmd.exchanges.adapter import Mapped
from ssmd.exchanges.kalshi.book_check import grid_of, is_on
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import ClockStepped, encode_fact
from ssmd.schemas.records import Gap

MS = 1_000_000
SECOND = 1_000 * MS


class Frames:
    """One session's frames on sid 1 (books) and 2 (ticker), numbered; received every millisecond unless told otherwise."""

    def __init__(self) -> None:
        self.mapper = KalshiMapper("kalshi", 5)
        self.n = 0
        self.seq = 0

    def take(self, frame: dict[str, Any], at_ns: int = 0) -> Mapped:
        self.n += 1
        return self.mapper.map(Entry(EntryKind.IN, self.n, at_ns or self.n * MS, json.dumps(frame).encode()))

    def snapshot(self, ticker: str = "A", *, yes: Any = (), no: Any = (), at_ns: int = 0) -> Mapped:
        self.seq += 1
        msg = {"market_ticker": ticker, "market_id": "m", "yes_dollars_fp": yes, "no_dollars_fp": no}
        return self.take({"type": "orderbook_snapshot", "sid": 1, "seq": self.seq, "msg": msg}, at_ns)

    def delta(self, price: str, size: str, side: str = "yes", *, ticker: str = "A", at_ns: int = 0, **more: Any) -> Mapped:
        self.seq += 1
        msg = {"market_ticker": ticker, "market_id": "m", "price_dollars": price, "delta_fp": size, "side": side, **more}
        return self.take({"type": "orderbook_delta", "sid": 1, "seq": self.seq, "msg": msg}, at_ns)


def opened(mapped: Mapped) -> list[tuple[str, str, str, int]]:
    return [
        (record.cause, record.ticker, record.evidence, record.start_ns)
        for record in mapped.records
        if isinstance(record, Gap) and record.state == "opened"
    ]


def drifts(mapped: Mapped) -> list[tuple[str, str, str]]:
    return [(fact.what, fact.frame_type, fact.field) for fact in mapped.facts if isinstance(fact, capture.DriftDetected)]


def test_a_level_below_zero_opens_a_hole_that_ends_at_the_next_snapshot() -> None:
    frames = Frames()
    frames.snapshot(yes=[["0.4000", "5.00"]])
    broken = frames.delta("0.4000", "-5.01")
    assert opened(broken) == [("book-inconsistent", "A", "A: bid 0.4000 falls to size -0.01", 1 * MS)]
    assert [type(record).__name__ for record in broken.records] == ["BookDelta", "Gap"]
    (fact,) = broken.facts
    assert isinstance(fact, capture.GapOpened)
    assert (fact.cause, fact.tickers, fact.sid, fact.channel) == ("book-inconsistent", ("A",), 1, "orderbook_delta")
    # Told once: what follows says nothing about a book that is known to be wrong.
    assert opened(frames.delta("0.4000", "-5.01")) == []
    mended = frames.snapshot(yes=[["0.4000", "1.00"]])
    assert [record.state for record in mended.records if isinstance(record, Gap)] == ["closed"]
    assert opened(frames.delta("0.4000", "-1.01")) == [("book-inconsistent", "A", "A: bid 0.4000 falls to size -0.01", 4 * MS)]


def test_a_book_crossed_for_a_moment_is_normal_and_for_longer_is_not() -> None:
    frames = Frames()
    frames.snapshot(yes=[["0.4000", "5.00"]], no=[["0.5000", "5.00"]])
    # A bid at 0.50 meets the ask at 1 - 0.50; the taken level goes a moment later.
    assert opened(frames.delta("0.5000", "1.00", at_ns=10 * MS)) == []
    assert opened(frames.delta("0.5000", "-5.00", "no", at_ns=11 * MS)) == []
    assert opened(frames.delta("0.4000", "1.00", at_ns=5 * SECOND)) == []
    frames.delta("0.5000", "1.00", "no", at_ns=6 * SECOND)
    assert opened(frames.delta("0.4000", "1.00", at_ns=7 * SECOND)) == []
    assert opened(frames.delta("0.4000", "1.00", at_ns=7 * SECOND + 1)) == [
        ("book-inconsistent", "A", "A: best bid 0.5000 has met best ask 0.5000 for more than 1 s", 1 * MS)
    ]


def test_a_hole_ends_the_judging_of_its_books() -> None:
    frames = Frames()
    frames.snapshot(yes=[["0.4000", "5.00"]])
    frames.seq += 1  # lost
    assert [cause for cause, *_ in opened(frames.delta("0.3000", "-9.00"))] == ["sequence-jump"]
    assert opened(frames.delta("0.4000", "-9.00")) == []


def test_prices_between_the_ticks_are_told_once_a_market() -> None:
    frames = Frames()
    grid = [{"start": "0.0000", "end": "0.1000", "step": "0.0010"}, {"start": "0.1000", "end": "0.9000", "step": "0.0100"}]
    body = {"market_ticker": "A", "price_level_structure": "x", "price_ranges": grid, "event_type": "created"}
    frames.take({"type": "market_lifecycle_v2", "sid": 3, "seq": 1, "msg": body})
    assert drifts(frames.snapshot(yes=[["0.0550", "5.00"]])) == []
    assert drifts(frames.delta("0.5600", "1.00")) == []
    assert drifts(frames.delta("0.5610", "1.00")) == [("off-grid", "orderbook_delta", "A")]
    assert drifts(frames.delta("0.5620", "1.00")) == []
    # Without a grid any price inside (0, 1) may be one.
    frames.snapshot("B")
    assert drifts(frames.delta("0.5611", "1.00", ticker="B")) == []
    assert drifts(frames.delta("0.0000", "1.00", ticker="B")) == [("off-grid", "orderbook_delta", "B")]


@pytest.mark.parametrize(
    ("price", "is_good"), [(10, True), (15, False), (1010, False), (1100, True), (9000, True), (9510, False)]
)
def test_a_grid_has_steps_by_range(price: int, is_good: bool) -> None:
    grid = grid_of(
        '{"price_ranges":[{"start":"0.0000","end":"0.1000","step":"0.0010"},{"start":"0.1000","end":"0.9000","step":"0.0100"}]}'
    )
    assert is_on(grid, price) is is_good
    assert grid_of('{"price_ranges":[{"start":"0","end":"1","step":"0"}]}') == ()
    assert grid_of("{}") == grid_of("nonsense") == ()


def test_a_mapper_that_was_kept_judges_as_if_it_had_not_been() -> None:
    frames = Frames()
    frames.snapshot(yes=[["0.4000", "5.00"], ["0.3000", "1.00"]], no=[["0.5000", "2.00"]])
    frames.delta("0.4000", "-2.00")
    frames.mapper = pickle.loads(pickle.dumps(frames.mapper))
    assert opened(frames.delta("0.4000", "-3.00")) == []
    assert [cause for cause, *_ in opened(frames.delta("0.5000", "-2.01", "no"))] == ["book-inconsistent"]


def test_a_field_that_vanishes_is_told_within_a_hundred_frames() -> None:
    frames = Frames()
    frames.snapshot(yes=[["0.4000", "5.00"]])
    for _ in range(130):
        assert drifts(frames.delta("0.4000", "1.00", ts_ms=1_795_363_200_000)) == []
    told = [(number, one) for number in range(100) for one in drifts(frames.delta("0.4000", "1.00"))]
    assert [one for _, one in told] == [("null-rate", "orderbook_delta", "msg.ts_ms")]
    assert told[0][0] <= 68


def test_a_field_that_never_came_or_comes_now_and_then_is_not_told() -> None:
    frames = Frames()
    frames.snapshot(yes=[["0.4000", "5.00"]])
    for number in range(2000):
        more: dict[str, Any] = {"ts_ms": 1_795_363_200_000} if number % 3 else {}
        assert drifts(frames.delta("0.4000", "1.00", **more)) == []


def test_our_clock_s_distance_is_told_when_it_moves() -> None:
    frames = Frames()
    venue_ms = 1_795_363_200_000
    facts: list[Any] = []
    frames.snapshot(yes=[["0.4000", "5.00"]], at_ns=venue_ms * MS)
    for number in range(400):
        venue_ms += 100
        # Frames take 40 to 60 ms; after 20 s our clock is stepped by an hour.
        ahead_ms = 40 + number % 20 + (3_600_000 if number >= 200 else 0)
        mapped = frames.delta("0.4000", "1.00", ts_ms=venue_ms, at_ns=(venue_ms + ahead_ms) * MS)
        facts += [fact for fact in mapped.facts if isinstance(fact, capture.ClockOffset)]
    assert [(fact.offset_ns, fact.before_ns) for fact in facts] == [((3_600_000 + 40) * MS, 0)]
    assert frames.mapper.clock_offset_ns == (3_600_000 + 40) * MS


def test_a_step_back_of_our_clock_is_in_its_distance_at_once_and_once() -> None:
    """The tape's times stand still then: no frame could tell it for an hour."""
    frames = Frames()
    venue_ms, hour_ns = 1_795_363_200_000, 3_600 * SECOND
    frames.snapshot(yes=[["0.4000", "5.00"]], at_ns=venue_ms * MS)

    def stepped(step_ns: int, at_ns: int) -> list[Any]:
        frames.n += 1
        mapped = frames.mapper.map(Entry(EntryKind.CTL, frames.n, at_ns, encode_fact(ClockStepped(step_ns))))
        return [(type(fact).__name__, fact.index, getattr(fact, "offset_ns", 0)) for fact in mapped.facts]

    def frames_for(seconds: int, ahead_ns: int, least_ns: int = 0) -> list[int]:
        nonlocal venue_ms
        facts: list[Any] = []
        for _ in range(seconds * 10):
            venue_ms += 100
            at_ns = max(least_ns, (venue_ms + 40) * MS + ahead_ns)
            facts += frames.delta("0.4000", "1.00", ts_ms=venue_ms, at_ns=at_ns).facts
        return [fact.offset_ns for fact in facts if isinstance(fact, capture.ClockOffset)]

    assert stepped(-hour_ns, venue_ms * MS) == [("ClockStepped", 0, 0)], "nothing was measured yet"
    assert frames_for(30, 0) == []
    last_ns = (venue_ms + 40) * MS
    assert stepped(-hour_ns, last_ns) == [("ClockStepped", 0, 0), ("ClockOffset", 1, -hour_ns + 40 * MS)]
    assert frames.mapper.clock_offset_ns == -hour_ns + 40 * MS
    assert frames_for(30, -hour_ns, last_ns) == []
    assert frames.mapper.clock_offset_ns == -hour_ns + 40 * MS
    # It is set right: the frames tell it, and it is not counted twice, whatever comes first.
    assert stepped(hour_ns, (venue_ms + 40) * MS) == [("ClockStepped", 0, 0)]
    assert frames_for(30, 0) == [40 * MS]
    assert frames.mapper.clock_offset_ns == 40 * MS
