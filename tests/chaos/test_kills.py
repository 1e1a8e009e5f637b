"""Every named crash point, and every process and server at random instants, against real processes and servers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ssmd import crash_points
from ssmd.clock import SystemClock
from ssmd.identifiers import system_random
from ssmd.services.chaos.plan import TARGETS, Wave, every_crash_point, random_kills
from ssmd.settings import variables
from ssmd.wiring.chaos import Chaos, ChaosReport

SEED = 20261122


async def run(directory: Path, waves: list[Wave]) -> ChaosReport:
    told: list[str] = []
    chaos = Chaos(dict(variables()), SystemClock(), system_random, told.append, seed=SEED)
    report = await chaos.run(directory / "workspace", waves)
    broken = [f"{check.name}: {check.detail}" for check in report.checks if not check.is_ok]
    assert broken == [], f"seed {SEED}, in {directory}"
    shutil.rmtree(directory / "workspace")
    return report


@pytest.mark.timeout(280)
async def test_killed_at_every_named_crash_point_everything_is_archived_once_and_told(tmp_path: Path) -> None:
    report = await run(tmp_path, every_crash_point(seed=SEED))
    hit = sorted((strike.target, strike.point) for strike in report.strikes)
    assert hit == sorted((component, point) for component, points in crash_points.OF_COMPONENT.items() for point in points)
    kinds = {check.name.split(",")[0] for check in report.checks if check.name.startswith("archive of ")}
    # A run that takes long enough sees a market change its status, too.
    assert kinds - {"archive of status"} == {
        f"archive of {kind}" for kind in ("raw", "book", "snapshot", "trade", "quote", "gap")
    }
    assert report.entries > 1000
    assert report.sessions >= 9  # one for each death of the connector, and one before


@pytest.mark.timeout(280)
async def test_killed_at_random_instants_everything_is_archived_once_and_told(tmp_path: Path) -> None:
    report = await run(tmp_path, random_kills(3, seed=SEED))
    assert sorted(strike.target for strike in report.strikes) == sorted(3 * TARGETS)
    assert report.sessions >= 4
