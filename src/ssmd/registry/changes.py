"""Changes of the registry: the whole tree is checked as it would be, then written, or nothing is.

A change holds the lock of the exchanges/ directory from its reading to its writing, so that two at once do not undo each
other. Each file is replaced at one instant; definitions come before the documents that name them.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ssmd.errors import Misconfigured, Rejected, Unavailable
from ssmd.registry.findings import Finding
from ssmd.registry.loader import check_tree
from ssmd.registry.tree import Tree, read_tree

LOCK_WAIT_S: Final = 10.0
LOCK_POLL_S: Final = 0.02

Edit = Callable[[Tree], Mapping[str, bytes]]
"""What files become, by their path in exchanges/, from the tree as it is. Raises Rejected to refuse."""


class RefusedChange(Rejected):
    """The change would leave a registry with mistakes; nothing was written. `findings` holds them."""

    def __init__(self, findings: Sequence[Finding], *, is_old: bool) -> None:
        self.findings = tuple(findings)
        count = f"{len(findings)} mistake{'' if len(findings) == 1 else 's'}"
        head = f"the registry has {count} already" if is_old else f"this would leave the registry with {count}"
        lines = "\n".join([f"{head}; nothing was changed:", *(f"  {finding}" for finding in findings)])
        super().__init__("registry-mistakes", lines, mend="ssmd validate" if is_old else "")


def change_registry(root: Path, edit: Edit, *, date: str, is_dry: bool = False) -> dict[str, tuple[bytes, bytes]]:
    """Apply `edit` to the registry `root` (exchanges/); path -> (bytes before, bytes after) of what changed.

    Args:
        date: as of which feed versions are judged (YYYY-MM-DD, UTC).
        is_dry: check and tell, write nothing.

    Raises:
        RefusedChange: the result has mistakes.
        Rejected: the edit refuses by itself.
        Misconfigured: there is no registry, or it cannot be written.
        Unavailable: another change holds the registry.
    """
    if not root.is_dir():
        read_tree(root)  # says what is missing
    with _locked(root):
        tree = read_tree(root)
        wanted = {name: payload for name, payload in edit(tree).items() if tree.files.get(name) != payload}
        findings = check_tree(tree.with_changes(wanted), date=date)[1]
        if findings:
            before = check_tree(tree, date=date)[1]
            raise RefusedChange(findings, is_old=set(findings) <= set(before))
        if wanted and not is_dry:
            write_files(root, wanted, within=root.resolve().parent)
    return {name: (tree.files.get(name, b""), payload) for name, payload in wanted.items()}


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    handle = os.open(root, os.O_RDONLY)
    try:
        waited_s = 0.0
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited_s >= LOCK_WAIT_S:
                    raise Unavailable(
                        f"another change of {root} has not ended within {LOCK_WAIT_S:g} s", mend="the same command again"
                    ) from None
            time.sleep(LOCK_POLL_S)
            waited_s += LOCK_POLL_S
        yield
    finally:
        os.close(handle)


def write_files(root: Path, files: Mapping[str, bytes], *, within: Path | None = None) -> None:
    """Write `files` under `root`, each whole or not at all; all are on disk before the first takes its place.

    Args:
        within: where links may lead; default: below `root`. A checkout may hold links that somebody else made.

    Raises:
        Misconfigured: a file cannot be written, or leads elsewhere: then nothing was. Of several, some may have been.
    """
    staged: list[tuple[Path, Path]] = []
    path = root
    try:
        for name in files:
            path = (root / name).resolve()
            if not path.is_relative_to(within or root.resolve()):
                raise Misconfigured(f"{root / name} leads out of the workspace, to {path}", mend="replace the link by a file")
        for name in sorted(files, key=lambda name: (name.endswith(".yaml"), name)):
            path = (root / name).resolve()  # what is a link stays one
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.append((_staged(path, files[name]), path))
        while staged:
            fresh, path = staged[0]
            fresh.replace(path)
            staged.pop(0)
    except OSError as error:
        raise Misconfigured(f"cannot write {path}: {error.strerror or error}", mend="choose a writable workspace") from error
    finally:
        for fresh, _ in staged:
            fresh.unlink(missing_ok=True)


def _staged(path: Path, payload: bytes) -> Path:
    """A hidden file beside `path` with `payload`, on disk, of the mode that `path` has."""
    handle, name = tempfile.mkstemp(prefix=".", suffix=".new", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    fresh = Path(name)
    fresh.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
    return fresh
