"""A crash point's trigger: a process that passes the point named in its file kills itself as kill -9 would.

    {directory}/{component}      "name" or "name:nth": armed for the nth pass from now on (1 = the next)
    {directory}/{component}.hit  one line for every point that killed the component

The file is removed before the kill, so the process that is started next lives. SSMD_CRASH_POINTS names the directory;
without it no process ever looks for one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ssmd.crash_points import OF_COMPONENT
from ssmd.errors import Misconfigured


def arm(directory: Path, component: str, name: str, nth: int = 1) -> None:
    """Let `component` die when it passes the point `name` for the `nth` time.

    Raises:
        Misconfigured: it has no such point.
    """
    known = OF_COMPONENT.get(component, ())
    if name not in known or nth < 1:
        raise Misconfigured(
            f"{component} has no crash point {name!r} to be passed {nth} times",
            mend=f"one of: {', '.join(known) or 'none'}",
        )
    fresh = directory / f"{component}.new"
    fresh.write_text(f"{name}:{nth}\n", encoding="ascii")
    fresh.replace(directory / component)


def disarm(directory: Path, component: str) -> None:
    """Take back what `arm` did, if it has not happened."""
    (directory / component).unlink(missing_ok=True)


def hits(directory: Path, component: str) -> list[str]:
    """The points that have killed the component, in order."""
    try:
        return (directory / f"{component}.hit").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []


def kill_self() -> NoReturn:
    """End this process at once: no `finally`, no buffer written, no goodbye to any server."""
    os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)  # never reached where SIGKILL exists


class ArmedCrash:
    """The hook of one process; see the module.

    Args:
        die: `kill_self`, but for tests.
    """

    def __init__(self, directory: Path, component: str, die: Callable[[], object] = kill_self) -> None:
        self._directory = directory
        self._component = component
        self._die = die
        self._stamp = 0
        self._name = ""
        self._left = 0

    def __call__(self, name: str, /) -> None:
        path = self._directory / self._component
        try:
            stamp = path.stat().st_mtime_ns
            if stamp != self._stamp:
                self._name, _, nth = path.read_text(encoding="ascii").strip().partition(":")
                self._left, self._stamp = int(nth or 1), stamp
        except FileNotFoundError:
            return
        if name != self._name:
            return
        self._left -= 1
        if self._left > 0:
            return
        path.unlink(missing_ok=True)
        with (self._directory / f"{self._component}.hit").open("a", encoding="ascii") as told:
            told.write(f"{name}\n")
        self._die()
