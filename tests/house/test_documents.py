"""What stands beside the code: decisions, pinned requirements, the record definition, the make targets."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = ROOT / "docs" / "decisions"
PINNED = sorted(ROOT.glob("requirements*.txt"))


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_decisions_are_numbered_without_holes_and_linked_with_their_titles() -> None:
    pages = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
    assert [path.name[:4] for path in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+?) \| (\w+) \|$", index, re.MULTILINE)
    found = []
    for path in pages:
        text = path.read_text(encoding="utf-8")
        heading = re.match(r"# (\d{4})\. (.+)\n\n\d{4}-\d{2}-\d{2}, (\w+)", text)
        assert heading is not None, f"{path.name} does not open with '# NNNN. title', then 'YYYY-MM-DD, status'"
        found.append((heading[1], path.name, heading[2], heading[3]))
        assert [line for line in text.splitlines() if line.startswith("## ")][:3] == [
            "## Context",
            "## Decision",
            "## Consequences",
        ]
    assert linked == found


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.name)
def test_requirements_are_pinned_by_hash_and_name_no_place(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"://|file:|^-|^/|^\.|@ ", text, re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text.strip())
    for entry in entries:
        assert re.match(r"[a-z0-9][a-z0-9._-]*==\S+( ; .+?)? \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry[:200]


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


def named(requirements: list[str]) -> set[str]:
    return {
        re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-").replace(".", "-") for requirement in requirements
    }


def test_everything_the_project_asks_for_is_pinned_to_one_version() -> None:
    asked = project()
    runtime, development, build = pins("requirements.txt"), pins("requirements-dev.txt"), pins("requirements-build.txt")
    dependencies = named(asked["project"]["dependencies"]) | named(asked["project"]["optional-dependencies"]["embedded"])
    mend = "make requirements"
    assert dependencies - set(runtime) == set(), mend
    assert named(asked["dependency-groups"]["dev"]) - set(development) == set(), mend
    assert named(asked["build-system"]["requires"]) - set(build) == set(), mend
    assert {name: version for name, version in runtime.items() if development.get(name) != version} == {}, mend
    assert {name: (version, build[name]) for name, version in development.items() if build.get(name, version) != version} == {}


def test_the_packaged_record_definition_is_the_registrys() -> None:
    packaged = resources.files("ssmd.schemas").joinpath("market.capnp").read_bytes()
    registered = (ROOT / "exchanges" / "schemas" / "market.capnp").read_bytes()
    document = yaml.safe_load((ROOT / "exchanges" / "schemas" / "market.yaml").read_text(encoding="utf-8"))
    current = [version for version in document["versions"] if version["status"] == "active"]
    assert packaged == registered
    assert [(version["definition"], version["sha256"]) for version in current] == [
        ("market.capnp", hashlib.sha256(packaged).hexdigest())
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "measurements").glob("*.json")), ids=lambda path: path.name)
def test_a_measurement_says_of_what_when_where_and_what_came_of_it(path: Path) -> None:
    told = json.loads(path.read_text(encoding="utf-8"))
    assert {"commit", "date", "seed", "rounds", "machine", "figures", "verdict"} <= told.keys()
    assert re.fullmatch(r"[0-9a-f]{7,40}", told["commit"])
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", told["date"])
    assert told["machine"].keys() == {"cpus", "python", "platform"}
    assert told["figures"]
    assert told["verdict"]


def test_make_has_the_promised_targets_and_tells_them() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    targets = re.findall(r"^  make ([a-z-]+) +\S", told, re.MULTILINE)
    assert set(targets) >= {"setup", "demo", "test", "lint", "bench", "soak", "ci-deps", "requirements", "clean"}


def test_continuous_integration_runs_the_same_commands() -> None:
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & 0o111
    text = run.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert "export CI=true" in text
    assert text.rstrip().endswith("make ci-deps test")


def test_the_licence_is_whole_and_the_one_that_is_named() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert project()["project"]["license"] == "Apache-2.0"
