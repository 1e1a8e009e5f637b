"""Of several processes of one component, which one this is; and that no two are the same one.

An archiver takes the first free name (main, main-2, ...) with the spool that goes with it: whoever comes later stands by
(`services.standby`). A connector's name is its connection, which nobody else may capture meanwhile. On one machine the
lock on the spool or tape decides; between machines, whether somebody answers under that name.
"""

from __future__ import annotations

import fcntl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Final

from ssmd.errors import Misconfigured, Rejected
from ssmd.identifiers import encode_token

MAIN: Final = "main"
INSTANCES_MAX: Final = 9

Ask = Callable[[str], Awaitable[bool]]
"""Whether somebody answers under that instance's name now; must not raise."""


async def claim_archiver(
    component: str, given: str, spools: Path, answers: Ask | None, stack: AsyncExitStack
) -> tuple[str, Path]:
    """The instance's name and its spool, kept for this process until `stack` is closed or the process ends.

    Args:
        given: the name wanted, "" = the first free one.
        spools: directory of the environment's spools.
        answers: None = there is no server to ask over.

    Raises:
        Misconfigured: the name wanted is taken, or none is free, or the directory cannot be written.
    """
    names = [given] if given else [MAIN, *(f"{MAIN}-{number}" for number in range(2, INSTANCES_MAX + 1))]
    taken = ""
    for name in names:
        spool = spools / (component if name == MAIN else f"{component}-{encode_token(name)}")
        lock = _locked(spool)
        if lock is None:
            taken = f"the {component} {name!r} runs on this machine already: it holds {spool}.lock"
        elif answers is not None and await answers(name):
            lock.close()
            taken = f"a {component} {name!r} runs already: it answers on the transport server"
        else:
            stack.callback(lock.close)
            return name, spool
    raise Misconfigured(taken, mend=f"stop it, or give this one a name of its own: SSMD_INSTANCE={names[-1]}-b")


def _locked(spool: Path) -> IO[bytes] | None:
    """The lock beside `spool`; None while another process has it. It ends with its process, however that ends."""
    path = spool.with_name(f"{spool.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("ab")
    except OSError as error:
        raise Misconfigured(f"cannot write {path}: {error.strerror}", mend="choose a writable workspace") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


async def refuse_second_connector(feed: str, connection: str, answers: Ask | None) -> None:
    """Let a connector begin only where none of its connection answers; one that is silent is fenced by its epoch.

    Raises:
        Rejected: "capture-taken".
    """
    if answers is not None and await answers(connection):
        raise Rejected(
            "capture-taken",
            f"connection {connection} of {feed} is captured already: its connector answers on the transport server",
            mend="stop that connector first, or give this environment a capture.connection of its own",
        )
