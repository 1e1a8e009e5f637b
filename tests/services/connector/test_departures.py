"""Markets that are not captured any more end their holes: told once, kept over a restart, and never too early."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import structlog
from tests.services.connector.test_connector import bench, kill, running, until

from ssmd.domain.capture import GapClosed, GapOpened
from ssmd.errors import Unavailable
from ssmd.exchanges.adapter import Subscription
from ssmd.schemas.control import MarketsLeft
from ssmd.schemas.records import Gap, Record
from ssmd.services.connector import departures
from ssmd.services.connector.departures import SETTLE_S, Departures
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.seeded_feed import SeededFeed
from ssmd.streams.publisher import NOWHERE, EntryPlace

LOG = structlog.get_logger()


def opened(*tickers: str, gap_id: str = "7-9", channel: str = "") -> GapOpened:
    return GapOpened(7, 9, 0, 100, gap_id, "killed", 50, channel, 0, 0, 0, tickers, "the tape ends")


def closed(*tickers: str, gap_id: str = "7-9") -> GapClosed:
    return GapClosed(7, 9, 0, 100, gap_id, 50, 100, tickers)


def left(*tickers: str, gap_id: str = "7-9", channel: str = "") -> MarketsLeft:
    return MarketsLeft(gap_id, "killed", 50, tickers, channel)


def told(found: Departures, *wanted: str, age_s: float = SETTLE_S) -> list[MarketsLeft]:
    facts: list[MarketsLeft] = []
    found.want(wanted)
    found.tell(age_s, facts.append, NOWHERE, NOWHERE)
    return facts


def test_who_did_not_come_back_and_is_not_wanted_is_told_once(tmp_path: Path) -> None:
    found = Departures(tmp_path, LOG)
    found.offer([opened("*", "A", "B", "C", "D"), closed("A")])
    assert told(found, "A", "B", age_s=SETTLE_S - 1) == []
    assert told(found, "A", "B") == [left("C", "D")]
    assert told(found, "A", "B") == []
    assert told(found, "A") == [left("B")]  # it settled now
    assert found.waiting == 3
    found.offer([closed("B", "C", "D")])
    assert (found.waiting, told(found)) == (0, [])


def test_holes_between_sessions_outlive_a_restart_and_those_within_one_do_not(tmp_path: Path) -> None:
    before = Departures(tmp_path, LOG)
    before.offer([opened("A", "B"), opened("C", gap_id="7-8", channel="orderbook_delta"), closed("B")])
    assert told(before) == [left("A"), left("C", gap_id="7-8", channel="orderbook_delta")]
    # Nothing was mapped of what was told: it is told again.
    after = Departures(tmp_path, LOG)
    assert told(after) == [left("A")]
    after.offer([closed()])
    assert Departures(tmp_path, LOG).waiting == 0


def test_a_channel_without_tickers_leaves_nothing_to_tell(tmp_path: Path) -> None:
    found = Departures(tmp_path, LOG)
    found.offer([opened("*"), opened(gap_id="7-8", channel="trade"), closed("A", gap_id="of no hole known")])
    assert (found.waiting, told(found)) == (0, [])
    assert not (tmp_path / "departures.json").exists()


def test_what_could_not_be_written_is_due_again(tmp_path: Path) -> None:
    found = Departures(tmp_path, LOG)
    found.offer([opened("A")])

    def full(_: MarketsLeft) -> None:
        raise Unavailable("the disk is full")

    found.want(())
    found.tell(SETTLE_S, full, NOWHERE, NOWHERE)
    assert told(found) == [left("A")]


def test_a_session_knows_whom_it_wants_from_its_subscription(tmp_path: Path) -> None:
    def found_for(subscription: Subscription) -> list[MarketsLeft]:
        found, facts = Departures(tmp_path, LOG), list[MarketsLeft]()
        found.captures(subscription)
        found.offer([opened("A", "B")])
        found.tell(SETTLE_S, facts.append, NOWHERE, NOWHERE)
        return facts

    assert found_for(Subscription(("trade",), ())) == []  # all markets there are
    assert found_for(Subscription(("trade",), ("A",))) == [left("B")]
    assert found_for(Subscription(("trade",), (), is_followed=True)) == [left("A", "B")]


def test_nothing_is_told_while_the_tape_is_not_mapped(tmp_path: Path) -> None:
    found, facts = Departures(tmp_path, LOG), list[MarketsLeft]()
    found.offer([opened("A", "B")])
    found.want(())
    found.tell(1, facts.append, EntryPlace(9, 40), NOWHERE)
    found.tell(SETTLE_S, facts.append, EntryPlace(9, 80), EntryPlace(9, 39))
    assert facts == []  # "A" may have come back in entry 40
    found.offer([closed("A")])
    found.tell(SETTLE_S, facts.append, EntryPlace(9, 90), EntryPlace(9, 40))
    assert facts == [left("B")]


def test_many_tickers_come_in_several_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "TICKERS_MAX", 2)
    found = Departures(tmp_path, LOG)
    found.offer([opened("E", "A", "D", "B", "C")])
    assert told(found) == [left("A", "B"), left("C", "D"), left("E")]


def test_holes_are_remembered_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "HOLES_MAX", 2)
    found = Departures(tmp_path, LOG)
    found.offer([opened("A", gap_id="1"), opened("B", gap_id="2"), opened("C", gap_id="3")])
    assert [fact.gap_id for fact in told(found)] == ["2", "3"]


def test_a_file_that_cannot_be_read_is_no_reason_not_to_capture(tmp_path: Path) -> None:
    (tmp_path / "departures.json").write_text("[{")
    assert Departures(tmp_path, LOG).waiting == 0


async def test_a_hole_ends_for_who_settled_meanwhile_though_the_process_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departures, "SETTLE_S", 0.3)
    async with bench(tmp_path, SimulatorConfig(seed=4, markets=4, rate=300, require_auth=False)) as system:
        connector = system.connector()
        async with running(connector) as task:
            await until(lambda: int(connector.health().stats["frames"]) > 50, "frames", task)
            await kill(task, connector)
        settled, *others = sorted(cast("SeededFeed", system.simulator._feed).model.markets)
        cast("SeededFeed", system.simulator._feed).model.markets[settled].phase = "finalized"
        again = system.connector()
        async with running(again) as task:
            await until(lambda: settled in closings(system.records()), "the hole is over for the market that left", task)
            await until(lambda: set(others) <= closings(system.records()).keys(), "and for those that came back", task)
            await until(lambda: not (tmp_path / "tape" / "departures.json").read_bytes().strip(b"[]"), "nobody is owed", task)
        found = closings(system.records())
        assert {(gap.cause, gap.gap_id) for gap in found.values()} == {("killed", found[settled].gap_id)}
        assert "does not capture them any more" in found[settled].evidence
        assert max(found[ticker].end_ns for ticker in others) < found[settled].end_ns


def closings(records: list[Record]) -> dict[str, Gap]:
    return {record.ticker: record for record in records if isinstance(record, Gap) and record.state == "closed"}
