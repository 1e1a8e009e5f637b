"""The command line in this process: a workspace with the shipped registry, and a way to call `ssmd` in it."""

import functools
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ssmd.cli.app import main

ROOT = Path(__file__).parents[2]


class Called(NamedTuple):
    status: int
    out: str
    err: str


Ssmd = Callable[..., Called]
_scrypt = functools.cache(hashlib.scrypt)


@pytest.fixture(autouse=True)
def _scrypt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow on purpose, and the same each time: what one call of `ssmd` worked out, the next one knows."""
    monkeypatch.setattr(hashlib, "scrypt", _scrypt)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh workspace, the current directory, with no variable of ssmd set."""
    root = tmp_path / "workspace"
    shutil.copytree(ROOT / "exchanges", root / "exchanges")
    for name in ("SSMD_ENV", "SSMD_WORKSPACE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USER", "anna")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def ssmd(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Ssmd:
    """Calls `ssmd ARGUMENTS` in the workspace."""

    def call(*arguments: str) -> Called:
        capsys.readouterr()
        status = main(arguments)
        return Called(status, *capsys.readouterr())

    return call
