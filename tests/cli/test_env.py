import json
from pathlib import Path
from typing import Any

import pytest

from ssmd.services.run_file import Endpoints, RunLock

Ssmd = Any


def shown(ssmd: Ssmd, *arguments: str) -> str:
    called = ssmd("env", "show", "-o", "json", *arguments)
    assert called.status == 0, called.err
    return str(json.loads(called.out)["environment"]["name"])


def test_the_environment_meant_is_the_option_then_the_variable_then_the_stored_then_the_only_one(
    ssmd: Ssmd, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kalshi-demo", "kalshi-prod"):
        (workspace / "exchanges/environments" / f"{name}.yaml").rename(workspace / name)
    assert shown(ssmd) == "kalshi-dev"
    for name in ("kalshi-demo", "kalshi-prod"):
        (workspace / name).rename(workspace / "exchanges/environments" / f"{name}.yaml")
    assert ssmd("env", "use", "kalshi-demo") == (0, "", "commands now mean kalshi-demo\n")
    assert shown(ssmd) == "kalshi-demo"
    monkeypatch.setenv("SSMD_ENV", "kalshi-prod")
    assert shown(ssmd) == "kalshi-prod"
    assert shown(ssmd, "--env", "kalshi-dev") == "kalshi-dev"
    assert shown(ssmd, "kalshi-demo", "--env", "kalshi-dev") == "kalshi-demo"


def test_without_a_word_and_with_several_it_asks_which(ssmd: Ssmd) -> None:
    assert ssmd("env", "show") == (
        2,
        "",
        (
            "error: which environment? There are kalshi-demo, kalshi-dev, kalshi-prod\n"
            "  try: ssmd env use kalshi-demo, or --env kalshi-demo\n"
        ),
    )


def test_without_a_word_the_one_that_runs_here_is_proposed(ssmd: Ssmd, workspace: Path) -> None:
    asked = "error: which environment? There are kalshi-demo, kalshi-dev, kalshi-prod"
    here = workspace / ".ssmd"
    with RunLock(here / "kalshi-dev", "kalshi-dev") as lock:
        lock.publish(1, Endpoints(), {})
        one = f"{asked}; kalshi-dev runs on this machine\n  try: ssmd env use kalshi-dev, or --env kalshi-dev\n"
        assert ssmd("env", "show") == (2, "", one)
        with RunLock(here / "kalshi-prod", "kalshi-prod") as second:
            second.publish(1, Endpoints(), {})
            both = (
                f"{asked}; kalshi-dev, kalshi-prod run on this machine\n  try: ssmd env use kalshi-demo, or --env kalshi-demo\n"
            )
            assert ssmd("env", "show") == (2, "", both)
        (here / "kalshi-prod" / "run.json").write_text("no run file")
        assert ssmd("env", "show") == (2, "", one)


def test_a_name_that_does_not_exist_says_who_said_it(ssmd: Ssmd, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = "there are kalshi-demo, kalshi-dev, kalshi-prod"
    assert ssmd("env", "use", "kalshi-dve").err == (
        f'error: there is no environment "kalshi-dve"; {there}\n  try: did you mean "kalshi-dev"?\n'
    )
    assert not (workspace / ".ssmd").exists()
    assert f'there is no environment "kalshi-dve" (said by --env); {there}' in ssmd("env", "show", "-e", "kalshi-dve").err
    monkeypatch.setenv("SSMD_ENV", "xyz")
    assert ssmd("env", "show") == (
        2,
        "",
        f'error: there is no environment "xyz" (said by SSMD_ENV); {there}\n  try: ssmd env list\n',
    )


def test_show_fills_in_defaults_and_holds_no_secret(ssmd: Ssmd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_KALSHI_API_KEY", "hunter2")
    called = ssmd("env", "show", "kalshi-prod")
    lines = {line.partition("  ")[0]: line.partition("  ")[2] for line in called.out.splitlines()}
    assert lines["gateway.port"].strip() == "8900"
    assert lines["capture.key"].strip() == "$key:kalshi"
    assert lines["wire"].strip() == "kalshi-dollars"
    assert lines["registry commit"].strip() == "not under git"
    assert "hunter2" not in called.out


def test_list_as_table_and_json(ssmd: Ssmd) -> None:
    ssmd("env", "use", "kalshi-dev")
    called = ssmd("env", "list")
    assert called.out.splitlines()[0].split() == ["NAME", "FEED", "ENDPOINT", "SCHEMA", "STATUS", "CURRENT", "RUNNING"]
    assert called.out.splitlines()[2].split() == ["kalshi-dev", "kalshi", "simulator", "market:1", "active", "yes", "no"]
    assert json.loads(ssmd("env", "list", "-o", "json").out)[1] == {
        "name": "kalshi-dev",
        "feed": "kalshi",
        "endpoint": "simulator",
        "schema": "market:1",
        "status": "active",
        "is_current": True,
        "is_running": False,
    }


def test_outside_of_a_workspace(ssmd: Ssmd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    called = ssmd("env", "show")
    assert called.status == 2
    assert called.err == (
        f"error: there is no environment in {tmp_path}/exchanges/environments\n"
        "  try: run ssmd inside a workspace, or name one with --workspace DIR\n"
    )
    assert ssmd("env", "list", "--workspace", "nowhere").err.startswith("error: workspace nowhere is not a directory\n")
    assert ssmd("env", "list", "--workspace", str(tmp_path / "workspace")).status == 0


def test_a_workspace_is_found_from_a_folder_in_it(ssmd: Ssmd, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace / "exchanges" / "feeds")
    assert shown(ssmd, "kalshi-dev") == "kalshi-dev"


def test_state_that_cannot_be_written_is_named(ssmd: Ssmd, workspace: Path) -> None:
    (workspace / ".ssmd").write_text("a file")
    called = ssmd("env", "use", "kalshi-dev")
    assert called.status == 2
    assert called.err.startswith("error: ")
    assert str(workspace / ".ssmd" / "current-env") in called.err
