"""A gap's missed trades come back, each once, marked, through the tape; what cannot come back is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from tests.services.kalshi_rest.conftest import START_NS

from ssmd.clock import DayCalendar, ManualClock, SystemClock
from ssmd.domain.capture import GapRepaired
from ssmd.errors import Rejected, Unavailable
from ssmd.exchanges.adapter import GapToRepair
from ssmd.exchanges.kalshi.gap_repair import TapeTold, missed_trades
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.exchanges.kalshi.rest_history import ListedTrade, read_trade
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Connected, Repair, encode_fact
from ssmd.services.kalshi_rest.client import KalshiRest, RestAnswer, RestSettings
from ssmd.services.kalshi_rest.repair import repair_gap
from ssmd.streams.recorder import Recorder
from ssmd.streams.tape import TapeWriter
from ssmd.streams.tape_cursor import TapeCursor

SECOND_NS = 1_000_000_000
PAST = {"markets": 4, "rate": 50, "roll_s": 60, "history_s": 120, "seed": 8}
GAP = GapToRepair("7-42", START_NS - 60 * SECOND_NS, START_NS - 20 * SECOND_NS, "", ())


class Told:
    """A tape that holds what the stream gave outside of the gap, and to which a repair writes."""

    def __init__(self, model: Any = None, gap: GapToRepair = GAP) -> None:
        self.written: list[Repair] = []
        self._ids = (
            () if model is None else [one.trade_id for one in model.trades if not gap.start_ns <= one.ts_ns < gap.end_ns]
        )
        self._gap = gap

    async def __call__(self) -> TapeTold:
        told = TapeTold(self._gap.gap_id, 0)
        for trade_id in self._ids:
            payload = b'{"type":"trade","sid":1,"seq":1,"msg":{"trade_id":"%s"}}' % trade_id.encode()
            told.take(Entry(EntryKind.IN, 1, 1, payload))
        for entry in self.written:
            told.take(Entry(EntryKind.CTL, 1, 1, encode_fact(entry)))
        return told

    async def write(self, entries: Sequence[Repair]) -> None:
        self.written += entries


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
        told = Told(venue.model)
        await repair_gap(GAP, venue.client, told, told.write)
        missed = [trade for trade in venue.model.trades if GAP.start_ns <= trade.ts_ns < GAP.end_ns]
        assert len(missed) > 100
        records, facts = on_tape(tmp_path / "tape", told.written)
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
        told = Told(gap=gap)
        await repair_gap(gap, venue.client, told, told.write)
        assert [entry.source for entry in told.written] == [f"/markets/{ticker}/orderbook", "summary"]
        records, facts = on_tape(tmp_path / "tape", told.written)
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
        told = Told()
        with pytest.raises(Unavailable):
            await repair_gap(GAP, venue.client, told, told.write)
        with pytest.raises(Rejected, match="at most 6 h"):
            await repair_gap(GAP._replace(start_ns=0), venue.client, told, told.write)
        assert told.written == []


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
    told = TapeTold(gap.gap_id, 0)
    told.trade_ids.add("1")
    assert [trade.trade_id for trade in missed_trades(gap, rows, told)] == ["5", "3"]
    pruned = TapeTold(gap.gap_id, gap.start_ns)
    assert [trade.trade_id for trade in missed_trades(gap, rows, pruned)] == ["1", "3"]


async def test_a_repair_that_was_interrupted_goes_on_and_brings_no_trade_twice(run_venue: Any, tmp_path: Path) -> None:
    async with run_venue(**PAST) as venue:
        told = Told(venue.model)

        async def killed(entries: Sequence[Repair]) -> None:
            told.written += entries[:30]
            raise Unavailable("killed")

        with pytest.raises(Unavailable, match="killed"):
            await repair_gap(GAP, venue.client, told, killed)
        await repair_gap(GAP, venue.client, told, told.write)
        assert await repair_gap(GAP, venue.client, told, told.write) == []
        missed = [trade.trade_id for trade in venue.model.trades if GAP.start_ns <= trade.ts_ns < GAP.end_ns]
        records, facts = on_tape(tmp_path / "tape", told.written)
        assert sorted(record.trade_id for record in records) == sorted(missed)
        assert [fact.records for fact in facts if isinstance(fact, GapRepaired)] == [len(missed)]


async def test_of_a_gap_repaired_in_part_the_rest_is_asked(run_venue: Any) -> None:
    async with run_venue(**PAST) as venue:
        within = (trade.ticker for trade in venue.model.trades if GAP.start_ns <= trade.ts_ns < GAP.end_ns)
        first, second, *_ = sorted(set(within))
        told = Told(venue.model)
        await repair_gap(GAP._replace(channel="trade", tickers=(first,)), venue.client, told, told.write)
        done = len(told.written)
        await repair_gap(GAP._replace(channel="trade", tickers=(first, second)), venue.client, told, told.write)
        fresh = {read_trade(entry.body.encode()).ticker for entry in told.written[done:-1]}
        assert fresh == {second}


async def test_whatever_a_ticker_holds_it_is_one_part_of_a_path() -> None:
    asked: list[str] = []

    class Venue:
        async def get(self, path: str, *, not_before_ns: int = 0) -> RestAnswer:
            asked.append(path)
            return RestAnswer(b"{}", not_before_ns)

    told = Told()
    gap = GAP._replace(channel="orderbook_delta", tickers=("KX-1.5", "../portfolio/orders?limit=1#"))
    await repair_gap(gap, cast("KalshiRest", Venue()), told, told.write)
    assert asked == ["/markets/KX-1.5/orderbook", "/markets/..%2Fportfolio%2Forders%3Flimit%3D1%23/orderbook"]
