"""The commands of docs/keys.md do what it says, and what it and docs/threat-model.md name is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from tests.cli.conftest import Ssmd, ssmd, workspace  # noqa: F401 - fixtures
from tests.cli.test_key import ENVIRONMENT
from tests.keys.test_sealing import certificate_of

ROOT = Path(__file__).parents[2]
KEYS = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
THREATS = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


def test_the_commands_of_the_page_work(ssmd: Ssmd, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    (workspace / "exchanges" / "environments" / "small.yaml").write_text(ENVIRONMENT.format(source="local"))
    monkeypatch.setenv("SSMD_ENV", "small")
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (workspace / "kalshi.pem").write_bytes(pem)
    (workspace / "api_key.txt").write_text("an-id\n")
    controller = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (workspace / "cluster.pem").write_bytes(certificate_of(controller, days=36_500))
    commands = re.findall(r"^    ssmd (.*)$", KEYS, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        called = ssmd(*shlex.split(command))
        assert called.status == 0, (command, called.err)
    assert (workspace / "ssmd-kalshi.yaml").read_text().count("kind:") == 1


def test_what_the_pages_name_is_there() -> None:
    for path in re.findall(r"`(tests/[a-z_/.]+)`", THREATS + KEYS):
        assert (ROOT / path).exists(), path
    named = set(re.findall(r"^\| `([a-z-]+)` \|", KEYS, re.MULTILINE))
    assert named == {"env", "generated", "local", "file", "sealed-secret", "vault"}
