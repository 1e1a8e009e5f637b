import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ssmd.cli.app import app
from ssmd.cli.lazy_group import COMMANDS

Ssmd = Any
SSMD = [str(Path(sys.executable).with_name("ssmd"))]
HELP_CPU_SECONDS_MAX = 0.6
"""The promise is 0.3 s on an idle machine; on a busy one even processor time grows."""
HEAVY = ("asyncio", "nats", "redis", "capnp", "rich", "yaml", "msgspec", "httpx", "starlette", "cryptography", "structlog")


def test_help_lists_every_command_without_importing_one(ssmd: Ssmd) -> None:
    called = ssmd("--help")
    assert called.status == 0
    assert called.err == ""
    for command in COMMANDS:
        assert f"  {command.name} " in called.out
    assert "Example:\n    ssmd demo\n" in called.out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ssmd.cli.app import main; main(['--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"


def test_help_is_quick(workspace: Path) -> None:
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*SSMD, "--help"], capture_output=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < HELP_CPU_SECONDS_MAX, took


def leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name."""
    if isinstance(command, typer.core.TyperGroup):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from leaves(command.get_command(context, name), f"{path} {name}")
    else:
        yield path, command


ALL = dict(leaves(typer.main.get_command(app), "ssmd"))


def test_the_commands_are_those_that_are_documented() -> None:
    assert sorted(ALL) == sorted(
        f"ssmd {name}"
        for name in (
            "archiver run",
            "backup create",
            "backup list",
            "backup restore",
            "backup verify",
            "doctor",
            "tape republish",
            "tape show",
            "tape verify",
            "client create",
            "client disconnect",
            "client list",
            "client revoke",
            "client set-mode",
            "client show",
            "watch",
            "commit",
            "config history",
            "chaos run",
            "connector run",
            "connector status",
            "data backfill",
            "data book",
            "data connections",
            "data export",
            "data gaps",
            "data hold add",
            "data hold list",
            "data hold remove",
            "data index",
            "data intervals",
            "data inventory",
            "data prune",
            "data quality",
            "data renormalize",
            "data repair-gaps",
            "data replay",
            "data sample",
            "data verify",
            "day end",
            "day history",
            "day list",
            "day recover",
            "day roll",
            "day show",
            "day start",
            "day status",
            "demo",
            "dlq discard",
            "dlq list",
            "dlq replay",
            "dlq show",
            "diff",
            "env add-key",
            "env apply",
            "env create",
            "env list",
            "env render",
            "env show",
            "env teardown",
            "env update",
            "env use",
            "feed add-version",
            "feed create",
            "feed list",
            "feed show",
            "feed update",
            "gateway run",
            "init",
            "key audit",
            "key delete",
            "key export",
            "key init",
            "key list",
            "key rotate",
            "key set",
            "key show",
            "key verify",
            "journal export",
            "journal import",
            "journal show",
            "journal stats",
            "journal tail",
            "journal verify",
            "projection list",
            "projection rebuild",
            "projection rollback",
            "projection show",
            "projection status",
            "projection verify",
            "projector run",
            "record kalshi",
            "schema add-version",
            "schema hash",
            "schema list",
            "schema register",
            "schema set-status",
            "schema show",
            "secmaster export",
            "secmaster history",
            "secmaster list",
            "secmaster search",
            "secmaster show",
            "secmaster sync",
            "simulate kalshi",
            "status",
            "streams apply",
            "streams auth",
            "streams diff",
            "streams status",
            "up",
            "validate",
            "worker run",
        )
    )


@pytest.mark.parametrize("path", sorted(ALL))
def test_every_command_explains_itself_with_an_example(ssmd: Ssmd, path: str) -> None:
    called = ssmd(*path.split()[1:], "--help")
    assert called.status == 0
    assert called.out.startswith(f"Usage: {path} ")
    assert "Example:\n    ssmd " in called.out
    shown = called.out.partition("Example:\n")[2]
    assert f"    {path}" in shown


@pytest.mark.parametrize(
    ("arguments", "message", "mend"),
    [
        (["dya", "start"], "No such command 'dya'. Did you mean 'day'?", "ssmd --help"),
        (["day", "begin"], "No such command 'begin'.", "ssmd day --help"),
        (["data", "gaps", "--dat", "2026-05-14"], "No such option: --dat", "ssmd data gaps --help"),
        (["data", "gaps", "--date", "14.5."], "Invalid value for '--date': '14.5.' is not a calendar date YYYY-MM-DD", ""),
        (["day", "status", "--date", "2026-02-30"], "'2026-02-30' is not a calendar date YYYY-MM-DD", "ssmd day status --help"),
        (["env", "list", "-o", "xml"], "'xml' is not one of 'table', 'json'", "ssmd env list --help"),
    ],
)
def test_wrong_usage_is_one_line_and_a_mend(ssmd: Ssmd, arguments: list[str], message: str, mend: str) -> None:
    called = ssmd(*arguments)
    assert called.status == 2
    assert called.out == ""
    assert called.err.startswith("error: ")
    assert message in called.err
    assert called.err.endswith(f"  try: {mend}\n" if mend else "--help\n")


@pytest.mark.parametrize("arguments", [[], ["day"], ["simulate"]])
def test_a_group_without_a_command_shows_its_help(ssmd: Ssmd, arguments: list[str]) -> None:
    called = ssmd(*arguments)
    assert called.status == 2
    assert f"Usage: {' '.join(['ssmd', *arguments])} [OPTIONS] COMMAND" in called.out + called.err


def test_version(ssmd: Ssmd) -> None:
    assert ssmd("--version").out == "ssmd 0.1.0\n"


def test_global_options_may_stand_anywhere(ssmd: Ssmd) -> None:
    before = ssmd("--env", "kalshi-dev", "env", "show", "-o", "json")
    assert before.status == 0
    for arguments in (
        ("env", "-e", "kalshi-dev", "show", "-o", "json"),
        ("env", "show", "-o", "json", "--env=kalshi-dev"),
        ("env", "show", "-o", "json", "kalshi-dev", "--no-color", "--debug"),
    ):
        assert ssmd(*arguments) == before


@pytest.fixture
def completed(ssmd: Ssmd, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """What bash offers behind a line."""

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_SSMD_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        called = ssmd()
        assert called.err == ""
        return str(called.out).split()

    return complete


def test_the_shell_completes_commands_environments_and_feeds(completed: Callable[[str], list[str]]) -> None:
    assert completed("ssmd da") == ["day", "data"]
    assert completed("ssmd day st") == ["start", "status"]
    assert completed("ssmd --env kalshi-d") == ["kalshi-demo", "kalshi-dev"]
    assert completed("ssmd env use kalshi-p") == ["kalshi-prod"]
    assert completed("ssmd data gaps --feed ") == ["kalshi"]


def test_completion_outside_of_a_workspace_is_silent(
    completed: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert completed("ssmd --env k") == []


def test_a_reader_that_leaves_is_no_error(workspace: Path) -> None:
    with subprocess.Popen(
        [*SSMD, "env", "show", "kalshi-dev"], cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0
