"""The directory an embedded server keeps its data in: made, locked for one owner, freed of what a crashed run left.

The lock (flock) ends with the process that holds it, however that ends; so a server that still runs there while the
lock is free has lost its owner.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ssmd.errors import Misconfigured
from ssmd.services.processes import read_mark, stop_leftover


async def occupy(directory: Path, log_path: Path | None, say: Callable[[str], None] | None) -> tuple[Path, Path, IO[str]]:
    """Make the directory, lock it, stop what an earlier run left in it. Returns absolute paths, and the lock."""
    directory, log_path, lock = _locked(directory, log_path)
    try:
        mark = read_mark(directory / "server.json")
        if mark is not None and await stop_leftover(mark):
            line = f"stopped process {mark.pid}, left in {directory} by a run that ended without stopping it"
            with log_path.open("a", encoding="utf-8") as log:
                log.write(f"[ssmd] {line}\n")
            if say is not None:
                say(line)
    except BaseException:
        lock.close()
        raise
    return directory, log_path, lock


def _locked(directory: Path, log_path: Path | None) -> tuple[Path, Path, IO[str]]:
    directory = directory.absolute()
    log_path = directory / "server.log" if log_path is None else log_path.absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a", encoding="ascii")
    except OSError as error:
        raise Misconfigured(
            f"cannot keep a server's data in {directory}: {error.filename}: {error.strerror}",
            mend="choose a writable directory",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Misconfigured(
            f"{directory} is in use by another ssmd process", mend="stop the other `ssmd up`, or choose another directory"
        ) from None
    return directory, log_path, lock


def write_config(path: Path, lines: list[str]) -> Path:
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"cannot write {path}: {error.strerror}", mend="choose a writable directory") from error
    return path
