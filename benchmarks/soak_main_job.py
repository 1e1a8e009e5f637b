"""The main job over and over, as users run it: the staged demo, and the genuine capture where it is present.

    python benchmarks/soak_main_job.py [--rounds 5]

Every round checks what the demo claims of itself: answers rebuilt equal, the hole of the kill named and closed, all
frames of the capture in the archive. Writes docs/measurements/main-job.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _measurement import MEASUREMENTS, write_measurement

ROOT = Path(__file__).resolve().parents[1]
GENUINE = ROOT.parent / "shared" / "captures" / "kalshi-btc15m-2026-05-14.jsonl.zst"
GENUINE_FRAMES = 102_555
OUTPUT = MEASUREMENTS / "main-job.json"


def run_demo(directory: Path, *arguments: str) -> tuple[float, dict[str, Any]]:
    """One demo; wall seconds and its report."""
    argv = [sys.executable, "-m", "ssmd", "demo", "--keep", str(directory), "-o", "json", *arguments]
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"the demo failed with status {done.returncode}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began, json.loads(done.stdout)


def staged(directory: Path) -> dict[str, Any]:
    wall_s, report = run_demo(directory)
    gap = next(gap for gap in report["answers"]["gaps"] if gap["cause"] == "killed")
    return {
        "wall_s": round(wall_s, 1),
        "frames": report["frames"],
        "rebuilt_equal": report["is_rebuilt_equal"],
        "gap_ms": (gap["end_ns"] - gap["start_ns"]) // 1_000_000 if gap["end_ns"] else None,
    }


def captured(directory: Path) -> dict[str, Any]:
    wall_s, report = run_demo(directory, "--capture", str(GENUINE))
    return {"wall_s": round(wall_s, 1), "frames": report["frames"], "records": report["records"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    demos, captures = [], []
    with tempfile.TemporaryDirectory() as directory:
        for number in range(rounds):
            demos.append(staged(Path(directory) / "demo"))
            print(f"demo {number + 1}/{rounds}: {demos[-1]}", flush=True)
            if GENUINE.exists():
                captures.append(captured(Path(directory) / "capture"))
                print(f"capture {number + 1}/{rounds}: {captures[-1]}", flush=True)
    is_good = all(one["rebuilt_equal"] and one["gap_ms"] is not None for one in demos) and all(
        one["frames"] == GENUINE_FRAMES for one in captures
    )
    write_measurement(OUTPUT, seed=7, rounds=rounds, figures={"demo": demos, "genuine_capture": captures}, is_good=is_good)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
