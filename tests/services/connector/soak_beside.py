"""The two minutes of `test_soak_scaled`, which mostly wait: they run beside the other tests, begun when those are collected.

One process for all test workers. Who has the session starts it (the controller of xdist, or the one process there is) and
ends it with the session; the test finds what it wrote under the session's directory, which all can tell.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from ssmd.services.processes import mark_of, read_mark, spawn

ROOT: Final = Path(__file__).resolve().parents[3]
SCRIPT: Final = ROOT / "benchmarks" / "soak_connector.py"
TEST: Final = "test_soak_scaled.py::test_two_minutes_at_a_fortieth_of_the_load"
SECONDS: Final = 120
LATER_S: Final = 180
"""After those seconds, for a machine that is busy: so long until it must have been written."""
POLL_S: Final = 0.2
_STARTED = pytest.StashKey[Any]()


def directory_of(config: pytest.Config, basetemp: Path) -> Path:
    """The session's, told from the directory of this process: a worker of xdist has one of its own within."""
    return (basetemp.parent if hasattr(config, "workerinput") else basetemp) / "soak-beside"


def begin(config: pytest.Config, names: Iterable[str]) -> None:
    """Start it, where the test is among those to be run and it is not started yet."""
    if hasattr(config, "workerinput") or _STARTED in config.stash or not any(TEST in name for name in names):
        return
    if config.option.collectonly:
        return  # nothing is run
    directory = directory_of(config, config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    directory.mkdir()
    arguments = ["--only", "load", "--seconds", str(SECONDS), "--rate", "160", "--roll", "20"]
    # Ended by the kernel, where there is Linux, should this process be killed; its files are in this directory then.
    config.stash[_STARTED] = spawn(
        [sys.executable, str(SCRIPT), *arguments, "--output", str(directory / "load.json")],
        log_path=directory / "log",
        env={"TMPDIR": str(directory)},
        mark_file=directory / "mark",
    )


def end(config: pytest.Config) -> None:
    """Nothing outlives the session; usually it has ended by then."""
    if (child := config.stash.get(_STARTED, None)) is not None:
        child.terminate()
        child.wait(30)


def figures(directory: Path) -> dict[str, Any]:
    """What it measured, once it is done."""
    mark = read_mark(directory / "mark")
    assert mark is not None, "it was not started"
    deadline = time.monotonic() + SECONDS + LATER_S
    while mark_of(mark.pid) == mark and time.monotonic() < deadline:
        time.sleep(POLL_S)
    output, said = directory / "load.json", (directory / "log").read_text()[-2000:]
    assert output.exists(), f"nothing was written: {said}"
    found: dict[str, Any] = json.loads(output.read_text())["figures"]["load"]
    return found
