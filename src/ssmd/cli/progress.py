"""Progress of long work: one line on stderr that replaces itself, on terminals only."""

from __future__ import annotations

import sys


class ProgressLine:
    """Call it with (what, done, of); `of` 0 = not known. Writes at most once a percent. Close it with `end`."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._last: tuple[str, int] = ("", -1)

    def __call__(self, what: str, done: int, of: int) -> None:
        mark = (what, done * 100 // of if of else done)
        if not self._is_shown or mark == self._last:
            return
        self._last = mark
        share = f" of {of:,} ({mark[1]} %)" if of else ""
        sys.stderr.write(f"\r\x1b[K{done:,}{share} {what}")
        sys.stderr.flush()

    def end(self) -> None:
        """Remove the line."""
        if self._is_shown and self._last[1] >= 0:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
