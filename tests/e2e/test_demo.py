"""`ssmd demo` as `make demo` runs it, and every command the README shows afterwards."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, find_tool
from tests.e2e.main_job import run_ssmd

from ssmd.cli.app import main

README = ROOT / "README.md"
NOT_RUN = {"make demo": "runs this very demo", "make test": "runs this very test", ".venv/bin/ssmd up kalshi-dev": "stays up"}


def shown_commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def check_story(report: dict[str, Any]) -> None:
    assert report["is_rebuilt_equal"] is True
    killed = [gap for gap in report["answers"]["gaps"] if gap["cause"] == "killed"]
    assert len(killed) == 1
    gap = killed[0]
    assert gap["start_ns"] < gap["end_ns"]
    assert gap["open_tickers"] == []
    assert "without a disconnect" in gap["evidence"]
    assert len(gap["tickers"]) > 5
    history = report["answers"]["history"][0]
    assert history["day"]["status"] == "complete"
    kinds = {line["kind"] for line in report["answers"]["inventory"]}
    assert {"raw", "book", "snapshot", "trade", "quote", "gap"} <= kinds
    assert report["frames"] > 1000
    assert report["records"]["book"] > 500


@pytest.mark.timeout(300)
@pytest.mark.needs_tool("zstdcat", "jq", "capnp")
def test_the_demo_tells_the_truth_and_the_readme_commands_work(tmp_path: Path) -> None:
    (tmp_path / "exchanges").symlink_to(ROOT / "exchanges")
    done = run_ssmd("demo", "-o", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for step in ("==> Disaster: the connector is killed", "killed process", "missing from", "because: killed"):
        assert step in done.stderr
    report = json.loads(done.stdout)
    check_story(report)
    check_queries_agree(report, tmp_path / ".ssmd" / "demo")
    check_readme(tmp_path)


def check_queries_agree(report: dict[str, Any], workspace: Path) -> None:
    """With everything stopped, the command line gives the very answers of the running system."""
    answers = report["answers"]
    for arguments, wanted in (
        (("data", "inventory", "--feed", "kalshi"), answers["inventory"]),
        (("data", "gaps", "--feed", "kalshi"), answers["gaps"]),
        (("day", "history", "--date", answers["history"][0]["day"]["date"]), answers["history"][0]),
    ):
        with redirect_stdout(io.StringIO()) as told:
            assert main(["--workspace", str(workspace), *arguments, "-o", "json"]) == 0, arguments
        assert json.loads(told.getvalue()) == wanted


def check_readme(cwd: Path) -> None:
    commands = shown_commands()
    assert set(NOT_RUN) <= set(commands)
    for command in commands:
        if command in NOT_RUN:
            continue
        text = command.replace(".venv/bin/ssmd", f"{sys.executable} -m ssmd")
        for name in ("zstdcat", "jq", "capnp"):
            text = re.sub(rf"(?<![\w/]){name} ", f"{find_tool(name)} ", text)
        done = subprocess.run(["bash", "-c", text], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stderr)
        assert (done.stdout + done.stderr).strip(), f"{command} printed nothing"
