"""A new workspace: exchanges/ with its folders and editor schemas, .ssmd/ for local state, and git told to pass that over."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ssmd.errors import Misconfigured
from ssmd.registry.bootstrap import kalshi_files
from ssmd.registry.changes import write_files
from ssmd.registry.editor_schemas import editor_schema_files
from ssmd.registry.tree import FOLDERS

STATE: Final = ".ssmd/"


def planned(root: Path, *, with_kalshi: bool) -> tuple[dict[str, bytes], list[str]]:
    """(files to write by their path under `root`, files that are there with other content and stay).

    Generated files (editor schemas) are always brought up to date.
    """
    wanted = {f"exchanges/{name}": payload for name, payload in (kalshi_files() if with_kalshi else {}).items()}
    for folder in FOLDERS:
        # git keeps no empty folder.
        if not any(name.startswith(f"exchanges/{folder}/") for name in wanted) and not _has_files(root / "exchanges" / folder):
            wanted[f"exchanges/{folder}/.gitkeep"] = b""
    kept = [name for name, payload in wanted.items() if (found := _read(root / name)) is not None and found != payload]
    files = {name: payload for name, payload in wanted.items() if _read(root / name) is None}
    for name, payload in editor_schema_files().items():
        if _read(root / "exchanges" / name) != payload:
            files[f"exchanges/{name}"] = payload
    ignore = _read(root / ".gitignore") or b""
    if not {b".ssmd/", b".ssmd", b"/.ssmd/", b"/.ssmd"} & {line.strip() for line in ignore.splitlines()}:
        newline = b"\r\n" if b"\r\n" in ignore else b"\n"
        gap = newline if ignore and not ignore.endswith(b"\n") else b""
        files[".gitignore"] = ignore + gap + STATE.encode() + newline
    return files, sorted(kept)


def create(root: Path, files: dict[str, bytes]) -> None:
    """Write what `planned` gave, and the state directory. Raises Misconfigured when that cannot be done."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / ".ssmd").mkdir(exist_ok=True)
        for folder in FOLDERS:
            (root / "exchanges" / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make a workspace at {root}: {error.strerror or error}"
        raise Misconfigured(message, mend="choose a writable directory") from error
    write_files(root, files)


def _has_files(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror or error}") from error
