"""`ssmd env render`: an environment as containers read it, kept fresh in the repository."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import Ssmd, ssmd, workspace  # noqa: F401 - fixtures
from tests.deploy.conftest import DEPLOY, OVERLAYS, ROOT

from ssmd.errors import Misconfigured, Rejected
from ssmd.registry.documents import KeyDefinition, Limits, Shard, VaultSettings
from ssmd.settings import Workspace
from ssmd.wiring.deployment import check_rendered_name, placed, rendered
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment


def resolved(name: str) -> ResolvedEnvironment:
    return resolve_environment(Workspace(ROOT), name, "2026-11-22")


@pytest.mark.parametrize(("env", "replicas"), OVERLAYS.values())
def test_what_is_in_the_repository_is_what_the_registry_gives(env: str, replicas: int) -> None:
    directory = DEPLOY / "rendered" / env
    found = {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}
    assert found == rendered(resolved(env), replicas), f"ssmd env render {env} --replicas {replicas}"


def test_what_stays_and_what_changes() -> None:
    document = resolved("kalshi-prod").document
    there = placed(document, 3)
    changed = {name for name in document.__struct_fields__ if getattr(document, name) != getattr(there, name)}
    assert changed == {"keys", "storage", "journal", "transport", "cache", "gateway", "temporal"}
    assert placed(there, 3) == there


def test_servers_buckets_and_vault_of_your_own_are_left_alone() -> None:
    document = resolved("kalshi-prod").document
    replace = msgspec.structs.replace
    vault = KeyDefinition(type="opaque", fields=("t",), source="vault", vault=VaultSettings(url="https://v", path="p"))
    mine = replace(
        document,
        keys={**document.keys, "v": vault},
        journal=replace(document.journal, url="nats://mine:4222", replicas=5),
        storage=replace(document.storage, backend="s3", bucket="mine", key="$key:v"),
    )
    there = placed(mine, 3)
    assert (there.journal, there.storage, there.keys["v"]) == (mine.journal, mine.storage, vault)


def test_shards_and_limits_reach_the_workloads() -> None:
    environment = resolved("kalshi-prod")
    document = msgspec.structs.replace(
        environment.document,
        shards={"crypto": Shard(tickers=("KXBTC*",)), "other": Shard(rest=True)},
        limits=Limits(cpu_millis=1500, memory_bytes=1 << 30),
    )
    files = rendered(dataclasses.replace(environment, document=document))
    operations = {one["path"]: one["value"] for one in msgspec.json.decode(files["connector.patch.json"])}
    assert operations["/spec/replicas"] == 2
    assert operations["/spec/template/spec/containers/0/resources/limits/cpu"] == "1500m"
    assert operations["/spec/template/spec/containers/0/resources/limits/memory"] == str(1 << 30)
    assert "SSMD_SHARDS=crypto other" in files["kustomization.yaml"]


def test_what_is_for_one_machine_is_refused() -> None:
    with pytest.raises(Rejected, match="simulator"):
        rendered(resolved("kalshi-dev"))
    document = resolved("kalshi-prod").document
    with pytest.raises(Rejected, match="containers need nats"):
        placed(msgspec.structs.replace(document, journal=msgspec.structs.replace(document.journal, backend="sqlite")))


@pytest.mark.parametrize("path", ["../x", "/etc/x", "exchanges/../x", "exchanges/feeds/a/b", "exchanges/other/x", "", ".x"])
def test_nothing_is_written_elsewhere(path: str) -> None:
    with pytest.raises(Misconfigured):
        check_rendered_name(path)


def test_render_writes_what_differs_and_check_writes_nothing(ssmd: Ssmd, workspace: Path) -> None:  # noqa: F811 - fixtures
    directory = workspace / "deploy" / "rendered" / "kalshi-prod"
    assert ssmd("env", "render", "kalshi-prod", "--check").status == 1
    assert not directory.exists()
    assert ssmd("env", "render", "kalshi-prod").status == 0
    assert "is as the registry says" in ssmd("env", "render", "kalshi-prod", "--check").err
    path = directory / "kustomization.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    victim = workspace / "victim"
    victim.write_text("precious")
    path.unlink()
    path.symlink_to(victim)
    refused = ssmd("env", "render", "kalshi-prod")
    assert (refused.status, "no plain file" in refused.err, victim.read_text()) == (2, True, "precious")
