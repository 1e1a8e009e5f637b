"""What a key's definition must say for its source, checked with the registry."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from ssmd.errors import SsmdError
from ssmd.registry.documents import KeyDefinition, SealedSecretSettings, VaultSettings
from ssmd.registry.loader import load_registry

ROOT = Path(__file__).parents[2]
FIELDS = "    fields: [api_key, private_key]\n"


def load(tmp_path: Path, more: str) -> KeyDefinition:
    registry = tmp_path / "exchanges"
    shutil.copytree(ROOT / "exchanges", registry)
    path = registry / "environments" / "kalshi-prod.yaml"
    path.write_text(path.read_text().replace(FIELDS, FIELDS + more))
    return load_registry(registry, date="2026-11-22").environments["kalshi-prod"].keys["kalshi"]


SEALED = "    source: sealed-secret\n    sealed_secret: {{name: {name}, certificate: {certificate}, manifest: {manifest}}}\n"


BASE = KeyDefinition(type="kalshi-api-key", fields=("api_key", "private_key"))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", BASE),
        ("    source: local\n    rotation_days: 0\n", replace(BASE, source="local", rotation_days=0)),
        ("    source: file\n    path: secrets/kalshi\n", replace(BASE, source="file", path="secrets/kalshi")),
        (
            SEALED.format(name="creds", certificate="c.pem", manifest="deploy/m.yaml"),
            replace(
                BASE,
                source="sealed-secret",
                sealed_secret=SealedSecretSettings(name="creds", certificate="c.pem", manifest="deploy/m.yaml"),
            ),
        ),
        (
            "    source: vault\n    vault: {url: 'https://vault:8200', path: ssmd/kalshi, role: ssmd}\n",
            replace(BASE, source="vault", vault=VaultSettings(url="https://vault:8200", path="ssmd/kalshi", role="ssmd")),
        ),
    ],
)
def test_each_source_is_defined_as_it_is_written(tmp_path: Path, more: str, expected: KeyDefinition) -> None:
    assert load(tmp_path, more) == expected


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("    source: sealed-secret\n", "lacks sealed_secret.name"),
        ("    source: vault\n", "lacks vault.url"),
        ("    source: somewhere\n", "source"),
        ("    rotation_days: -1\n", "rotation_days"),
        ("    path: ../../etc\n", 'must not hold ".."'),
        (SEALED.format(name="Creds", certificate="c.pem", manifest="m.yaml"), "is no name of Kubernetes"),
        (SEALED.format(name="creds", certificate="c.pem", manifest="../m.yaml"), "must be a path inside the workspace"),
        (SEALED.format(name="creds", certificate="/etc/c.pem", manifest="m.yaml"), "must be a path inside the workspace"),
        ("    source: vault\n    vault: {url: 'http://vault:8200', path: p}\n", "must begin with https://"),
        ("    source: vault\n    vault: {url: 'https://user:pw@vault', path: p}\n", "hold no user"),
        ("    value: hunter2\n", 'unknown key "value"'),
    ],
)
def test_a_definition_that_cannot_work_is_refused(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(SsmdError) as caught:
        load(tmp_path, more)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)
