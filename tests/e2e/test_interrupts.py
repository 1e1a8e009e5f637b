"""Ctrl-C or SIGTERM at any moment ends everything that was started, soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.main_job import run_ssmd

from ssmd.registry.bootstrap import DEMO_ENVIRONMENT, write_registry
from ssmd.schemas.codecs import definition_sha256

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
    command = [sys.executable, "-m", "ssmd", "--workspace", str(workspace), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=workspace
    ) as process:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            if words in line:
                process.send_signal(number)
                break
        told += process.stderr.read()
        return process.wait(60), told


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

    status, told = interrupted_after("demo is up; Ctrl-C stops it", workspace, "up", "demo")
    assert status == 0, told
    assert processes_of(workspace) == []
    done = run_ssmd("--workspace", str(workspace), "day", "status", "-o", "json")
    assert done.returncode == 0
    assert '"status": "active"' in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who runs")
@pytest.mark.timeout(240)
def test_sigterm_in_the_demo_leaves_nothing_running(workspace: Path) -> None:
    arguments = ("demo", "--keep", str(workspace / "kept"))
    words = "Disaster: the connector is killed"
    status, told = interrupted_after(words, workspace, *arguments, number=signal.SIGTERM)
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
        # About 3 s. The archivers once waited 20 s for servers that had gone with their parent.
        assert time.monotonic() - began_s < 12, processes_of(workspace)
        time.sleep(0.05)  # processes that are not ours to wait for
