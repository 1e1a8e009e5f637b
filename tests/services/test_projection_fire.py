"""A short run of the soak: rebuilds under writers, a live projector and a reader, with the cache flushed and killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "soak_projections.py"


def test_readers_see_no_mixture_and_never_go_back_while_the_cache_dies(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    command = [sys.executable, str(SCRIPT), "--rounds", "4", "--rate", "400", "--seed", "7", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(output.read_text(encoding="utf-8"))
    figures = report["figures"]
    assert (report["verdict"], figures["rebuilds"], sum(figures["outcomes"].values())) == ("holds", 4, 4)
    assert (figures["mixtures"], figures["positions_backwards"], figures["reads_other_errors"]) == (0, 0, {})
    assert (figures["verified"], figures["wrong_fold"]) == (True, "diverged")
    assert {kind.split()[0] for kind in figures["struck"]} == {"flush", "kill"}
