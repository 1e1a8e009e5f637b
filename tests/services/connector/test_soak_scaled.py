"""The soak of benchmarks/soak_connector.py at a small scale: it runs, and what must hold is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_many_markets_and_a_load_at_a_small_scale(tmp_path: Path) -> None:
    output = tmp_path / "connector.json"
    scale = ["--markets", "1500", "--churn", "0", "--seconds", "5", "--rate", "1500", "--output", str(output)]
    argv = [sys.executable, str(ROOT / "benchmarks" / "soak_connector.py"), *scale]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    figures = json.loads(output.read_text())["figures"]
    assert (figures["markets"]["markets"], figures["markets"]["unplaced"]) == (1500, 0)
    assert figures["markets"]["subscribed_s"] <= 60
    assert figures["load"]["frames_s"] > 300
    fewest, most = figures["load"]["tasks"]
    assert most - fewest <= 2
