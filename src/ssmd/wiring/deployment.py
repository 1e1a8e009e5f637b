"""An environment as it runs in containers: its documents with servers' addresses in them, and what Kubernetes must know.

A deployment has servers of its own under fixed names, the same in compose.yaml and in a cluster. What an environment calls
embedded is found there, an archive in a directory becomes a bucket, and keys are mounted files: nothing else changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ssmd.errors import Misconfigured, Rejected
from ssmd.registry.documents import EnvironmentDocument, KeyDefinition
from ssmd.registry.integrity import KEY_REFERENCE, split_schema
from ssmd.registry.rendering import block, render
from ssmd.registry.tree import read_tree
from ssmd.wiring.environment import EMBEDDED, ResolvedEnvironment

JOURNAL_URL: Final = "nats://ssmd-nats-journal:4222"
TRANSPORT_URL: Final = "nats://ssmd-nats-transport:4222"
CACHE_URL: Final = "redis://ssmd-cache:6379/0"
STORAGE_URL: Final = "http://ssmd-storage:8333"
TEMPORAL_URL: Final = "ssmd-temporal:7233"
NAMESPACE: Final = "ssmd"
ARCHIVE_KEY: Final = "archive"
STATEFUL: Final = {"connector": "tape", "raw-archiver": "spool", "normalized-archiver": "spool"}
"""Components with a volume, and what is on it."""
DEPLOYED: Final = (*STATEFUL, "projector", "worker", "gateway")
_USES_ARCHIVE: Final = ("raw-archiver", "normalized-archiver", "projector", "worker", "gateway")
_ASKS_VENUE: Final = ("connector", "worker")
_SPOOL_BYTES: Final = 10 << 30
_HEADROOM: Final = 1.25
"""A tape at its bound must not meet a full disk first."""
_HEADING: Final = "# Rendered by `ssmd env render`. Change exchanges/ and render again.\n"


def placed(document: EnvironmentDocument, replicas: int = 1) -> EnvironmentDocument:
    """The document as the containers read it.

    Args:
        replicas: on how many servers of a cluster each stream is, where the servers are the deployment's.

    Raises:
        Rejected: it captures from the simulator, or keeps its journal in a file or in memory: that is for one machine.
    """
    for section, backend in (("journal", document.journal.backend), ("transport", document.transport.backend)):
        if backend != "nats":
            raise Rejected("not-deployable", f'{section}.backend of {document.name} is "{backend}"; containers need nats')
    replace = msgspec.structs.replace
    keys = {name: _mounted(key) for name, key in document.keys.items()}
    storage, journal, transport, cache, gateway, temporal = (
        document.storage, document.journal, document.transport, document.cache, document.gateway, document.temporal,
    )  # fmt: skip
    if storage.backend != "s3":
        keys[ARCHIVE_KEY] = KeyDefinition(type="opaque", fields=("access_key", "secret_key"), source="file")
        storage = replace(storage, backend="s3", url=STORAGE_URL, bucket=f"ssmd-{document.name}", key=f"$key:{ARCHIVE_KEY}")
    return replace(
        document,
        keys=keys,
        storage=storage,
        journal=replace(journal, url=JOURNAL_URL, replicas=replicas) if journal.url == EMBEDDED else journal,
        transport=replace(transport, url=TRANSPORT_URL, replicas=replicas) if transport.url == EMBEDDED else transport,
        cache=replace(cache, backend="redis", url=CACHE_URL) if cache.url == EMBEDDED else cache,
        temporal=replace(temporal, url=TEMPORAL_URL) if temporal.url == EMBEDDED else temporal,
        # Whoever is not on the machine needs a key; TLS ends at the cluster's ingress where the document names no files.
        gateway=replace(gateway, host="0.0.0.0", auth="keys"),  # noqa: S104 - a container's own address; policies say who comes
    )


def _mounted(key: KeyDefinition) -> KeyDefinition:
    """Keys that the deployment mounts as files; those in Vault stay there."""
    if key.source == "vault":
        return key
    return KeyDefinition(
        type=key.type, fields=key.fields, required=key.required, rotation_days=key.rotation_days, source="file"
    )


def rendered(environment: ResolvedEnvironment, replicas: int = 1) -> dict[str, str]:
    """Text by path: a registry with this one environment, and a Kustomize component that puts it into a cluster.

    Args:
        replicas: as of `placed`.

    Raises:
        Rejected: the environment is for one machine (`placed`).
    """
    if environment.uses_simulator:
        raise Rejected(
            "not-deployable", f"{environment.name} captures from the simulator, which runs on one machine", mend="ssmd up"
        )
    document = placed(environment.document, replicas)
    registry = _registry_files(environment, document)
    flat = {path.replace("/", "--"): path for path in registry}
    component = "".join(f"{line}\n" for line in block(_component(document, flat)))
    patches = {_patch_file(kind): _text(_patch(document, kind, flat)) for kind in DEPLOYED}
    files = {f"exchanges/{path}": text for path, text in registry.items()}
    return {**files, **patches, "kustomization.yaml": _HEADING + component}


def _registry_files(environment: ResolvedEnvironment, document: EnvironmentDocument) -> dict[str, str]:
    """The documents the environment is made of, by path below exchanges/."""
    schema, _ = split_schema(document.schema)
    wanted = {f"feeds/{document.feed}.yaml", f"schemas/{schema}.yaml", f"schemas/{environment.schema.definition}"}
    found = {}
    for path, payload in read_tree(environment.workspace.registry).files.items():
        if path in wanted or (path.startswith("schemas/") and path.endswith(".capnp")):
            found[path] = payload.decode()
    missing = sorted(wanted - set(found) - {f"schemas/{environment.schema.definition}"})
    if missing:
        raise Misconfigured(f"the registry lacks {', '.join(missing)}", mend="ssmd validate")
    found[f"environments/{document.name}.yaml"] = render(document, _HEADING)
    return dict(sorted(found.items()))


def _component(document: EnvironmentDocument, flat: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "configMapGenerator": [
            {
                "name": "ssmd-registry",
                "namespace": NAMESPACE,
                "files": [f"{name}=exchanges/{path}" for name, path in flat.items()],
            },
            {
                "name": "ssmd-environment",
                "namespace": NAMESPACE,
                "literals": [f"SSMD_ENV={document.name}", f"SSMD_SHARDS={' '.join(document.shards)}"],
            },
        ],
        "patches": [{"target": _target(kind), "path": _patch_file(kind)} for kind in DEPLOYED],
    }


def _target(kind: str) -> dict[str, str]:
    return {"kind": "StatefulSet" if kind in STATEFUL else "Deployment", "name": f"ssmd-{kind}"}


def _text(operations: list[dict[str, Any]]) -> str:
    return msgspec.json.format(msgspec.json.encode(operations), indent=2).decode() + "\n"


def _patch_file(kind: str) -> str:
    return f"{kind}.patch.json"


def _patch(document: EnvironmentDocument, kind: str, flat: Mapping[str, str]) -> list[dict[str, Any]]:
    """What depends on the environment in one workload. The base has the registry's volume first."""
    pod = "/spec/template/spec"
    items = [{"key": name, "path": path} for name, path in flat.items()]
    operations: list[dict[str, Any]] = [_add(f"{pod}/volumes/0/configMap/items", items)]
    for name in _keys_of(document, kind):
        secret = {"secretName": secret_name(name), "defaultMode": 0o440, "optional": not document.keys[name].required}
        operations += [
            _add(f"{pod}/volumes/-", {"name": f"key-{name}", "secret": secret}),
            _add(
                f"{pod}/containers/0/volumeMounts/-",
                {"name": f"key-{name}", "mountPath": f"/etc/ssmd/keys/{name}", "readOnly": True},
            ),
        ]
    limits = document.limits
    for resource, amount in (
        ("cpu", f"{limits.cpu_millis}m" if limits.cpu_millis else ""),
        ("memory", str(limits.memory_bytes) if limits.memory_bytes else ""),
    ):
        if amount:
            operations.append(_add(f"{pod}/containers/0/resources/limits/{resource}", amount))
            operations.append(_add(f"{pod}/containers/0/resources/requests/{resource}", amount))
    if kind in STATEFUL:
        size = round(document.tape.bytes_max * _HEADROOM) if kind == "connector" else _SPOOL_BYTES
        at = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage"
        operations.append({"op": "replace", "path": at, "value": f"{-(-size // (1 << 30))}Gi"})
    if kind == "connector" and document.shards:
        operations.append({"op": "replace", "path": "/spec/replicas", "value": len(document.shards)})
    return operations


def _add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def secret_name(key: str) -> str:
    """The Kubernetes Secret (or SealedSecret) that holds a key."""
    return f"ssmd-{key}"


def _keys_of(document: EnvironmentDocument, kind: str) -> list[str]:
    """The mounted keys that one component needs, and no others."""
    urls = (document.journal.url, document.transport.url, document.cache.url)
    references = [
        *urls,
        document.capture.key if kind in _ASKS_VENUE else "",
        document.storage.key if kind in _USES_ARCHIVE else "",
    ]
    names = {match.group(1) for text in references if (match := KEY_REFERENCE.fullmatch(text))}
    return sorted(name for name in names if document.keys[name].source != "vault")


def check_rendered_name(path: str) -> str:
    """`path` if it is one that `rendered` gives. Raises Misconfigured: nothing is written anywhere else."""
    if not re.fullmatch(r"(?:exchanges/(?:feeds|schemas|environments)/)?[A-Za-z0-9][A-Za-z0-9_.-]*", path):
        raise Misconfigured(f"{path!r} is no file of a rendered environment")
    return path
