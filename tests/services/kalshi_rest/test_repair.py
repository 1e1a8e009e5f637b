"""A gap's missed trades come back, each once, marked, through the tape; what cannot come back is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.services.kalshi_rest.conftest import START_NS

from ssmd.clock import DayCalendar, ManualClock, SystemClock
from ssmd.domain.capture import GapRepaired
from ssmd.errors import Rejected, Unavailable
from ssmd.exchanges.kalshi.gap_repair import GapToRepair, RecentTrades, missed_trades
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.exchanges.kalshi.rest_history import ListedTrade
from ssmd.schemas.control import Connected, Repair
from ssmd.schemas.records import Side, Trade
from ssmd.services.kalshi_rest.client import RestSettings
from ssmd.services.kalshi_rest.repair import repair_gap
from ssmd.streams.recorder import Recorder
from ssmd.streams.tape import TapeWriter
from ssmd.streams.tape_cursor import TapeCursor

SECOND_NS = 1_000_000_000
PAST = {"markets": 4, "rate": 50, "roll_s": 60, "history_s": 120, "seed": 8}
GAP = GapToRepair("7-42", START_NS - 60 * SECOND_NS, START_NS - 20 * SECOND_NS, "", ())


def received(model: Any, gap: GapToRepair) -> RecentTrades:
    """What the stream gave outside of the gap."""
    recent = RecentTrades()
    for trade in model.trades:
        if not gap.start_ns <= trade.ts_ns < gap.end_ns:
            recent.add(
                Trade(
                    "kalshi",
                    trade.ticker,
                    trade.ts_ns,
                    trade.ts_ns,
                    1,
                    1,
                    0,
                    1,
                    1,
                    -4,
                    -2,
                    trade.trade_id,
                    1,
                    1,
                    Side.BID,
                    False,
                )
            )
    return recent


def on_tape(directory: Path, entries: list[Repair]) -> tuple[list[Any], list[Any]]:
    """Records and facts of a tape with a session that holds `entries`."""
    clock = ManualClock(START_NS)
    tape = TapeWriter(directory, file_bytes=1 << 24, bytes_max=1 << 26)
    recorder = Recorder(tape, START_NS, clock, day_of=DayCalendar().day_of, on_block=lambda _: None, on_begin=lambda: None)
    recorder.fact(Connected("kalshi", "main", "wss://x", wire="kalshi-dollars"))
    for entry in entries:
        recorder.fact(entry)
    recorder.flush()
    tape.close()
    cursor = TapeCursor(directory)
    mapper = KalshiMapper("kalshi", START_NS)
    records: list[Any] = []
    facts: list[Any] = []
    while blocks := cursor.read():
        for block in blocks:
            for taped in block.decode().entries:
                mapped = mapper.map(taped)
                records += mapped.records
                facts += mapped.facts
    cursor.close()
    return records, facts


async def test_missed_trades_come_back_through_the_tape_each_once_and_marked(run_venue: Any, tmp_path: Path) -> None:
    async with run_venue(**PAST) as venue:
        written: list[Repair] = []
        await repair_gap(GAP, venue.client, received(venue.model, GAP), written.extend)
        missed = [trade for trade in venue.model.trades if GAP.start_ns <= trade.ts_ns < GAP.end_ns]
        assert len(missed) > 100
        records, facts = on_tape(tmp_path / "tape", written)
        order = sorted(missed, key=lambda trade: (trade.ts_ns, trade.trade_id))
        assert [(found.trade_id, found.price, found.size, found.ts_event_ns, found.sid, found.seq) for found in records] == [
            (trade.trade_id, trade.yes_price, trade.size, trade.ts_ns, 0, 0) for trade in order
        ]
        assert {found.ts_recv_ns for found in records} == {START_NS}  # received now, not then
        (repaired,) = [fact for fact in facts if isinstance(fact, GapRepaired)]
        assert (repaired.gap_id, repaired.records, repaired.source) == ("7-42", len(missed), "kalshi-rest")
        assert (repaired.start_ns, repaired.end_ns) == (GAP.start_ns, GAP.end_ns)
        assert "had been missed and are recovered" in repaired.evidence
        assert "changes within the gap cannot be recovered" in repaired.evidence


async def test_books_of_the_gaps_markets_are_kept_as_evidence_and_make_no_record(run_venue: Any, tmp_path: Path) -> None:
    async with run_venue(**PAST) as venue:
        ticker = next(iter(venue.model.markets))
        gap = GAP._replace(channel="orderbook_delta", tickers=(ticker, "KXNO-1"))
        written: list[Repair] = []
        await repair_gap(gap, venue.client, (), written.extend)
        assert [entry.source for entry in written] == [f"/markets/{ticker}/orderbook", "summary"]
        records, facts = on_tape(tmp_path / "tape", written)
        assert records == []
        (repaired,) = [fact for fact in facts if isinstance(fact, GapRepaired)]
        assert (repaired.records, repaired.tickers) == (0, (ticker, "KXNO-1"))
        assert "no book of KXNO-1" in repaired.evidence


async def test_an_answer_kept_since_before_the_gaps_end_is_not_trusted(run_venue: Any) -> None:
    patient = RestSettings(tries_max=40, pause_first_s=0.05, pause_max_s=0.1)
    async with run_venue(sign=None, edge_cache_s=1, settings=patient, **PAST) as venue:
        now_ns = SystemClock().now_ns()
        answer = await venue.client.get("/historical/cutoff", not_before_ns=now_ns)
        assert answer.as_of_ns >= now_ns
        assert venue.client.figures.stale >= 1


async def test_nothing_is_written_of_a_venue_that_does_not_answer_or_a_gap_too_long(run_venue: Any) -> None:
    async with run_venue(settings=RestSettings(tries_max=2, pause_first_s=0.001), **PAST) as venue:
        await venue.control("/faults", {"kind": "rest-503", "count": 1000})
        written: list[Repair] = []
        with pytest.raises(Unavailable):
            await repair_gap(GAP, venue.client, (), written.extend)
        with pytest.raises(Rejected, match="at most 6 h"):
            await repair_gap(GAP._replace(start_ns=0), venue.client, (), written.extend)
        assert written == []


def test_a_row_that_is_listed_twice_or_elsewhere_is_no_missed_trade() -> None:
    def listed(name: str, ticker: str, at_s: int) -> ListedTrade:
        return ListedTrade(name, ticker, GAP.start_ns + at_s * SECOND_NS, b"{}")

    gap = GAP._replace(tickers=("A",))
    rows = [
        listed("3", "A", 5),
        listed("1", "A", 5),
        listed("3", "A", 5),
        listed("2", "B", 5),
        listed("4", "A", 43),
        listed("5", "A", -1),
    ]
    assert [trade.trade_id for trade in missed_trades(gap, rows, {"1"})] == ["5", "3"]


def test_recent_trades_are_bounded_and_say_since_when_they_know_all() -> None:
    recent = RecentTrades(kept=2)
    for number in range(3):
        recent.add(Trade("kalshi", "A", 100 + number, 1, 1, 1, 0, 1, 1, -4, -2, str(number), 1, 1, Side.BID, False))
    assert [str(number) in recent for number in range(3)] == [False, True, True]
    assert recent.since_ns == 101
