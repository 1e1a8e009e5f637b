"""Every named crash point, and every process and server at random instants, against real processes and servers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ssmd import crash_points
from ssmd.clock import SystemClock
from ssmd.identifiers import system_random
from ssmd.services.chaos.plan import TARGETS, every_crash_point, random_kills
from ssmd.settings import variables
from ssmd.wiring import chaos
from ssmd.wiring.chaos import Chaos

SEED = 20261122


@pytest.mark.timeout(400)
async def test_killed_at_every_crash_point_and_at_random_instants_everything_is_archived_once_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One system for both: starting one takes as long as a wave of kills."""
    monkeypatch.setattr(chaos, "CALM_S", 0.2)
    told: list[str] = []
    killed = Chaos(dict(variables()), SystemClock(), system_random, told.append, seed=SEED)
    waves = [*every_crash_point(seed=SEED), *random_kills(3, seed=SEED)]
    report = await killed.run(tmp_path / "workspace", waves)
    broken = [f"{check.name}: {check.detail}" for check in report.checks if not check.is_ok]
    assert broken == [], f"seed {SEED}, in {tmp_path}"
    hit = sorted((strike.target, strike.point) for strike in report.strikes if strike.point)
    assert hit == sorted((component, point) for component, points in crash_points.OF_COMPONENT.items() for point in points)
    assert sorted(strike.target for strike in report.strikes if not strike.point) == sorted(3 * TARGETS)
    kinds = {check.name.split(",")[0] for check in report.checks if check.name.startswith("archive of ")}
    # A run that takes long enough sees a market change its status, too.
    assert kinds - {"archive of status"} == {
        f"archive of {kind}" for kind in ("raw", "book", "snapshot", "trade", "quote", "gap")
    }
    assert report.entries > 1000
    assert report.sessions >= 10  # one for each death of the connector but those before it had one, and one before
    shutil.rmtree(tmp_path / "workspace")
