"""What a soak leaves behind: one JSON document, of one form for all, in docs/measurements."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from ssmd.clock import SystemClock, date_of

ROOT = Path(__file__).resolve().parents[1]
MEASUREMENTS = ROOT / "docs" / "measurements"
_VERDICTS = {True: "holds", False: "broken", None: "measured"}


def machine() -> dict[str, Any]:
    """What may be said of the machine."""
    return {"cpus": os.cpu_count(), "python": platform.python_version(), "platform": platform.system()}


def commit() -> str:
    """The commit that is measured."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def write_measurement(
    output: Path, *, seed: int | None, rounds: Any, figures: dict[str, Any], is_good: bool | None, **more: Any
) -> dict[str, Any]:
    """Write the document to `output` and say where; what was written.

    Args:
        is_good: whether what was wanted holds; None = nothing was, it is only measured.
        more: further fields, told before the machine.
    """
    document = {
        "commit": commit(),
        "date": date_of(SystemClock().now_ns()),
        "seed": seed,
        "rounds": rounds,
        **more,
        "machine": machine(),
        "figures": figures,
        "verdict": _VERDICTS[is_good],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"{document['verdict']}: {output}", file=sys.stderr)
    return document
