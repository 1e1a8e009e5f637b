"""The documents of a registry directory, each on its own, with the place of every value.

exchanges/feeds/*.yaml          FeedDocument
exchanges/schemas/*.yaml        SchemaDocument, and the definition files they name
exchanges/environments/*.yaml   EnvironmentDocument
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Generic, NamedTuple, TypeVar

from ssmd.registry import conversion
from ssmd.registry.documents import EnvironmentDocument, FeedDocument, SchemaDocument
from ssmd.registry.findings import Finding, Place
from ssmd.registry.tree import Tree
from ssmd.registry.yaml_nodes import read_yaml

DocumentType = TypeVar("DocumentType", bound=FeedDocument | SchemaDocument | EnvironmentDocument)


class Source(Generic[DocumentType]):
    """A document with the places of its values. `file` is its path from the workspace's root, for messages."""

    def __init__(self, document: DocumentType, file: str, places: Mapping[conversion.Path, Place]) -> None:
        self.document = document
        self.file = file
        self._places = places

    def finding(self, at: conversion.Path, rule: str, message: str, mend: str = "") -> Finding:
        """A finding at the value `at`, or at the nearest value around it that the file has."""
        while at and at not in self._places:
            at = at[:-1]
        return Finding(self.file, *self._places.get(at, Place()), rule, message, mend)


class Sources(NamedTuple):
    """All documents that could be read, by name; `broken` holds those that could not ("feeds/kalshi")."""

    tree: Tree
    feeds: dict[str, Source[FeedDocument]]
    schemas: dict[str, Source[SchemaDocument]]
    environments: dict[str, Source[EnvironmentDocument]]
    broken: frozenset[str]


def read_sources(tree: Tree) -> tuple[Sources, list[Finding]]:
    """Every document of the tree on its own, without the rules between documents."""
    findings: list[Finding] = []
    broken: set[str] = set()
    sources = Sources(
        tree,
        _read_folder(tree, "feeds", FeedDocument, findings, broken),
        _read_folder(tree, "schemas", SchemaDocument, findings, broken),
        _read_folder(tree, "environments", EnvironmentDocument, findings, broken),
        frozenset(broken),
    )
    return sources, findings


def _read_folder(
    tree: Tree, folder: str, document: type[DocumentType], findings: list[Finding], broken: set[str]
) -> dict[str, Source[DocumentType]]:
    sources: dict[str, Source[DocumentType]] = {}
    if folder not in tree.folders:
        mend = f"mkdir {tree.root / folder}"
        findings.append(Finding(f"{tree.root.name}/{folder}", 0, 0, "missing-folder", "the folder is missing", mend))
        return sources
    for name in sorted({*tree.files, *tree.unreadable}):
        path = PurePosixPath(name)
        if path.parent.name != folder:
            continue
        file = f"{tree.root.name}/{name}"
        if path.suffix == ".yml":
            findings.append(Finding(file, 0, 0, "file-name", "documents end in .yaml", f"mv {path.name} {path.stem}.yaml"))
        elif path.suffix == ".yaml":
            if name in tree.unreadable:
                source, found = None, [Finding(file, 0, 0, "unreadable", f"cannot be read: {tree.unreadable[name]}")]
            else:
                source, found = _read_document(path, file, tree.files[name], document)
            findings += found
            if source is None:
                broken.add(f"{folder}/{path.stem}")
            else:
                sources[path.stem] = source
    return sources


def _read_document(
    path: PurePosixPath, file: str, payload: bytes, document: type[DocumentType]
) -> tuple[Source[DocumentType] | None, list[Finding]]:
    root, findings = read_yaml(file, payload)
    if root is None:
        return None, findings
    converted = conversion.convert(file, root, document)
    findings += converted.findings
    if converted.value is None:
        return None, findings
    source = Source(converted.value, file, converted.places)
    if source.document.name != path.stem:
        message = f'name is "{source.document.name}", but the file is {path.name}'
        findings.append(source.finding(("name",), "name-not-file", message, f"write name: {path.stem}, or rename the file"))
    return source, findings
