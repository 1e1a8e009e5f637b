"""`ssmd doctor`: verdicts at their bounds, and a whole examination of environments that are well and that are not."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import ROOT, Ssmd, ssmd, workspace  # noqa: F401 - fixtures

from ssmd.services import machine_checks
from ssmd.services.machine_checks import (
    GIB,
    check_directory,
    check_disk,
    check_locale,
    check_memory,
    check_open_files,
    check_port,
    check_python,
    judge_clock,
)

CHECKED = ["python", "nats-server", "valkey-server", "git", "workspace", "disk", "memory", "open files", "clock", "locale"]


def examined(called: Any) -> dict[str, Any]:
    return {one["check"]: one for one in json.loads(called.out)["findings"]}


def test_verdicts_at_their_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        check_python((3, 11, 0)), check_python((3, 10, 9)),
        check_memory(2 * GIB), check_memory(machine_checks.UP_RAM_BYTES - 1), check_memory(GIB // 5), check_memory(None),
        check_open_files(1024, 4096), check_open_files(1023, 4096), check_open_files(255, 4096), check_open_files(-1, -1),
        judge_clock(is_synchronized=True, error_us=1_000_000), judge_clock(is_synchronized=True, error_us=1_000_001),
        judge_clock(is_synchronized=False, error_us=0),
        check_locale("UTF-8", "utf-8"), check_locale("ANSI_X3.4-1968", "utf-8"),
    ]  # fmt: skip
    expected = ["ok", "fail", "ok", "warn", "fail", "ok", "ok", "warn", "fail", "ok", "ok", "warn", "warn", "ok", "warn"]
    assert [one.verdict for one in found] == expected
    assert all(bool(one.mend) == (one.verdict != "ok") for one in found)
    monkeypatch.setattr(machine_checks.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9 * GIB, 4 * GIB, 5 * GIB))  # type: ignore[attr-defined]
    assert [check_disk(tmp_path / "a" / "b", size).verdict for size in (5 * GIB, 6 * GIB)] == ["ok", "warn"]
    monkeypatch.setattr(machine_checks, "DISK_LEAST_BYTES", 6 * GIB)
    assert check_disk(tmp_path, 5 * GIB).verdict == "fail"
    assert check_directory(tmp_path / "not" / "yet").verdict == "ok"
    assert check_directory(Path("/proc")).verdict == "fail"
    assert list(tmp_path.iterdir()) == []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = check_port(port, "gateway port")
        assert (told.verdict, told.found) == ("fail", f"port {port}: Address already in use")
    assert check_port(port, "gateway port").verdict == "ok"


def test_an_environment_that_never_ran(ssmd: Ssmd, workspace: Path) -> None:  # noqa: F811
    called = ssmd("doctor", "--env", "kalshi-dev", "-o", "json")
    found = examined(called)
    assert list(found) == [*CHECKED, "registry", "key kalshi", "storage", "tape disk", "gateway port", "servers"]
    environment = {name: one["verdict"] for name, one in found.items() if one["scope"] == "environment"}
    assert environment.pop("gateway port") in {"ok", "fail"}  # somebody's else on this machine may have it
    assert environment.pop("tape disk") in {"ok", "warn"}
    assert set(environment.values()) == {"ok"}
    verdicts = {one["verdict"] for one in found.values()}
    assert called.status == (2 if "fail" in verdicts else 1 if "warn" in verdicts else 0)
    assert not (workspace / ".ssmd" / "kalshi-dev").exists()
    assert list(examined(ssmd("doctor", "--machine", "-o", "json"))) == CHECKED


def test_what_is_wrong_is_named_with_its_mend(ssmd: Ssmd, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    document = workspace / "exchanges" / "environments" / "kalshi-dev.yaml"
    good = document.read_text()
    document.write_text(
        good.replace("source: generated", "source: env")
        + "  tls_certificate: none.pem\n  tls_key: none.key\n"
        + "transport:\n  url: nats://127.0.0.1:9\njournal:\n  url: nats://127.0.0.1:9\n"
    )
    called = ssmd("doctor", "--env", "kalshi-dev")
    assert called.status == 2
    for line in (
        'fail: key kalshi: key "kalshi" has no value',
        "fail: certificate: ",
        "fail: server transport: nats://127.0.0.1:9: ",
        "fail: server journal: nats://127.0.0.1:9: ",
        "fail: connector main: ",
        "  try: ",
    ):
        assert line in called.err, called
    document.write_text(good.replace("feed: kalshi", "feed: kalshy"))
    found = examined(ssmd("doctor", "--env", "kalshi-dev", "-o", "json"))
    assert (list(found)[-1], found["registry"]["verdict"]) == ("registry", "fail")
    assert "kalshy" in found["registry"]["found"]
    monkeypatch.chdir(workspace.parent)
    found = examined(ssmd("doctor", "-o", "json"))
    assert (found["registry"]["verdict"], "there is no environment" in found["registry"]["found"]) == ("fail", True)


def test_the_budget_of_up_is_what_was_measured_and_what_the_tutorial_says() -> None:
    measured = json.loads((ROOT / "docs" / "measurements" / "up-footprint.json").read_text())
    figures = measured["figures"]
    assert {"ssmd up", "connector", "gateway", "projector", "worker", "temporal", "cache"} <= set(figures["rss_mib_by_process"])
    mib = machine_checks.MIB
    # With a quarter to spare, and for eight hours.
    assert 1.25 * figures["pss_mib"] * mib <= machine_checks.UP_RAM_BYTES <= 2 * figures["pss_mib"] * mib
    assert 8 * figures["disk_mib_per_hour"] * mib <= machine_checks.UP_DISK_BYTES
    tutorial = " ".join((ROOT / "docs" / "tutorial.md").read_text().split())
    memory, disk = figures["pss_mib"] / 1024, figures["disk_mib_per_hour"] / 1024
    assert (
        f"takes about {memory:.1f} GiB of memory and {disk:.0f} GiB of disk in its first hour ({measured['date']}," in tutorial
    )
    assert "Have 1 GiB and 10 GiB free." in tutorial
    assert (machine_checks.UP_RAM_BYTES, machine_checks.UP_DISK_BYTES) == (1 * GIB, 10 * GIB)
