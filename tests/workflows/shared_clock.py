"""A clock of several processes that stands still until one of them moves it."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_TIME = struct.Struct("<q")


class SharedClock:
    """`ssmd.clock.Clock` in a file. Both of its times move together: a jump is time that passed, not a clock set anew."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_TIME.pack(0))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _TIME.size)

    def now_ns(self) -> int:
        found: int = _TIME.unpack_from(self._memory)[0]
        return found

    monotonic_ns = now_ns

    def move(self, now_ns: int) -> None:
        """Let the time pass until `now_ns`, for every process."""
        assert now_ns >= self.now_ns()
        _TIME.pack_into(self._memory, 0, now_ns)
