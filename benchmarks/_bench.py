"""`make bench`: every benchmark with its default arguments, all figures in one table (`_table.py`), notes behind it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import _table

from ssmd.settings import variables

DIRECTORY = Path(__file__).resolve().parent


def main(names: list[str]) -> int:
    """Run the scripts named, or all; the worst exit status."""
    every = sorted(path for path in DIRECTORY.glob("*.py") if not path.name.startswith(("_", "soak_")))
    scripts = [path for path in every if not names or path.stem in names]
    status = 0
    notes: list[str] = []
    _table.show_heading()
    for script in scripts:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**variables(), _table.IN_TABLE: "1"},
        )
        for line in done.stdout.splitlines():
            if _table.ROW.match(line):
                print(line, flush=True)
            elif line.strip() and not line.startswith("ratio"):
                notes.append(f"{script.stem}: {line}")
        if done.returncode:
            _table.not_run(f"{script.stem}, or a figure is missed", f"it ended with status {done.returncode}, see below")
            status = 1
        notes.append(f"{script.stem}: took {time.monotonic() - began:.0f} s")
    print("\n".join(notes), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
