"""The connections of one connector: a venue that refuses for now loses no market, and a full connection gives to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.services.connector.test_connector import ENV, QUICK, Bench, bench, until

from ssmd.application.handler import Application
from ssmd.domain.catalogue import CATALOGUE
from ssmd.exchanges.kalshi import asked
from ssmd.identifiers import system_random
from ssmd.services.connector import group as groups
from ssmd.services.connector import kalshi_listing
from ssmd.services.connector.group import ConnectorGroup
from ssmd.services.connector.kalshi_venue import KalshiAccess
from ssmd.services.connector.service import ConnectorService
from ssmd.services.connector.universe import Selection, Universe
from ssmd.services.connector.venue import Venue
from ssmd.services.kalshi_rest.client import RestSettings
from ssmd.services.simulator.config import FaultOrder, SimulatorConfig

CHANNELS = ("orderbook_delta", "trade", "market_lifecycle_v2")


def group_of(
    system: Bench,
    selection: Selection = Selection(),  # noqa: B008 - immutable
    *,
    room: int,
    channels: tuple[str, ...] = CHANNELS,
    commands_s: float = 200.0,
) -> ConnectorGroup:
    access = KalshiAccess(
        rest_url=system.simulator.rest_url,
        websocket_url=system.simulator.websocket_url,
        channels=channels,
        tickers=(),
        tickers_max=1000,
        clock=system.clock,
    )
    application = Application(system.journal, CATALOGUE, system.clock, system_random)

    def member(connection: str, venue: Venue) -> ConnectorService:
        tape = system.directory / connection
        return ConnectorService(venue, ENV, connection, tape, system.transport, application, system.clock, system_random, QUICK)

    return ConnectorGroup(
        replace(access.venue("kalshi", "kalshi-dollars"), commands_s=commands_s),
        Universe(selection, access.listing()),
        member,
        system_random,
        instance="main",
        channels=channels,
        tickers_per_connection=room,
    )


@asynccontextmanager
async def running(group: ConnectorGroup) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(group.run())
    try:
        yield task
    finally:
        await group.stop()
        async with asyncio.timeout(60):
            await asyncio.gather(task, return_exceptions=True)


def placed(group: ConnectorGroup) -> dict[str, frozenset[str]]:
    """Market -> the channels that carry it, over all connections; a market on two connections would show twice."""
    found: dict[str, list[str]] = {}
    for member in group._members:
        talk = member._conversation
        subs: Any = talk.protocol._subs.by_sid.values() if talk is not None else ()  # type: ignore[attr-defined]
        for sub in subs:
            for ticker in sub.tickers:
                found.setdefault(ticker, []).append(sub.channel)
    assert all(len(set(channels)) == len(channels) for channels in found.values())
    return {ticker: frozenset(channels) for ticker, channels in found.items()}


def has_all(group: ConnectorGroup, count: int) -> bool:
    both = frozenset({"orderbook_delta", "trade"})
    found = placed(group)
    stats = group.health().stats
    return len(found) == count and set(found.values()) == {both} and stats["unplaced"] == 0


async def test_markets_are_shared_among_as_many_connections_as_they_need(tmp_path: Path) -> None:
    async with bench(tmp_path, SimulatorConfig(seed=2, markets=10, rate=50, require_auth=False)) as system:
        group = group_of(system, room=4)
        async with running(group) as task:
            await until(lambda: has_all(group, 10), "all markets placed", task)
            assert [member.instance for member in group._members] == ["main", "main-2", "main-3"]
            assert group.health().stats["connections"] == 3
            lifecycle = [
                sum(sub.channel == "market_lifecycle_v2" for sub in member._conversation.protocol._subs.by_sid.values())  # type: ignore[union-attr]
                for member in group._members
            ]
            assert lifecycle == [1, 0, 0]


@pytest.mark.parametrize("kind", ["rest-429", "rest-503", "cursor-loop", "half-page"])
async def test_a_listing_that_is_refused_for_now_loses_no_market(
    tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "REFRESH_SOON_S", 0.2)
    # Pages that lead in circles, and less patience than the venue asks for: the listing itself has to be read again.
    monkeypatch.setattr(kalshi_listing, "PAGE_LIMIT", 2)
    monkeypatch.setattr(kalshi_listing, "PATIENCE", RestSettings(tries_max=2, pause_first_s=0.005, pause_max_s=0.01))
    faults = (FaultOrder(kind=kind, count=6, path="/markets"),)
    async with bench(tmp_path, SimulatorConfig(seed=2, markets=6, rate=50, require_auth=False, faults=faults)) as system:
        group = group_of(system, room=100)
        async with running(group) as task:
            await until(lambda: has_all(group, 6), "all markets placed", task)
            assert group.health().ok, group.health().reason
            assert system.simulator._faults.fired == {kind: 6}


async def test_commands_handshakes_and_calls_refused_in_a_storm_lose_no_market(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "ANSWER_S", 1.0)
    monkeypatch.setattr(asked, "WAIT_FIRST_S", 0.1)
    faults = (
        FaultOrder(kind="handshake-429", count=3),
        FaultOrder(kind="command-refused", count=3),
        FaultOrder(kind="command-timeout", count=2),
        FaultOrder(kind="command-lost", count=1),
        FaultOrder(kind="rest-429", count=2),
    )
    async with bench(tmp_path, SimulatorConfig(seed=2, markets=9, rate=50, require_auth=False, faults=faults)) as system:
        group = group_of(system, room=5)
        async with asyncio.timeout(60), running(group) as task:
            while not has_all(group, 9):
                assert not task.done(), task.result()
                await asyncio.sleep(0.1)


async def test_what_a_full_connection_does_not_take_moves_to_another_one(tmp_path: Path) -> None:
    # Of a session's markets those of all its subscriptions count: books and trades of 4, and one more.
    config = SimulatorConfig(seed=2, markets=10, rate=50, require_auth=False, session_markets_max=9)
    async with bench(tmp_path, config) as system:
        group = group_of(system, room=100)
        async with running(group) as task:
            await until(lambda: has_all(group, 10), "all markets placed", task)
            assert len(group._members) > 1
            assert group.health().ok, group.health().reason
            sessions = group.health().stats["sessions"]
            assert sessions == len(group._members)  # nobody was disconnected for it


async def test_a_list_of_markets_is_divided_too(tmp_path: Path) -> None:
    async with bench(tmp_path, SimulatorConfig(seed=2, markets=5, rate=50, require_auth=False)) as system:
        assert system.simulator._feed is not None
        names = tuple(system.simulator._feed.model.markets)[:3]  # type: ignore[union-attr]
        group = group_of(system, Selection(tickers=names), room=2)
        async with running(group) as task:
            await until(lambda: has_all(group, 3), "all markets placed", task)
            assert placed(group).keys() == set(names)
            assert len(group._members) == 2
