"""A venue's past in the archive: complete, marked, once, and readable like everything else."""

from __future__ import annotations

import random as seeded
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.services.kalshi_rest.conftest import START_NS

from ssmd.application.handler import Application
from ssmd.archive.reading import Wanted, raw_lines, records
from ssmd.archive.shelf_manifest import raw_shelf
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import DayCalendar, ManualClock
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Unavailable
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.projections.manifest_sink import ManifestSink
from ssmd.projections.manifests import MANIFESTS
from ssmd.projections.rebuild import fold_in_memory
from ssmd.schemas.control import Connected, Repair, decode_fact
from ssmd.schemas.records import MarketStatus, Record, Trade
from ssmd.services.archive_positions import load_positions
from ssmd.services.kalshi_rest.backfill import Backfill, BackfilledDay, Destination
from ssmd.services.kalshi_rest.history import VenueHistory
from ssmd.services.quality_assessor import measure_day
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.transforms.renormalize import compare

SECOND_NS = 1_000_000_000
DATE = "2026-11-22"
DAY_NS = DayCalendar().day_of(START_NS)[1] - 86_400 * SECOND_NS
PAST = {"markets": 4, "rate": 10, "roll_s": 60, "history_s": 900, "live_window_s": 300, "seed": 6, "rest_tokens_s": 50_000}


class Desk:
    """An archive in memory and a journal, with a backfill into them."""

    def __init__(self, venue: Any, spool: Path) -> None:
        self.storage = MemoryStorage()
        self.journal = MemoryJournal("test")
        self.application = Application(self.journal, CATALOGUE, ManualClock(START_NS), seeded.Random(1).randbytes)
        self.venue = venue
        self.spool = spool
        self.progress: list[tuple[str, int]] = []

    def backfill(self, candle_minutes: int = 1) -> Backfill:
        to = Destination("test", "kalshi", "market-v1", self.storage, self.application, self.spool, "cli:anna")
        told = self.progress.append
        return Backfill(
            VenueHistory(self.venue.client), to, candle_minutes=candle_minutes, progress=lambda date, rows: told((date, rows))
        )

    async def day(self, ticker: str = "") -> BackfilledDay:
        return await self.backfill().day(DATE, DAY_NS, DAY_NS + 86_400 * SECOND_NS, ticker)

    async def write_manifests(self) -> None:
        await ManifestSink(await fold_in_memory(self.journal, [MANIFESTS]), self.storage).reconcile()

    async def records(self) -> list[Record]:
        await self.write_manifests()
        wanted = Wanted("test", "kalshi", DATE, KalshiMapper.version)
        return [record async for batch in records(self.storage, wanted) for record in batch]

    async def keys(self) -> list[str]:
        return [key async for key in self.storage.list()]


@pytest.fixture
def desk(tmp_path: Path) -> Any:
    return lambda venue: Desk(venue, tmp_path / "spool")


async def test_a_day_is_archived_whole_and_marked_as_backfilled(run_venue: Any, desk: Any) -> None:
    async with run_venue(**PAST) as venue:
        held = desk(venue)
        done = await held.day()
        model = venue.model
        settled = {ticker: market for ticker, market in model.markets.items() if market.settled_ns}
        assert done == BackfilledDay(DATE, False, len(model.trades), len(settled), done.candles)
        assert done.candles > 20
        found = await held.records()
        trades = [record for record in found if isinstance(record, Trade)]
        assert [(trade.trade_id, trade.ts_event_ns, trade.price, trade.size) for trade in trades] == [
            (trade.trade_id, trade.ts_ns, trade.yes_price, trade.size)
            for trade in sorted(model.trades, key=lambda trade: (trade.ts_ns, trade.ticker, trade.trade_id))
        ]
        assert {(record.sid, record.seq) for record in found} == {(0, 0)}
        assert [record.ts_recv_ns for record in found] == sorted(record.ts_event_ns for record in found)
        ends = [record for record in found if isinstance(record, MarketStatus)]
        assert {(end.ticker, end.result, end.settlement_price, end.status) for end in ends} == {
            (ticker, market.result, market.settlement, "finalized") for ticker, market in settled.items()
        }


async def test_raw_lines_are_the_venues_rows_with_the_call_that_gave_them(run_venue: Any, desk: Any) -> None:
    async with run_venue(**PAST) as venue:
        held = desk(venue)
        await held.day()
        await held.write_manifests()
        facts = [
            (line.connection, decode_fact(line.entry.payload))
            async for lines in raw_lines(held.storage, raw_shelf("test", "kalshi", DATE))
            for line in lines
        ]
        assert {name for name, _ in facts} == {"backfill:all", "backfill-candles:all"}
        begun = [fact for _, fact in facts if isinstance(fact, Connected)]
        assert [fact.wire for fact in begun] == ["kalshi-rest", "kalshi-rest"]
        rows = [(name, fact) for name, fact in facts if isinstance(fact, Repair)]
        assert {fact.gap_id for _, fact in rows} == {f"backfill:{DATE}"}
        answer = await venue.client.get("/markets/trades", {"limit": "1"})
        newest = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])["trades"]
        assert f"[{[fact.body for _, fact in rows if fact.source == '/markets/trades'][-1]}]".encode() == bytes(newest)
        candles = [fact for name, fact in rows if name == "backfill-candles:all"]
        assert all(fact.source.startswith("/series/KX") and '"end_period_ts"' in fact.body for fact in candles)
        assert sum(fact.source == "/markets" for _, fact in rows) > 5


async def test_a_complete_day_is_not_fetched_again(run_venue: Any, desk: Any) -> None:
    async with run_venue(**PAST) as venue:
        held = desk(venue)
        await held.day()
        keys, tries = await held.keys(), venue.client.figures.tries
        assert await held.day() == BackfilledDay(DATE, was_there=True)
        assert (await held.keys(), venue.client.figures.tries) == (keys, tries)
        assert await held.backfill().is_there(DATE)
        assert not await held.backfill().is_there(DATE, "KXBTCD-1")


async def test_an_interrupted_day_is_done_again_and_leaves_nothing_twice(
    run_venue: Any, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_venue(**PAST) as venue:
        held = desk(venue)
        whole = desk(venue)
        await whole.day()
        real = held.storage.put_file
        calls = 0

        async def failing(key: str, path: Path) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:  # the raw file is sealed, the records are not
                raise Unavailable("storage went away")
            return await real(key, path)

        monkeypatch.setattr(held.storage, "put_file", failing)
        with pytest.raises(Unavailable, match="went away"):
            await held.day()
        assert not await held.backfill().is_there(DATE)
        assert not list(held.spool.iterdir())
        await held.day()
        assert await held.records() == await whole.records()
        assert [key for key in await held.keys() if "manifest" not in key] == [
            key for key in await whole.keys() if "manifest" not in key
        ]


async def test_one_market_by_itself(run_venue: Any, desk: Any) -> None:
    async with run_venue(**PAST) as venue:
        held = desk(venue)
        ticker = next(iter(venue.model.markets))
        done = await held.day(ticker)
        expected = [trade.trade_id for trade in venue.model.trades if trade.ticker == ticker]
        assert done.trades == len(expected)
        assert [record.trade_id for record in await held.records() if isinstance(record, Trade)] == expected
        assert any("backfill%3AKXBTCD-26NOV2517-T73499%2E99-" in key for key in await held.keys())


async def test_the_records_can_be_made_again_from_the_raw_lines(run_venue: Any, desk: Any) -> None:
    async with run_venue(**PAST) as venue:
        held = desk(venue)
        await held.day()
        await held.write_manifests()
        wanted = Wanted("test", "kalshi", DATE, KalshiMapper.version)
        found = await compare(held.storage, wanted, lambda session: KalshiMapper("kalshi", session))
        assert found.is_equal
        assert found.made == found.archived
        assert found.made["trade"] == len(venue.model.trades)


async def test_archivers_pass_backfills_over_and_the_journal_tells_them(run_venue: Any, desk: Any) -> None:
    async with run_venue(**PAST) as venue:
        held = desk(venue)
        await held.day()
        assert (await load_positions(held.journal, "kalshi", "raw")).connections == {}
        state = await held.application.state(archive.DECIDER, ("kalshi", DATE, "raw", "backfill:all"))
        assert (state.is_complete, state.segments, state.instance) == (True, 1, "cli:anna")
        assert held.progress[-1][0] == DATE


async def test_a_backfilled_day_has_no_quality_of_capture(run_venue: Any, desk: Any) -> None:
    async with run_venue(**PAST) as venue:
        held = desk(venue)
        await held.day()
        await held.write_manifests()
        measures = await measure_day(
            held.storage, "test", "kalshi", DATE, "UTC", lambda session: KalshiMapper("kalshi", session), lambda *_: None
        )
        assert measures == []


async def test_one_walk_over_the_markets_serves_days_that_follow_each_other(run_venue: Any, desk: Any) -> None:
    async with run_venue(**PAST) as venue:
        held = desk(venue)
        before = DAY_NS - 86_400 * SECOND_NS
        to = Destination("test", "kalshi", "market-v1", held.storage, held.application, held.spool, "cli:anna")
        days = Backfill(
            VenueHistory(venue.client), to, candle_minutes=0, progress=lambda *_: None, last_ns=DAY_NS + 86_400 * SECOND_NS
        )
        await venue.control("/faults", {"kind": "rest-slow", "count": 1000, "path": "/historical/markets"})
        await days.day("2026-11-21", before, DAY_NS)
        second = await days.day(DATE, DAY_NS, DAY_NS + 86_400 * SECOND_NS)
        assert second.markets == sum(market.settled_ns > 0 for market in venue.model.markets.values())
        assert (await venue.control("/faults/clear"))["fired"] == {"rest-slow": 1}


async def test_a_day_without_anything_is_complete_too(run_venue: Any, desk: Any) -> None:
    async with run_venue(**PAST) as venue:
        held = desk(venue)
        before = DAY_NS - 86_400 * SECOND_NS
        done = await held.backfill().day("2026-11-21", before, DAY_NS)
        assert done == BackfilledDay("2026-11-21", was_there=False)
        assert await held.backfill().is_there("2026-11-21")


async def test_a_stormy_venue_gives_the_same_archive(run_venue: Any, desk: Any) -> None:
    async with run_venue(**PAST) as venue:
        calm, stormy = desk(venue), desk(venue)
        await calm.day()
        kinds = ["rest-429", "rest-503", "half-page", "cursor-loop", "rest-502"] * 6
        await venue.control("/faults", [{"kind": kind} for kind in kinds])
        await stormy.day()
        assert await stormy.records() == await calm.records()
