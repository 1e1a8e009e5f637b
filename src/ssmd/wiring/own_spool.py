"""A directory for files that a command makes before it stores them: its own while it runs, empty when it begins."""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ssmd.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from ssmd.wiring.environment import ResolvedEnvironment


@contextmanager
def own_spool(environment: ResolvedEnvironment, name: str) -> Generator[Path]:
    """The environment's spool `name`. What a killed run left there is removed.

    Raises:
        Misconfigured: another process has it.
        Unavailable: it cannot be written.
    """
    spool = environment.directory / "spool" / name
    try:
        spool.mkdir(parents=True, exist_ok=True)
        with spool.with_name(f"{name}.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Misconfigured(f"another process makes files in {spool}", mend="wait until it has ended") from error
            for left in spool.iterdir():
                left.unlink()
            yield spool
    except TimeoutError:
        raise  # an OSError too, and not the spool's
    except OSError as error:
        raise Unavailable(f"{spool}: {error.strerror or error}", mend="make room, or the directory writable") from error
