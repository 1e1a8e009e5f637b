"""The registry: every document checked on its own and against the others, every mistake reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ssmd.registry.documents import EnvironmentDocument, FeedDocument, SchemaDocument
from ssmd.registry.findings import Finding, InvalidRegistry
from ssmd.registry.integrity import integrity_findings
from ssmd.registry.sources import read_sources
from ssmd.registry.tree import Tree, read_tree


class Registry(NamedTuple):
    """A registry without mistakes, by name. `root` is the exchanges/ directory."""

    root: Path
    feeds: Mapping[str, FeedDocument]
    schemas: Mapping[str, SchemaDocument]
    environments: Mapping[str, EnvironmentDocument]


def load_registry(root: Path, *, date: str = "") -> Registry:
    """The registry under `root` (the exchanges/ directory).

    Args:
        date: as of which feed versions are judged (YYYY-MM-DD, UTC); "" = by their newest.

    Raises:
        InvalidRegistry: lists everything that is wrong.
        Misconfigured: there is no registry.
    """
    registry, findings = check_registry(root, date=date)
    if findings:
        raise InvalidRegistry(findings)
    return registry


def check_registry(root: Path, *, date: str = "") -> tuple[Registry, list[Finding]]:
    """What could be read, and all that is wrong, by file and line.

    Raises:
        Misconfigured: there is no registry.
    """
    return check_tree(read_tree(root), date=date)


def check_tree(tree: Tree, *, date: str = "") -> tuple[Registry, list[Finding]]:
    """As `check_registry`, for files that need not be on disk."""
    sources, findings = read_sources(tree)
    findings += integrity_findings(sources, date=date)
    registry = Registry(
        tree.root,
        {name: source.document for name, source in sources.feeds.items()},
        {name: source.document for name, source in sources.schemas.items()},
        {name: source.document for name, source in sources.environments.items()},
    )
    return registry, sorted(set(findings))
