"""The soak of benchmarks/soak_connector.py at a small scale: it runs, and what must hold is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SLOPE_MAX_MB_H = 120
"""Two minutes tell no less: some 3 MB over the measured part. (A tape reader that tore holes into the heap had 300.)"""


def soak(output: Path, *arguments: str) -> dict[str, Any]:
    argv = [sys.executable, str(ROOT / "benchmarks" / "soak_connector.py"), *arguments, "--output", str(output)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    figures: dict[str, Any] = json.loads(output.read_text())["figures"]
    return figures


def test_many_markets_are_subscribed_at_a_small_scale(tmp_path: Path) -> None:
    found = soak(tmp_path / "markets.json", "--markets", "1500", "--churn", "0", "--only", "markets")["markets"]
    assert (found["markets"], found["unplaced"]) == (1500, 0)
    assert found["subscribed_s"] <= 60
    assert found["sessions"] == found["connections"]


@pytest.mark.timeout(240)
def test_two_minutes_at_a_fortieth_of_the_load_cost_no_memory_no_task_and_no_backlog(tmp_path: Path) -> None:
    """Markets live for 20 seconds: hundreds come and go, which the hour at full load has not that often."""
    found = soak(tmp_path / "load.json", "--only", "load", "--seconds", "120", "--rate", "160", "--roll", "20")["load"]
    assert found["seconds"] == 120
    assert found["frames_s"] > 100
    assert found["sessions"] == 1
    fewest, most = found["tasks"]
    assert most - fewest <= 2
    assert found["backlog_max"] <= 500
    assert abs(found["rss_slope_mb_h"]) <= SLOPE_MAX_MB_H
