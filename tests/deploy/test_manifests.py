"""The overlays as a cluster would get them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.deploy.conftest import DEPLOY, OVERLAYS
from tests.keys.test_sealing import NOW_NS, certificate_of

from ssmd.identifiers import system_random
from ssmd.keys.sealing import SCOPES, SealedName, load_certificate, sealed_secret
from ssmd.keys.secret import Secret
from ssmd.settings import Workspace
from ssmd.streams.permissions import ROLES
from ssmd.wiring.components import KINDS
from ssmd.wiring.deployment import DEPLOYED, STATEFUL
from ssmd.wiring.environment import resolve_environment

Objects = list[dict[str, Any]]
Overlay = tuple[str, Objects]
WORKLOADS = ("Deployment", "StatefulSet")


def of_kind(objects: Objects, *kinds: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] in kinds}


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (one,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(one)


def test_kubernetes_takes_every_object_as_it_is_written(overlay: Overlay) -> None:
    for one in overlay[1]:
        kubernetes_validate.validate(one, "1.37", strict=True)


def test_every_component_is_deployed_in_its_form(overlay: Overlay) -> None:
    workloads = of_kind(overlay[1], *WORKLOADS)
    assert set(workloads) == {f"ssmd-{kind}" for kind in DEPLOYED}
    # The simulator is a venue for one machine; everything else that `ssmd up` runs is here.
    assert set(KINDS) - {"simulator"} <= {*DEPLOYED}
    assert set(of_kind(overlay[1], "StatefulSet")) == {f"ssmd-{kind}" for kind in STATEFUL}
    assert set(of_kind(overlay[1], "HorizontalPodAutoscaler")) == {"ssmd-gateway"}
    assert "replicas" not in workloads["ssmd-gateway"]["spec"]


def test_every_pod_is_hardened_probed_and_bounded(overlay: Overlay) -> None:
    for name, workload in of_kind(overlay[1], *WORKLOADS).items():
        pod, box = workload["spec"]["template"]["spec"], container(workload)
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert box["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(box), name
        assert set(box["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
        assert set(box["resources"]["requests"]) >= {"cpu", "memory"}
        # A stop finishes what is held (20 s), with time to spare before it is killed.
        assert pod["terminationGracePeriodSeconds"] >= 30
        assert box["image"].rpartition(":")[2] not in ("", "latest")
        writable = [mount["name"] for mount in box["volumeMounts"] if not mount.get("readOnly")]
        assert writable == ["state", "tmp"], name


def test_every_workload_has_a_budget_that_lets_machines_be_drained(overlay: Overlay) -> None:
    budgets = of_kind(overlay[1], "PodDisruptionBudget")
    least = of_kind(overlay[1], "HorizontalPodAutoscaler")["ssmd-gateway"]["spec"]["minReplicas"]
    for name, workload in of_kind(overlay[1], *WORKLOADS).items():
        budget = budgets[name]["spec"]
        assert budget["selector"]["matchLabels"] == workload["spec"]["selector"]["matchLabels"]
        count = workload["spec"].get("replicas", least)
        assert budget.get("maxUnavailable", 0) >= 1 or count > budget["minAvailable"], name


def test_only_connector_and_worker_reach_the_world_and_only_the_gateway_is_reached(overlay: Overlay) -> None:
    policies = of_kind(overlay[1], "NetworkPolicy")
    everything = policies["ssmd-nothing"]["spec"]
    assert (everything["policyTypes"], everything.get("ingress"), everything.get("egress")) == (
        ["Ingress", "Egress"],
        None,
        None,
    )
    outside = [
        policy["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for policy in policies.values()
        if any("ipBlock" in to for rule in policy["spec"].get("egress", ()) for to in rule["to"])
    ]
    assert sorted(outside) == ["connector", "worker"]
    ports = {
        (policy["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component", "all"), port["port"])
        for policy in policies.values()
        for rule in policy["spec"].get("ingress", ())
        for port in rule["ports"]
    }
    assert ports == {("gateway", 8900), ("all", 9090)}
    for name, workload in of_kind(overlay[1], *WORKLOADS).items():
        assert workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "ssmd", name


def test_each_pod_gets_its_own_nats_user_and_only_the_keys_it_needs(overlay: Overlay) -> None:
    expected = {
        "connector": {"ssmd-nats-connector", "ssmd-kalshi"},
        "raw-archiver": {"ssmd-nats-raw-archiver", "ssmd-archive"},
        "normalized-archiver": {"ssmd-nats-normalized-archiver", "ssmd-archive"},
        "projector": {"ssmd-nats-projector", "ssmd-archive"},
        "worker": {"ssmd-nats-worker", "ssmd-kalshi", "ssmd-archive"},
        "gateway": {"ssmd-nats-gateway", "ssmd-archive"},
    }
    assert set(expected) <= set(ROLES)
    for kind, secrets in expected.items():
        workload = of_kind(overlay[1], *WORKLOADS)[f"ssmd-{kind}"]
        volumes = workload["spec"]["template"]["spec"]["volumes"]
        assert {one["secret"]["secretName"] for one in volumes if "secret" in one} == secrets
        assert {one["secret"]["defaultMode"] for one in volumes if "secret" in one} == {0o440}
        variables = {one["name"]: one.get("value") for one in container(workload)["env"]}
        assert variables["SSMD_NATS_NKEY_FILE"] == "/etc/ssmd/nats/seed"
    assert not of_kind(overlay[1], "Secret")


def test_the_config_map_mounted_as_it_says_is_the_environment(overlay: Overlay, tmp_path: Path) -> None:
    """What a pod finds below /workspace/exchanges resolves, with the deployment's servers in it."""
    name, objects = overlay
    env, replicas = OVERLAYS[name]
    maps = of_kind(objects, "ConfigMap")
    for workload in of_kind(objects, *WORKLOADS).values():
        volume = workload["spec"]["template"]["spec"]["volumes"][0]["configMap"]
        root = tmp_path / workload["metadata"]["name"]
        for item in volume["items"]:
            path = root / "exchanges" / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(maps[volume["name"]]["data"][item["key"]])
        environment = resolve_environment(Workspace(root), env, "2026-11-22")
        document = environment.document
        assert environment.server_url("journal", {}) == "nats://ssmd-nats-journal:4222"
        assert (document.journal.replicas, document.transport.replicas) == (replicas, replicas)
        assert (document.storage.backend, document.storage.bucket) == ("s3", f"ssmd-{env}")
        assert (document.gateway.host, document.gateway.auth) == ("0.0.0.0", "keys")
        assert {key.source for key in document.keys.values()} == {"file"}
        (reference,) = container(workload)["envFrom"]
        assert maps[reference["configMapRef"]["name"]]["data"]["SSMD_ENV"] == env
    size = of_kind(objects, "StatefulSet")["ssmd-connector"]["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]
    assert int(size["requests"]["storage"].removesuffix("Gi")) << 30 > document.tape.bytes_max


def strict(schema: Any) -> Any:
    """A CRD's schema for jsonschema: unknown fields refused, Kubernetes' own words translated."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(part) for key, part in schema.items()}
    if result.pop("x-kubernetes-int-or-string", False):
        result = {"type": ["integer", "string"]}
    if (
        "properties" in result
        and "additionalProperties" not in result
        and not result.get("x-kubernetes-preserve-unknown-fields")
    ):
        result["additionalProperties"] = False
    if result.pop("nullable", False) and isinstance(result.get("type"), str):
        result["type"] = [result["type"], "null"]
    return result


@pytest.fixture(scope="module")
def crds(shared_dir: Path) -> dict[str, Any]:
    """By kind, what checks against its strict schema."""
    found = {}
    for path in (shared_dir / "specs" / "k8s").glob("*-crd.yaml"):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]
        for version in definition["versions"]:
            schema = strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
            schema["properties"]["metadata"] = {"type": "object"}
            checks = jsonschema.validators.validator_for(schema)
            checks.check_schema(schema)
            found[definition["names"]["kind"]] = checks(schema)
    return found


def test_argocds_objects_fit_their_definitions(crds: dict[str, Any]) -> None:
    kinds = []
    for path in sorted((DEPLOY / "argocd").glob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text()):
            crds[one["kind"]].validate(one)
            kinds.append(one["kind"])
    assert sorted(set(kinds)) == ["AppProject", "Application"]
    assert kinds.count("Application") == 6


def test_argocd_may_use_what_its_applications_name() -> None:
    project = yaml.safe_load((DEPLOY / "argocd" / "appproject.yaml").read_text())["spec"]
    for path in sorted((DEPLOY / "argocd").glob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text()):
            if one["kind"] != "Application":
                continue
            spec = one["spec"]
            for source in spec.get("sources", [spec.get("source")]):
                assert source["repoURL"] in project["sourceRepos"]
                assert not source.get("path") or (DEPLOY.parent / source["path"] / "kustomization.yaml").is_file()
                for values in source.get("helm", {}).get("valueFiles", ()):
                    assert yaml.safe_load((DEPLOY.parent / values.removeprefix("$values/")).read_text())
            assert {"server": spec["destination"]["server"], "namespace": spec["destination"]["namespace"]} in project[
                "destinations"
            ]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_sealed_secret_fits_its_definition(crds: dict[str, Any], scope: str) -> None:
    key = load_certificate(certificate_of(rsa.generate_private_key(public_exponent=65537, key_size=2048)), NOW_NS)
    document = sealed_secret(SealedName("ssmd-kalshi", "ssmd", scope), {"api_key": Secret("x")}, key, system_random)
    crds["SealedSecret"].validate(document)


def test_the_servers_values_keep_what_the_promises_rest_on() -> None:
    """Three nodes each; the journal syncs every append, market data does not; no password, everything bounded."""
    values = {path.stem: yaml.safe_load(path.read_text()) for path in (DEPLOY / "values").glob("*.yaml")}
    assert set(values) == {"nats-journal", "nats-transport", "redis", "temporal"}
    for name in ("nats-journal", "nats-transport"):
        config = values[name]["config"]
        assert config["cluster"] == {"enabled": True, "replicas": 3}
        assert config["jetstream"]["fileStore"]["pvc"]["enabled"] is True
        assert config["merge"]["00$include"] == "/etc/ssmd-auth/auth.conf"
        assert values[name]["podTemplate"]["topologySpreadConstraints"]["kubernetes.io/hostname"] == {
            "maxSkew": 1,
            "whenUnsatisfiable": "DoNotSchedule",
        }
        tag = values[name]["container"]["image"]["tag"]
        assert tuple(map(int, tag.partition("-")[0].split("."))) >= (2, 12), "older servers have no atomic batches"
        assert set(values[name]["container"]["merge"]["resources"]["limits"]) == {"cpu", "memory"}
    journal, transport = (values[f"nats-{name}"]["config"]["jetstream"] for name in ("journal", "transport"))
    assert journal["merge"]["sync_interval"] == "always"
    assert "sync_interval" not in transport.get("merge", {})
    cache = values["redis"]
    assert "maxmemory-policy noeviction" in cache["valkeyConfig"]
    assert "appendonly yes" in cache["valkeyConfig"]
    persistence = values["temporal"]["server"]["config"]["persistence"]
    for one in ("default", "visibility"):
        assert persistence[one]["sql"]["existingSecret"] == "ssmd-temporal-database"
        assert "password" not in persistence[one]["sql"]
    for name in ("redis", "temporal"):
        resources = cache["resources"] if name == "redis" else values["temporal"]["server"]["resources"]
        assert set(resources["limits"]) == {"cpu", "memory"}
