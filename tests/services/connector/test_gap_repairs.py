"""Gaps that are over are repaired beside the capture: end to end against the simulator, and what waits, tries and gives up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from tests.services.connector.test_connector import ENV, QUICK, Bench, bench, is_all_acked, running, until

from ssmd.application.handler import Application
from ssmd.domain.capture import GapClosed, GapOpened
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Rejected, SsmdError, Unavailable
from ssmd.exchanges.adapter import GapToRepair, Subscription
from ssmd.identifiers import system_random
from ssmd.projections import queries
from ssmd.projections.views import freshest_views
from ssmd.schemas.control import Repair
from ssmd.schemas.records import Trade
from ssmd.services.connector import gap_repairs
from ssmd.services.connector.gap_repairs import GapRepairs
from ssmd.services.connector.kalshi_venue import KalshiAccess
from ssmd.services.connector.service import ConnectorService
from ssmd.services.simulator.config import FaultOrder, SimulatorConfig

S = 1_000_000_000


def trading(system: Bench) -> ConnectorService:
    """A connector that captures trades, too."""
    access = KalshiAccess(
        rest_url=system.simulator.rest_url,
        websocket_url=system.simulator.websocket_url,
        channels=("orderbook_delta", "trade"),
        tickers=(),
        tickers_max=100,
        clock=system.clock,
    )
    application = Application(system.journal, CATALOGUE, system.clock, system_random)
    settings = QUICK._replace(backoff_first_s=1.5)
    venue = access.venue("kalshi", "kalshi-dollars")
    tape = system.directory / "tape"
    return ConnectorService(venue, ENV, "main", tape, system.transport, application, system.clock, system_random, settings)


async def test_trades_missed_while_the_connection_was_gone_arrive_once_and_the_gap_shows_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gap_repairs, "SETTLE_S", 0.5)
    faults = (FaultOrder(kind="drop-connection", after_frames=300),)
    async with bench(tmp_path, SimulatorConfig(seed=4, markets=3, rate=300, require_auth=False, faults=faults)) as system:
        connector = trading(system)
        async with running(connector) as task:
            await until(lambda: connector.health().stats["repaired"] == 1, "the gap is repaired", task)
            await until(lambda: is_all_acked(connector), "all is published", task)
            frames = int(connector.health().stats["frames"])
            await until(lambda: int(connector.health().stats["frames"]) > frames, "capture goes on", task)
            await connector.flush()
        trades = [record for record in system.records() if isinstance(record, Trade)]
        assert set(Counter(trade.trade_id for trade in trades).values()) == {1}
        repaired = [trade for trade in trades if (trade.sid, trade.seq) == (0, 0)]
        assert repaired
        # Between the first and the last that came over the stream nothing of the venue's is missing now.
        streamed = [trade for trade in trades if trade.sid]
        low, high = streamed[0].ts_event_ns, streamed[-1].ts_event_ns
        assert system.simulator._feed is not None
        wanted = {trade.trade_id for trade in system.simulator._feed.model.trades if low < trade.ts_ns < high}  # type: ignore[union-attr]
        assert wanted <= {trade.trade_id for trade in trades}
        assert (await system.facts()).count("capture.gap-repaired.v1") == 1
        lines = await queries.gaps(await freshest_views(None, system.journal), "kalshi")
        (line,) = [one for one in lines if one.repairs]
        assert [(one.source, one.records) for one in line.repairs] == [("kalshi-rest", len(repaired))]
        assert line.cause == "connection-lost"


class Asked:
    """A repairer that notes what it is asked, and fails as it is told."""

    def __init__(self, *failures: SsmdError) -> None:
        self.gaps: list[GapToRepair] = []
        self._failures = list(failures)

    async def repair(self, gap: GapToRepair, tape: Path, write: Callable[[Sequence[Repair]], Awaitable[None]]) -> int:
        del tape, write
        self.gaps.append(gap)
        if self._failures:
            raise self._failures.pop(0)
        return 1


def repairs_of(tmp_path: Path, asked: Asked) -> GapRepairs:
    repairs = GapRepairs(tmp_path, asked, lambda: None, system_random, structlog.get_logger(), settle_s=0.0)
    repairs.captures(Subscription(("orderbook_delta", "trade", "market_lifecycle_v2"), ("A", "B", "C")))
    return repairs


def closed(gap_id: str, *tickers: str, end_ns: int = 5 * S) -> GapClosed:
    return GapClosed(2, 1, 0, 9 * S, gap_id, 1 * S, end_ns, tickers)


async def ran(repairs: GapRepairs, is_done: Callable[[], bool]) -> None:
    task = asyncio.create_task(repairs.run())
    try:
        await until(is_done, "repaired", task)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_the_parts_of_a_gap_are_repaired_together_and_what_cannot_be_is_left(tmp_path: Path) -> None:
    asked = Asked()
    repairs = repairs_of(tmp_path, asked)
    lifecycle = GapOpened(2, 1, 0, 9 * S, "1-4-3", "sequence-jump", S, "market_lifecycle_v2", 3, 4, 5, (), "")
    repairs.offer([lifecycle, closed("1-4-3"), closed("1-9", "*", "B"), closed("1-9", "A", end_ns=7 * S), closed("1-8", "*")])
    assert repairs.stats() == {"repairs_waiting": 1, "repaired": 0, "repairs_given_up": 0}
    await ran(repairs, lambda: repairs.repaired == 1)
    assert asked.gaps == [GapToRepair("1-9", S, 7 * S, "", ("A", "B"))]


async def test_what_waits_survives_a_kill_and_what_is_done_does_not_come_again(tmp_path: Path) -> None:
    repairs_of(tmp_path, Asked()).offer([closed("1-9", "A")])
    asked = Asked()
    again = repairs_of(tmp_path, asked)
    await ran(again, lambda: again.repaired == 1 and not again.waiting)
    assert asked.gaps == [GapToRepair("1-9", S, 5 * S, "", ("A",))]
    third = repairs_of(tmp_path, Asked())
    assert third._kept() == []


async def test_a_torn_list_of_what_waits_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "repairs.json").write_bytes(b'[["1-9",')
    asked = Asked()
    repairs = repairs_of(tmp_path, asked)
    assert repairs._kept() == []
    repairs.offer([closed("1-7", "B")])
    await ran(repairs, lambda: repairs.repaired == 1)
    assert asked.gaps == [GapToRepair("1-7", S, 5 * S, "", ("B",))]


async def test_a_venue_that_is_away_is_asked_again_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gap_repairs, "RETRY_FIRST_S", 0.001)
    patient = Asked(Unavailable("503"), Unavailable("503"))
    repairs = repairs_of(tmp_path, patient)
    repairs.offer([closed("1-9", "A")])
    await ran(repairs, lambda: repairs.repaired == 1)
    assert len(patient.gaps) == 3
    hopeless = Asked(*[Unavailable("503")] * 20, Rejected("kalshi-bad-key", "401"))
    repairs = repairs_of(tmp_path, hopeless)
    repairs.offer([closed("1-9", "A")])
    await ran(repairs, lambda: repairs.given_up == 1 and not repairs.waiting)
    assert len(hopeless.gaps) == gap_repairs.TRIES_MAX


async def test_a_refusal_is_final_and_the_next_gap_is_repaired(tmp_path: Path) -> None:
    asked = Asked(Rejected("gap-too-long", "7 h"))
    repairs = repairs_of(tmp_path, asked)
    repairs.offer([closed("1-9", "A"), closed("1-10", "B")])
    await ran(repairs, lambda: repairs.given_up + repairs.repaired == 2)
    assert (repairs.given_up, repairs.repaired, repairs._kept()) == (1, 1, [])


async def test_no_more_gaps_wait_than_there_is_room_for(tmp_path: Path) -> None:
    repairs = repairs_of(tmp_path, Asked())
    repairs.offer([closed(f"1-{number}", "A") for number in range(gap_repairs.WAITING_MAX + 3)])
    assert (repairs.waiting, repairs.given_up) == (gap_repairs.WAITING_MAX, 3)
