"""Server configurations that are shipped are accepted by the server they are for."""

from __future__ import annotations

import subprocess

import pytest
from tests.conftest import ROOT

from ssmd.services.embedded_servers import find_nats_server


@pytest.mark.parametrize("name", ["journal", "transport"])
def test_nats_takes_its_configuration(name: str) -> None:
    checked = subprocess.run(
        [find_nats_server(), "-t", "-c", ROOT / "deploy" / "nats" / f"{name}.conf"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"SSMD_NATS_NAME": "test"},
    )
    assert checked.returncode == 0, checked.stderr
    assert "is valid" in checked.stdout + checked.stderr


def test_only_the_journal_syncs_always() -> None:
    settings = {name: (ROOT / "deploy" / "nats" / f"{name}.conf").read_text() for name in ("journal", "transport")}
    assert "sync_interval: always" in settings["journal"]
    assert "sync_interval" not in settings["transport"]
    assert "persist_mode" not in settings["journal"]
