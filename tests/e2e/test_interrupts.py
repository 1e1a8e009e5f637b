"""Ctrl-C or SIGTERM at any moment ends everything that was started, soon."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.e2e.main_job import run_ssmd

from ssmd.registry.bootstrap import DEMO_ENVIRONMENT, write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.wiring.process import ORPHAN_STOP_S

SEEDED = DEMO_ENVIRONMENT.format(capture="  simulator:\n    seed: 1\n", segment_bytes=1 << 20)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "wörk space"
    write_registry(root, {"demo": SEEDED}, definition_sha256())
    return root


def processes_of(workspace: Path) -> list[str]:
    """Command lines that name the workspace."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(workspace) in command and int(path.parent.name) != os.getpid():
            found.append(command)
    return found


def interrupted_after(words: str, workspace: Path, *arguments: str, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
    """Run ssmd, signal it once stderr has said `words`: its exit status, and all that it said."""
    return told_and_done(((words, lambda process, _told: process.send_signal(number)),), workspace, *arguments)


def told_and_done(
    steps: Sequence[tuple[str, Callable[[subprocess.Popen[str], str], None]]], workspace: Path, *arguments: str
) -> tuple[int, str]:
    """Run ssmd; do one thing after the other, each once stderr has said its words, with all it has said until then."""
    command = [sys.executable, "-m", "ssmd", "--workspace", str(workspace), *arguments]
    waiting = list(steps)
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=workspace
    ) as process:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            if waiting and waiting[0][0] in line:
                waiting.pop(0)[1](process, told)
        assert not waiting, told
        return process.wait(60), told


def kill_connector(_: subprocess.Popen[str], told: str) -> None:
    os.kill(int(re.findall(r"connector is up \(process (\d+)\)", told)[0]), signal.SIGKILL)


def interrupt(process: subprocess.Popen[str], _told: str) -> None:
    process.send_signal(signal.SIGINT)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who runs")
@pytest.mark.timeout(240)
def test_ctrl_c_while_it_starts_stops_what_runs_and_starts_no_more(workspace: Path) -> None:
    status, told = interrupted_after("nats-journal is up", workspace, "up", "demo")
    assert status == 0, told
    assert told.endswith("stopping\n")
    assert "connector is up" not in told
    assert "Traceback" not in told
    assert processes_of(workspace) == []
    assert not (workspace / ".ssmd/demo/run.json").exists()

    # All is up, but for a connector that was killed and is about to be started again.
    steps = (("demo is up; Ctrl-C stops it", kill_connector), ("connector is started again", interrupt))
    status, told = told_and_done(steps, workspace, "up", "demo")
    assert status == 0, told
    assert "Traceback" not in told
    assert processes_of(workspace) == []
    done = run_ssmd("--workspace", str(workspace), "day", "status", "-o", "json")
    assert done.returncode == 0
    assert '"status": "active"' in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who runs")
@pytest.mark.timeout(240)
def test_sigterm_in_the_demo_leaves_nothing_running(workspace: Path) -> None:
    arguments = ("demo", "--keep", str(workspace / "kept"))
    status, told = interrupted_after("==> Capturing", workspace, *arguments, number=signal.SIGTERM)
    assert status == 130, told
    assert "Traceback" not in told
    assert processes_of(workspace) == []


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who runs")
@pytest.mark.timeout(240)
def test_nothing_outlives_a_killed_up_for_long(workspace: Path) -> None:
    status, told = interrupted_after("demo is up; Ctrl-C stops it", workspace, "up", "demo", number=signal.SIGKILL)
    assert status == -signal.SIGKILL, told
    began_s = time.monotonic()
    while processes_of(workspace):
        # About 3 s, more where the machine has other things to do.
        assert time.monotonic() - began_s < 90, processes_of(workspace)
        time.sleep(0.05)  # processes that are not ours to wait for
    # The archivers once waited 20 s for servers that had gone with their parent. Whoever reaches a limit says which.
    said = [json.loads(line) for path in (workspace / ".ssmd/demo/logs").glob("*.log") for line in logged(path)]
    assert {one["deadline_s"] for one in said if one["event"] == "stop-took-too-long"} <= {ORPHAN_STOP_S}
    assert "connector" in {one["component"] for one in said if one["event"] in {"stopped", "stop-took-too-long"}}


def logged(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith("{")]
