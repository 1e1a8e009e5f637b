"""Trading days through the schedule of a real Temporal server, with real parts, in trouble: journal and archive are those of
a calm week but for what tells the trouble, and no step is done twice. The whole week: benchmarks/soak_week.py."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from tests.s3_server import S3Server
from tests.workflows.real_week import RealWeek, Servers, dates
from tests.workflows.week_life import calm_turn, live
from tests.workflows.week_record import WeekRecord, compare

from ssmd.services import stream_archiver
from ssmd.services.connector import gap_repairs, service
from ssmd.services.embedded_servers import RunningServer

DAYS = dates(3)


@pytest.mark.timeout(240)
async def test_days_of_trouble_are_calm_days_but_for_what_tells_the_trouble(
    journal_url: str,
    transport_url: str,
    cache_url: str,
    temporal_server: RunningServer,
    s3_server: S3Server,
    fresh_env: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_archiver, "FLUSH_TIMEOUT_S", 0.3)
    # A clock that stands still knows no settling, and who waits for the venue needs no growing patience.
    monkeypatch.setattr(gap_repairs, "SETTLE_S", 0.1)
    monkeypatch.setattr(service, "backoff_s", lambda *_args, **_given: 0.2)
    servers = Servers(journal_url, transport_url, cache_url, temporal_server.url, s3_server)
    first, second, third = DAYS
    killed = [f"done sync start {first}"]

    async def worker_killed(week: RealWeek, day: str) -> None:
        week.worker.arm(killed)
        await calm_turn(week, day)

    async def venue_away(week: RealWeek, day: str) -> None:
        await week.midnight(day)
        await week.outage(day)

    async def s3_away(week: RealWeek, day: str) -> None:
        week.s3.fault = "away"
        await week.midnight(day)
        await week.without_s3(second, day)

    async def calm_days() -> WeekRecord:
        async with RealWeek(f"{fresh_env}-a", tmp_path / "calm", servers, workers=0) as week:
            return await live(week, DAYS, {second})

    async def troubled_days() -> WeekRecord:
        async with RealWeek(f"{fresh_env}-b", tmp_path / "troubled", servers) as week:
            record = await live(week, DAYS, {second}, {first: worker_killed, second: venue_away, third: s3_away})
            assert week.worker.hits == killed
            return record

    wanted, found = await asyncio.gather(calm_days(), troubled_days())
    comparison = compare(wanted, found, outage=second)
    assert comparison.differing == [], "\n".join(comparison.differing)
    assert comparison.twice == []
    telling = Counter(comparison.telling)
    assert telling.pop(("kalshi", "secmaster-sync.failed.v1")) >= 1
    # The venue was away when the second day was started, S3 when it was ended.
    assert set(telling) == {(second, "trading-day.errored.v1"), (second, "trading-day.recovered.v1")}
    assert telling[second, "trading-day.errored.v1"] == telling[second, "trading-day.recovered.v1"] >= 2
    intervals = comparison.outage.pop("capture.interval-assessed.v1")
    assert intervals > 0
    assert comparison.outage == {
        "capture.connected.v1": 1,
        "capture.disconnected.v1": 1,
        "capture.gap-closed.v1": 2,
        "capture.gap-opened.v1": 1,
        "capture.gap-repaired.v1": 1,
        "capture.subscribed.v1": 4,
    }
    # The gaps before and behind that session began on these days.
    assert comparison.gaps == {first: 1, second: 1}
    assert {one[0] for one in wanted.days() if one[1] == "trading-day.completed.v1"} == {first, second}
