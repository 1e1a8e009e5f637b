"""Commands that pages show and no test runs (they need a venue's key, a cluster, another machine) exist, options and all.

Those in `console` blocks are run: tests/docs/test_site.py, tests/e2e/test_demo.py.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.conftest import ROOT

from ssmd.cli.app import app

MADE = ROOT / "docs" / "reference"
PAGES = sorted(
    path
    for path in (ROOT / "README.md", ROOT / "deploy" / "README.md", *(ROOT / "docs").rglob("*.md"))
    if path.parent != MADE and "decisions" not in path.parts
)
OPTIONS_OF_ROOT = {"--env", "-e", "--workspace", "--no-color", "--debug"}


@cache
def whole() -> Any:
    return typer.main.get_command(app)


@cache
def part_of(group: Any, name: str) -> Any:
    """A command of a group; None = it has none of that name."""
    return group.get_command(None, name)


def commands_in(text: str) -> list[str]:
    """What begins with `ssmd` in blocks of code and between backticks."""
    blocks = re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"((?:^    .+\n)+)", text, re.MULTILINE)
    found = []
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            spoken = re.sub(r"^(\$ |(?:[A-Z_]+=\S+ )+|\.venv/bin/)*", "", line.strip())
            if spoken.startswith("ssmd "):
                found.append(spoken)
    return found + re.findall(r"`(?:[A-Z_]+=\S+ )*(ssmd [a-z][^`]*)`", text.replace("\n", " "))


def test_commands_are_found_wherever_they_stand() -> None:
    text = "`ssmd a`\n\n    ssmd b --c \\\n      d\n\n```sh\nX=1 ssmd e # f\nssmdx\n```\n```console\n$ .venv/bin/ssmd g\n```\n"
    assert sorted(set(commands_in(text))) == ["ssmd a", "ssmd b --c        d", "ssmd e # f", "ssmd g"]


def fault_of(command: str) -> str:
    """What the command line does not know of it; "" = nothing."""
    spoken = re.split(r"\s[|;>&]\s|\s\|\||&&", command)[0]
    words = re.sub(r"\s#.*", "", spoken).split()[1:]
    known = whole()
    while hasattr(known, "get_command"):
        while words and words[0] in OPTIONS_OF_ROOT:
            del words[:2]
        # A group alone, or several of one written so: `ssmd key set|rotate`.
        if not words or not re.fullmatch(r"[a-z-]+(\|[a-z-]+)*", words[0]):
            break
        for name in words.pop(0).split("|"):
            found = part_of(known, name)
            if found is None:
                return name
        known = found
    options = {name for parameter in known.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)}
    return " ".join(sorted(given - options - OPTIONS_OF_ROOT - {"--help", "-h"}))


def test_what_there_is_not_is_noticed() -> None:
    assert [fault_of(f"ssmd {words}") for words in ("nope", "key lst", "key list --nope -o json", "key set|lst x")] == [
        "nope", "lst", "--nope", "lst"]  # fmt: skip
    assert [fault_of(f"ssmd {words}") for words in ("--env x key list -o json # y", "key set|list", "up | cat -n")] == [""] * 3
    assert sum(len(commands_in(page.read_text(encoding="utf-8"))) for page in PAGES) > 150


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_exists(page: Path) -> None:
    faults = {command: fault for command in commands_in(page.read_text(encoding="utf-8")) if (fault := fault_of(command))}
    assert faults == {}
