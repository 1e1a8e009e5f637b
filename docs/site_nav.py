# ruff: noqa: INP001 - a hook of mkdocs, no module of a package
"""Fills the site's navigation: whole folders, and explanation pages that mkdocs.yml does not name. So none is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDERS = {"Runbooks": "runbooks", "Reference": "reference", "Decisions": "decisions"}


def on_config(config: Any) -> Any:
    """Called by mkdocs with its settings before anything is read."""
    docs = Path(config["docs_dir"])
    for section in config["nav"]:
        for title, folder in FOLDERS.items():
            if title in section:
                names = sorted(path.name for path in (docs / folder).glob("*.md"))
                section[title] = [f"{folder}/{name}" for name in sorted(names, key=lambda name: name != "README.md")]
    named = {page for section in config["nav"] for entry in section.values() for page in _pages(entry)}
    explanation = next(section for section in config["nav"] if "Explanation" in section)
    explanation["Explanation"] += sorted(path.name for path in docs.glob("*.md") if path.name not in named)
    return config


def _pages(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in _pages(value)]
