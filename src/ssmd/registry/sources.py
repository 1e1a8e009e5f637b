"""The documents of a registry directory, each on its own, with the place of every value.

exchanges/feeds/*.yaml          FeedDocument
exchanges/schemas/*.yaml        SchemaDocument, and the definition files they name
exchanges/environments/*.yaml   EnvironmentDocument
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from ssmd.errors import Misconfigured
from ssmd.registry import conversion
from ssmd.registry.documents import EnvironmentDocument, FeedDocument, SchemaDocument
from ssmd.registry.findings import Finding, Place
from ssmd.registry.yaml_nodes import read_yaml

DocumentType = TypeVar("DocumentType", bound=FeedDocument | SchemaDocument | EnvironmentDocument)


class Source(Generic[DocumentType]):
    """A document with the places of its values. `file` is its path from the workspace's root, for messages."""

    def __init__(self, document: DocumentType, file: str, path: Path, places: Mapping[conversion.Path, Place]) -> None:
        self.document = document
        self.file = file
        self.path = path
        self._places = places

    def finding(self, at: conversion.Path, rule: str, message: str, mend: str = "") -> Finding:
        """A finding at the value `at`, or at the nearest value around it that the file has."""
        while at and at not in self._places:
            at = at[:-1]
        return Finding(self.file, *self._places.get(at, Place()), rule, message, mend)


class Sources(NamedTuple):
    """All documents that could be read, by name; `broken` holds those that could not ("feeds/kalshi")."""

    feeds: dict[str, Source[FeedDocument]]
    schemas: dict[str, Source[SchemaDocument]]
    environments: dict[str, Source[EnvironmentDocument]]
    broken: frozenset[str]


def read_sources(root: Path) -> tuple[Sources, list[Finding]]:
    """Every document of the tree on its own, without the rules between documents."""
    if not root.is_dir():
        raise Misconfigured(
            f"there is no registry at {root}: it holds feeds/, schemas/ and environments/",
            mend="run ssmd inside a workspace, or name one with --workspace DIR",
        )
    findings: list[Finding] = []
    broken: set[str] = set()
    sources = Sources(
        _read_folder(root, "feeds", FeedDocument, findings, broken),
        _read_folder(root, "schemas", SchemaDocument, findings, broken),
        _read_folder(root, "environments", EnvironmentDocument, findings, broken),
        frozenset(broken),
    )
    return sources, findings


def _read_folder(
    root: Path, folder: str, document: type[DocumentType], findings: list[Finding], broken: set[str]
) -> dict[str, Source[DocumentType]]:
    sources: dict[str, Source[DocumentType]] = {}
    directory = root / folder
    if not directory.is_dir():
        findings.append(Finding(f"{root.name}/{folder}", 0, 0, "missing-folder", "the folder is missing", f"mkdir {directory}"))
        return sources
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        file = f"{root.name}/{folder}/{path.name}"
        if path.suffix == ".yml":
            findings.append(Finding(file, 0, 0, "file-name", "documents end in .yaml", f"mv {path.name} {path.stem}.yaml"))
        elif path.suffix == ".yaml":
            source, found = _read_document(path, file, document)
            findings += found
            if source is None:
                broken.add(f"{folder}/{path.stem}")
            else:
                sources[path.stem] = source
    return sources


def _read_document(path: Path, file: str, document: type[DocumentType]) -> tuple[Source[DocumentType] | None, list[Finding]]:
    try:
        payload = path.read_bytes()
    except OSError as error:
        return None, [Finding(file, 0, 0, "unreadable", f"cannot be read: {error.strerror or error}")]
    root, findings = read_yaml(file, payload)
    if root is None:
        return None, findings
    converted = conversion.convert(file, root, document)
    findings += converted.findings
    if converted.value is None:
        return None, findings
    source = Source(converted.value, file, path, converted.places)
    if source.document.name != path.stem:
        message = f'name is "{source.document.name}", but the file is {path.name}'
        findings.append(source.finding(("name",), "name-not-file", message, f"write name: {path.stem}, or rename the file"))
    return source, findings
