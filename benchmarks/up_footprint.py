"""What `ssmd up kalshi-dev` needs of a machine: memory of all its processes after a minute, and how the disk grows.

    .venv/bin/python benchmarks/up_footprint.py [SECONDS]

Proportional set sizes (PSS of /proc/PID/smaps_rollup: what is shared is counted once) and resident set sizes (RSS) of
`ssmd up` and everything below it, Linux only. Writes docs/measurements/up-footprint.json.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measurement import MEASUREMENTS, write_measurement

ROOT = Path(__file__).resolve().parents[1]
SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
ENV = "kalshi-dev"


def children(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += children(int(child))
    return found


def memory(pid: int) -> tuple[int, int]:
    """(PSS, RSS) in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return fields["Pss"], fields["Rss"]


def disk(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def main() -> None:
    ssmd = Path(sys.executable).with_name("ssmd")
    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name)
        shutil.copytree(ROOT / "exchanges", workspace / "exchanges")
        document = workspace / "exchanges" / "environments" / f"{ENV}.yaml"
        document.write_text(document.read_text().replace("port: 8900", "port: 0"))
        log = (workspace / "log").open("w")
        up = subprocess.Popen([ssmd, "--workspace", name, "up", ENV], stdout=log, stderr=log)
        try:
            while f"{ENV} is up" not in (workspace / "log").read_text():
                if up.poll() is not None:
                    sys.exit((workspace / "log").read_text())
                time.sleep(0.2)
            at_start = disk(workspace / ".ssmd")
            time.sleep(SECONDS)
            run = json.loads((workspace / ".ssmd" / ENV / "run.json").read_text())
            names = {mark["pid"]: one for one, mark in run["processes"].items()} | {up.pid: "ssmd up"}
            sizes = {names.get(pid, f"pid {pid}"): memory(pid) for pid in children(up.pid)}
            grown = disk(workspace / ".ssmd") - at_start
            total = disk(workspace / ".ssmd")
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(60)
    mib = 1 << 20
    figures = {
        "seconds": SECONDS,
        "processes": len(sizes),
        "pss_mib": round(sum(pss for pss, _ in sizes.values()) / mib),
        "rss_mib": round(sum(rss for _, rss in sizes.values()) / mib),
        "rss_mib_by_process": {name: round(rss / mib) for name, (_, rss) in sorted(sizes.items())},
        "disk_mib": round(total / mib, 1),
        "disk_mib_per_hour": round(grown / mib / SECONDS * 3600),
    }
    result = write_measurement(MEASUREMENTS / "up-footprint.json", seed=7, rounds=1, figures=figures, is_good=None)
    print(json.dumps(result["figures"], indent=2))


if __name__ == "__main__":
    main()
