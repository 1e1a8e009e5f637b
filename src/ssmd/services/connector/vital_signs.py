"""Figures by which a connection is judged from outside: how long nothing came, how long the streams have lacked something."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ssmd.clock import Clock
from ssmd.streams.publisher import NOWHERE, EntryPlace
from ssmd.streams.recorder import Recorder


class VitalSigns:
    """Of one connection. `pause_at` as in `Venue`."""

    def __init__(self, clock: Clock, tape_directory: Path, pause_at: Callable[[int], str]) -> None:
        self._pause_at = pause_at
        self._clock = clock
        self._directory = tape_directory
        self._began_ns = clock.now_ns()
        self._frame_ns = 0
        self._awaited = NOWHERE
        self._awaited_since_ns = clock.monotonic_ns()

    def tick(self, recorder: Recorder | None, *, written: EntryPlace, acked: EntryPlace) -> None:
        """Once a second: how far the tape goes, and how much of it the streams have."""
        if recorder is not None:
            self._frame_ns = max(self._frame_ns, recorder.last_frame_ns)
        if acked >= self._awaited:
            self._awaited, self._awaited_since_ns = written, self._clock.monotonic_ns()

    def stats(self, recorder: Recorder | None, acked: EntryPlace, *, is_connected: bool) -> dict[str, int | str]:
        """For `Health.stats`. A connector that never had a frame counts from its start."""
        frame_ns = max(self._frame_ns, recorder.last_frame_ns if recorder is not None else 0) or self._began_ns
        lag_ns = self._clock.monotonic_ns() - self._awaited_since_ns if acked < self._awaited else 0
        return {
            "connected": int(is_connected),
            "planned_pause": int(bool(self._pause_at(self._clock.now_ns()))),
            "acked_session": acked.session,
            "acked_n": acked.n,
            "frame_age_ms": max(0, self._clock.now_ns() - frame_ns) // 1_000_000,
            "publish_lag_ms": lag_ns // 1_000_000,
            "disk_free_bytes": shutil.disk_usage(self._directory).free if self._directory.is_dir() else 0,
        }
