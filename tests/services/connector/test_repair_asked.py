"""The second line: a gap that a connector forgot is found in the views and asked for over its real control subject."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from tests.services.connector import test_group
from tests.services.connector.test_connector import QUICK, Bench, bench, until
from tests.services.connector.test_group import group_of, running

from ssmd.errors import Malformed, Rejected, Unavailable
from ssmd.identifiers import system_random
from ssmd.projections.queries import GapLine
from ssmd.projections.views import freshest_views
from ssmd.registry.documents import Capture, EnvironmentDocument
from ssmd.schemas.records import Trade
from ssmd.services.connector import gap_repairs
from ssmd.services.connector.repair_request import RepairRequest
from ssmd.services.simulator.config import FaultOrder, SimulatorConfig
from ssmd.streams.control import ControlClient, ControlServer
from ssmd.wiring.day_steps import ComponentName
from ssmd.wiring.gap_repair import Wanted, dates_of, gaps_to_repair, repair_of

DOCUMENT = EnvironmentDocument(name="kalshi-test", feed="kalshi", schema="market:1", capture=Capture(endpoint="simulator"))


async def left_of(system: Bench) -> list[GapLine]:
    views = await freshest_views(None, system.journal)
    return await gaps_to_repair(views, "kalshi", Wanted(), system.clock.now_ns())


async def test_a_gap_that_was_forgotten_is_found_and_asked_for_and_comes_once(
    tmp_path: Path, transport_url: str, fresh_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Away for long enough to miss trades; and the first line of defence does not come to it.
    monkeypatch.setattr(test_group, "QUICK", QUICK._replace(backoff_first_s=1.5))
    monkeypatch.setattr(gap_repairs.GapRepairs.__init__, "__defaults__", (3_600.0,))
    faults = (FaultOrder(kind="drop-connection", after_frames=300),)
    config = SimulatorConfig(seed=4, markets=3, rate=300, require_auth=False, faults=faults)
    async with bench(tmp_path, config) as system:
        group = group_of(system, room=100)
        async with running(group) as task:
            await until(lambda: int(group.health().stats.get("repairs_waiting", 0)) > 0, "a gap is over", task)
            await group.flush()
            (gap,) = await left_of(system)
            assert (gap.connection, gap.cause, gap.repairs) == ("main", "connection-lost", ())
            server = ControlServer(
                transport_url, fresh_env, "connector", "main", {}, version="0.9.0", random=system_random,
                questions=group.questions(),
            )  # fmt: skip
            serving = asyncio.create_task(server.run())
            client = await ControlClient.open(transport_url, fresh_env)
            try:
                async with asyncio.timeout(60):
                    while not await client.roll_call(0.1, expected=1):
                        pass
                repair = repair_of(DOCUMENT, [ComponentName("connector", "main")], client)
                assert sorted(await asyncio.gather(repair(gap), repair(gap))) == ["already", "repaired"]
                # What was answered for is journaled, so nothing is left, and who looks again does not even ask.
                assert await left_of(system) == []
                views = await freshest_views(None, system.journal)
                (known,) = await gaps_to_repair(views, "kalshi", Wanted(gap_id=gap.gap_id), system.clock.now_ns())
                assert [one.source for one in known.repairs] == ["kalshi-rest"]
                assert await repair(known) == "already"
                with pytest.raises(Rejected, match="there is no connection 'main-7' now; there are: main") as refused:
                    await repair(msgspec.structs.replace(gap, connection="main-7"))
                assert refused.value.rule == "no-such-connection"
                long = msgspec.structs.replace(gap, gap_id="x", start_ns=gap.start_ns - 7 * 3_600 * 10**9)
                with pytest.raises(Rejected, match=r"gap x began at .*, the tape reaches back to ") as before:
                    await repair(long)
                assert (before.value.rule, before.value.mend) == ("gap-before-tape", "ssmd data backfill")
                answer = await client.request("connector", "main", "repair", 5, b"[]")
                assert (answer["ok"], answer["kind"]) == (False, Malformed.__name__)
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                await client.close()
        trades = [record for record in system.records() if isinstance(record, Trade)]
        assert set(Counter(trade.trade_id for trade in trades).values()) == {1}
        assert [trade for trade in trades if (trade.sid, trade.seq) == (0, 0)]
        assert (await system.facts()).count("capture.gap-repaired.v1") == 1


async def test_without_a_session_a_gap_is_for_later(tmp_path: Path) -> None:
    async with bench(tmp_path, SimulatorConfig(require_auth=False)) as system:
        group = group_of(system, room=100)
        group._start_member()
        with pytest.raises(Unavailable, match="no session is open to write a repair to"):
            await group.questions()["repair"](msgspec.json.encode(RepairRequest("main", "1-9", 1, 2)))


async def test_dates_of_the_window_are_utc_and_end_today() -> None:
    assert dates_of(Wanted(), 1_778_760_000 * 10**9) == [f"2026-05-{day:02}" for day in range(14, 7, -1)]
    assert dates_of(Wanted("2026-05-01"), 0) == ["2026-05-01"]
