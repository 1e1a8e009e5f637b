"""The files of a registry as bytes: as they are on disk, as a git commit has them, or with an edit laid over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.errors import Misconfigured

FOLDERS: Final = ("feeds", "schemas", "environments")


class Tree(NamedTuple):
    """Files by their path under `root` ("feeds/kalshi.yaml").

    Attributes:
        root: the exchanges/ directory; of a commit's tree, the directory it was asked for.
        unreadable: files that are there and could not be read -> why.
        folders: which of FOLDERS there are.
    """

    root: Path
    files: Mapping[str, bytes]
    unreadable: Mapping[str, str]
    folders: frozenset[str]

    def with_changes(self, changes: Mapping[str, bytes]) -> Tree:
        """This tree with `changes` written over it."""
        return self._replace(
            files={**self.files, **changes},
            unreadable={name: why for name, why in self.unreadable.items() if name not in changes},
            folders=self.folders | {name.partition("/")[0] for name in changes},
        )

    def only(self, *folders: str) -> Tree:
        """This tree without the files of other folders."""
        return self._replace(
            files={name: payload for name, payload in self.files.items() if name.partition("/")[0] in folders},
            unreadable={name: why for name, why in self.unreadable.items() if name.partition("/")[0] in folders},
        )


def tree_of_files(root: Path, files: Mapping[str, bytes]) -> Tree:
    """A tree that holds exactly `files`."""
    return Tree(root, files, {}, frozenset(FOLDERS))


def read_tree(root: Path) -> Tree:
    """What stands in the folders of the registry directory `root`, hidden files and folders in them passed over.

    Raises:
        Misconfigured: there is no such directory.
    """
    if not root.is_dir():
        raise Misconfigured(
            f"there is no registry at {root}: it holds feeds/, schemas/ and environments/",
            mend="run ssmd inside a workspace, name one with --workspace DIR, or make one: ssmd init",
        )
    files: dict[str, bytes] = {}
    unreadable: dict[str, str] = {}
    folders = {folder for folder in FOLDERS if (root / folder).is_dir()}
    for folder in sorted(folders):
        for path in sorted((root / folder).iterdir()):
            if path.name.startswith(".") or path.is_dir():
                continue
            name = f"{folder}/{path.name}"
            if path.exists() and not path.is_file():
                unreadable[name] = "not a file"
                continue
            try:
                files[name] = path.read_bytes()
            except OSError as error:
                unreadable[name] = error.strerror or str(error)
    return Tree(root, files, unreadable, frozenset(folders))
