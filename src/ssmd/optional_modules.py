"""Importing a library without what it would import as well where that is installed.

Some libraries try others at import (nats-py aiohttp, structlog rich), which ssmd needs elsewhere or nowhere, and which
take longer to load than they do. `without` hides such a module from one import; nothing that is loaded is touched.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

# Two threads that each put back the list they found would leave one's finder there, or lose it.
_CHANGING: Final = threading.RLock()


class _Hidden:
    """A finder of modules to which some modules do not exist, for the thread that made it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        if name in self._names and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is hidden from this import", name=name)
        return None


@contextmanager
def without(*names: str) -> Generator[None]:
    """A block in which this thread does not load the modules `names`; they can be imported afterwards."""
    finder = _Hidden(names)
    # Another list each time: a thread that imports meanwhile goes through the one it began with, and misses no finder.
    with _CHANGING:
        sys.meta_path = [finder, *sys.meta_path]
    try:
        yield
    finally:
        with _CHANGING:
            sys.meta_path = [one for one in sys.meta_path if one is not finder]
