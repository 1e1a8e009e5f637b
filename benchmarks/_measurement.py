"""What a soak or a benchmark leaves behind: one JSON document, of one form for all, in docs/measurements."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _table

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


def write_rows(name: str, arguments: Sequence[str], *, rounds: int, figures: dict[str, Any], **more: Any) -> int:
    """What a benchmark ends with: the rows that it printed, as docs/measurements/`name` if `--json [FILE]` is in `arguments`.

    Args:
        figures: more than the rows tell; none = their ratios.

    Returns:
        the exit status: 1 when a row does not hold, and says so.
    """
    missed = [f"{row['what']}: {row['ratio']:.2f}, wanted {row['wanted']}" for row in _table.ROWS if row["holds"] is False]
    if "--json" in arguments:
        given = [one for one in arguments[arguments.index("--json") + 1 :][:1] if not one.startswith("-")]
        output = Path(given[0]) if given else MEASUREMENTS / name
        more |= {"rows": _table.ROWS, "missed": missed}
        figures = figures or {row["what"]: row["ratio"] for row in _table.ROWS}
        write_measurement(output, seed=None, rounds=rounds, figures=figures, is_good=not missed, **more)
    for line in missed:
        _table.note(f"missed: {line}")
    return 1 if missed else 0
