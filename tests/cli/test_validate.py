import json
from pathlib import Path
from typing import Any

Ssmd = Any


def test_a_registry_without_mistakes(ssmd: Ssmd, workspace: Path) -> None:
    assert ssmd("validate") == (0, "", "no mistake in 5 documents\n")
    assert ssmd("validate", str(workspace)) == (0, "", "no mistake in 5 documents\n")
    assert ssmd("validate", "exchanges", "-o", "json") == (0, "[]\n", "no mistake in 5 documents\n")


def test_mistakes_are_listed_and_the_status_is_1(ssmd: Ssmd, workspace: Path) -> None:
    path = workspace / "exchanges/environments/kalshi-dev.yaml"
    path.write_text(path.read_text().replace("markets: 20", 'markets: "20"').replace("feed: kalshi", "feed: kalsi"))
    called = ssmd("validate")
    assert (called.status, called.err) == (1, "1 mistake\n")
    assert called.out.splitlines()[1].startswith("exchanges/environments/kalshi-dev.yaml:16:14  wrong-type")
    assert json.loads(ssmd("validate", "-o", "json").out) == [
        {
            "file": "exchanges/environments/kalshi-dev.yaml",
            "line": 16,
            "column": 14,
            "rule": "wrong-type",
            "message": 'capture.simulator.markets must be an integer, found the text "20"',
            "mend": "write 20 without quotes",
        }
    ]


def test_other_commands_refuse_a_registry_with_mistakes_and_list_them(ssmd: Ssmd, workspace: Path) -> None:
    path = workspace / "exchanges/feeds/kalshi.yaml"
    path.write_text(path.read_text().replace("status: active", "status: aktive"))
    called = ssmd("env", "show", "kalshi-dev")
    assert called.status == 2
    assert called.err == (
        "error: the registry has 1 mistake:\n"
        "  exchanges/feeds/kalshi.yaml:5:9: status must be one of active, deprecated, draft; found the text aktive"
        ' (did you mean "active"?) [unknown-value]\n'
        "  try: ssmd validate\n"
    )


def test_no_registry(ssmd: Ssmd, tmp_path: Path) -> None:
    called = ssmd("validate", str(tmp_path / "nothing"))
    assert called.status == 2
    assert "there is no registry at" in called.err
