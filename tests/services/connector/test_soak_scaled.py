"""The soak of benchmarks/soak_connector.py at a small scale: it runs, and what must hold is judged.

Other tests keep the machine busy meanwhile, so what is judged here is what they cannot break.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.services.connector import soak_beside

SLOPE_MAX_MB_H = 120
"""Two minutes tell no less: some 3 MB over the measured part. (A tape reader that tore holes into the heap had 300.)"""


def test_many_markets_are_subscribed_at_a_small_scale(tmp_path: Path) -> None:
    output = tmp_path / "markets.json"
    argv = [sys.executable, str(soak_beside.SCRIPT), "--markets", "1500", "--churn", "0", "--only", "markets"]
    done = subprocess.run([*argv, "--output", str(output)], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(output.read_text())["figures"]["markets"]
    assert (found["markets"], found["unplaced"]) == (1500, 0)
    assert found["subscribed_s"] <= 60
    assert found["sessions"] == found["connections"]


@pytest.mark.timeout(soak_beside.SECONDS + soak_beside.LATER_S + 30)
def test_two_minutes_at_a_fortieth_of_the_load_cost_no_memory_no_task_and_no_backlog(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Markets live for 20 seconds: hundreds come and go, which the hour at full load has not that often."""
    found = soak_beside.figures(soak_beside.directory_of(request.config, tmp_path_factory.getbasetemp()))
    assert found["seconds"] == soak_beside.SECONDS
    assert found["frames"] > 2_000
    fewest, most = found["tasks"]
    assert most - fewest <= 2
    # Peaks there are whenever the machine has other things to do; none stays.
    assert found["backlog_median"] <= 500
    assert found["backlog_last_minute"] <= 100
    assert abs(found["rss_slope_mb_h"]) <= SLOPE_MAX_MB_H
