"""Fewer runs of Python's cycle collector while a journal is folded.

Nearly all that a fold makes is freed by reference counts; still every 700 objects more than were freed begin a collection,
which looks at thousands of rows and events in flight and finds nothing: a tenth of a rebuild's time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

OBJECTS_NEW: Final = 50_000
"""So many objects more than were freed begin a collection: what cycles hold in the meantime is some 10 MB."""

_thresholds_before: list[tuple[int, int, int]] = []
"""Of those who are within `collecting_rarely`: one entry each; the first is what was before all of them."""


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Within the block cycles are collected at `OBJECTS_NEW`; blocks may overlap, the last one out restores what was."""
    before = gc.get_threshold()
    _thresholds_before.append(before)
    # 0 = somebody switched it off, more = somebody wants it rarer still.
    if 0 < before[0] < OBJECTS_NEW:
        gc.set_threshold(OBJECTS_NEW, *before[1:])
    try:
        yield
    finally:
        first = _thresholds_before[0]
        _thresholds_before.pop()
        if not _thresholds_before:
            gc.set_threshold(*first)
