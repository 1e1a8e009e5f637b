"""What is rendered once for all checks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = {"homelab": ("kalshi-demo", 1), "prod": ("kalshi-prod", 3)}
"""Environment and replicas of each overlay."""


def program(name: str) -> str:
    """A program from its wheel, else of the system."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"the program {name} has no wheel for this platform")
    return found


@pytest.fixture(scope="session", params=sorted(OVERLAYS))
def overlay(request: pytest.FixtureRequest) -> tuple[str, list[dict[str, Any]]]:
    """(name, objects) as `kubectl kustomize` builds them."""
    built = subprocess.run(
        [program("kubectl"), "kustomize", str(DEPLOY / "kustomize" / "overlays" / request.param)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    return request.param, [one for one in yaml.safe_load_all(built.stdout) if one]
