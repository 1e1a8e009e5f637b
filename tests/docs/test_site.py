"""The site builds without a warning, its made pages are fresh, and the commands of tutorial and how-to pages work."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ssmd.cli import reference
from ssmd.cli.app import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BIN = Path(sys.executable).parent
ENV = "kalshi-dev"
READY_S = 90.0
PAGES = ["tutorial.md", *sorted(f"howto/{path.name}" for path in (DOCS / "howto").glob("*.md"))]


def commands_of(page: str) -> list[str]:
    """What stands behind `$` in the console blocks of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```console\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines() if line.strip().startswith("$ ")]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [BIN / "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # noqa: TID251 - what mkdocs is run with
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (built.returncode, built.stdout) == (0, ""), built.stderr
    site = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")} == {
        name.replace("decisions/index", "decisions/README") for name in site - {"404.html"}
    }
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text(encoding="utf-8"))
        assert loaded == [], f"{page.name} loads from elsewhere"


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_made_pages_are_fresh(name: str) -> None:
    assert (DOCS / "reference" / name).read_text(encoding="utf-8") == reference.pages()[name], (
        "python -m ssmd.cli.reference docs/reference"
    )


def test_every_command_record_setting_and_error_is_on_its_page() -> None:
    pages = reference.pages()
    assert [path for path, _ in reference.commands() if f"# `{path}`\n" not in pages["cli.md"]] == []
    for document in (ROOT / "exchanges" / "environments").glob("*.yaml"):
        for section, value in yaml.safe_load(document.read_text(encoding="utf-8")).items():
            names = [f"{section}.{name}" for name in value] if isinstance(value, dict) and section != "keys" else [section]
            assert [name for name in names if f"| `{name}` |" not in pages["settings.md"]] == []
    for record in ("Record", "Trade", "BookDelta", "BookSnapshot", "Level", "Quote", "MarketStatus", "Gap"):
        assert f"## {record}\n\n| field | number | type | what |\n|---|---|---|---|\n| `" in pages["records.md"]
    assert "| `Rejected` | 1 |" in pages["errors.md"]
    assert "| `ENV.md.FEED.KIND.TICKER` |" in pages["subjects.md"]


def test_the_readme_leads_to_the_site() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((docs/[^)#]+)\)", readme))
    assert {"docs/tutorial.md", "docs/howto/run-for-real.md", "docs/reference/cli.md", "docs/decisions/README.md"} <= linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """A workspace in which the development environment runs: one for all pages."""
    workspace = tmp_path / "site"
    shutil.copytree(ROOT / "exchanges", workspace / "exchanges")
    document = workspace / "exchanges" / "environments" / f"{ENV}.yaml"
    document.write_text(document.read_text(encoding="utf-8").replace("port: 8900", "port: 0"), encoding="utf-8")
    with (workspace / "up.log").open("w") as log:
        up = subprocess.Popen([BIN / "ssmd", "up", ENV, "--no-temporal"], cwd=workspace, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + READY_S
            while f"{ENV} is up" not in (told := (workspace / "up.log").read_text(encoding="utf-8")):
                assert up.poll() is None, told
                assert time.monotonic() < deadline, told
                time.sleep(0.1)  # a process of its own, which tells when it is ready
            yield workspace
        finally:
            up.terminate()
            up.wait(60)


def test_the_pages_have_commands() -> None:
    assert [page for page in PAGES if not commands_of(page)] == []


def test_the_commands_of_all_pages_work(
    running: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One test, not one a page: test workers that took some each would each start an environment."""
    monkeypatch.chdir(running)
    monkeypatch.setenv("USER", "anna")
    # The tutorial chooses the environment; a page may be read alone.
    monkeypatch.setenv("SSMD_ENV", ENV)
    for page, command in [(name, line) for name in PAGES for line in commands_of(name)]:
        program, *arguments = shlex.split(command)
        assert program == "ssmd", (page, command)
        capsys.readouterr()
        status = main(arguments)
        assert status == 0, (page, command, *capsys.readouterr())
    # While it runs: the doctor finds it well, and nothing is restored into it.
    capsys.readouterr()
    main(["doctor", "-o", "json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    live = {one["check"]: one for one in findings if one["scope"] == "environment"}
    assert {"server journal", "server transport", "server cache", "streams", "connector main", "projector main"} <= set(live)
    assert [one for name, one in live.items() if one["verdict"] != "ok" and name != "tape disk"] == []
    assert main(["backup", "restore", "--from", "elsewhere"]) == 1
    assert "kalshi-dev runs: its journal would change meanwhile" in capsys.readouterr().err
