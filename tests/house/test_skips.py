"""What a missing program does to a test: skipped with the command that mends it, a failure in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"

_TESTS = """
import pytest

@pytest.mark.needs_tool("python3", "no-such-program")
def test_marked(): raise AssertionError

def test_asking(tool): tool("no-such-program")

def test_other(): pytest.skip("not today")

def test_compares(shared_dir): pass

@pytest.mark.xfail(reason="known")
def test_known(): raise AssertionError

@pytest.mark.needs_tool("python3")
def test_present(tool): assert tool("python3").endswith("python3")
"""


@pytest.mark.parametrize(
    ("ci", "expected"),
    [("", "1 passed, 4 skipped, 1 xfailed"), ("true", "2 failed, 1 passed, 1 skipped, 1 xfailed, 1 error")],
)
def test_a_skip_is_told_how_to_mend_and_is_a_failure_in_ci(tmp_path: Path, ci: str, expected: str) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    shutil.copy(CONFTEST, tests / "conftest.py")
    (tests / "test_it.py").write_text(_TESTS)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-rsfE",
            "-p",
            "no:cacheprovider",
            "--strict-markers",
            "--rootdir",
            ".",
            "tests",
        ],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # noqa: TID251 - of the tests, not of ssmd
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    told = run.stdout
    assert "the program no-such-program is not installed: make ci-deps" in told
    counts = told.strip().splitlines()[-1].split(" in ")[0]
    if ci:
        assert run.returncode == 1
        assert "which CI=true forbids" in told
        assert [f"test_it.py::{name}" in told for name in ("test_marked", "test_asking", "test_other")] == [True] * 3
    else:
        assert run.returncode == 0
    assert counts == expected
