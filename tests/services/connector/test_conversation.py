"""Commands go out in order, within the budget, on the tape first; what finds no room is left to be asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.services.connector.test_connector import bench, until
from tests.services.connector.test_group import group_of, has_all, running

from ssmd.exchanges.kalshi.simulated.market_orders import VenueOrder
from ssmd.services.connector import conversation as module
from ssmd.services.connector.conversation import BURST_S, Conversation
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.seeded_feed import SeededFeed


class Ends:
    """Recorder, socket and protocol in one: what was written and sent, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, bytes, float]] = []
        self.unplaced = 0
        self.failure = ""

    def command(self, text: bytes) -> None:
        self.done.append(("tape", text, asyncio.get_running_loop().time()))

    def send(self, text: bytes) -> None:
        self.done.append(("socket", text, asyncio.get_running_loop().time()))

    def sent(self) -> list[tuple[bytes, float]]:
        return [(text, at_s) for where, text, at_s in self.done if where == "socket"]


def talk(ends: Any, commands_s: float) -> Conversation:
    return Conversation(ends, ends, ends, commands_s)


def numbered(count: int) -> Sequence[bytes]:
    return [b"%d" % number for number in range(count)]


async def test_no_more_commands_than_the_budget_go_out_in_any_second_and_none_is_lost() -> None:
    ends, rate = Ends(), 100
    held = talk(ends, rate)
    held.say(numbered(40))
    held.say(numbered(160)[40:])
    async with asyncio.timeout(60):
        while held._waiting:
            await asyncio.sleep(0.01)
    sent = ends.sent()
    assert [text for text, _ in sent] == numbered(160)
    assert held.left_out == 0
    # Each is on the tape before it is on the wire.
    assert ends.done[::2] == [("tape", text, at_s) for _, text, at_s in ends.done[::2]]
    assert [text for _, text, _ in ends.done[::2]] == [text for _, text, _ in ends.done[1::2]]
    burst = rate * BURST_S
    for number, (_, at_s) in enumerate(sent):
        for later, (_, then_s) in enumerate(sent[number:], 1):
            assert later <= burst + (then_s - at_s) * rate + 1.01, (number, later, then_s - at_s)


async def test_commands_beyond_what_may_wait_are_counted_and_the_rest_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 5)
    ends = Ends()
    held = talk(ends, 2)
    held.say(numbered(8))
    assert (held.left_out, len(held._waiting)) == (3, 4)  # one went out at once
    held.close()
    assert not held._waiting
    assert [text for text, _ in ends.sent()] == [b"0"]


async def test_markets_that_come_one_by_one_in_a_crowd_stay_within_what_the_venue_allows(tmp_path: Path) -> None:
    """Each market that is announced is a command or two: more than the venue takes in a second, were they all sent."""
    config = SimulatorConfig(seed=2, markets=4, rate=50, require_auth=False, commands_s=40)
    async with bench(tmp_path, config) as system:
        feed = cast("SeededFeed", system.simulator._feed)
        group = group_of(system, room=1_000, commands_s=25)
        refused = []
        answer = feed.command

        def noted(connection: Any, text: bytes) -> None:
            second = int(asyncio.get_running_loop().time())
            since, count = feed._commands.get(connection, (second, 0))
            refused.append(since == second and count >= config.commands_s)
            answer(connection, text)

        feed.command = noted  # type: ignore[method-assign]
        async with running(group) as task:
            await until(lambda: has_all(group, 4), "all markets placed", task)
            for _ in range(30):
                feed.order(VenueOrder(kind="list"))
                group.universe.take(group._members[0].news().changes)
                group._assign()
                await asyncio.sleep(0.01)
            await until(lambda: has_all(group, 34), "all that came, too", task)
            asked = msgspec.json.decode(msgspec.json.encode(group.health().stats))
        assert len(refused) > 30
        assert not any(refused)
        assert (asked["unplaced"], asked["sessions"]) == (0, 1)
