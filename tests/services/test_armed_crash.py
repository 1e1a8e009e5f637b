"""Crash points: armed by a file, passed by the running process, gone with the kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssmd import crash_points
from ssmd.errors import Misconfigured
from ssmd.services.armed_crash import ArmedCrash, arm, disarm, hits


def test_the_nth_pass_of_the_named_point_kills_and_disarms(tmp_path: Path) -> None:
    deaths: list[str] = []
    hook = ArmedCrash(tmp_path, "connector", lambda: deaths.append("dead"))
    hook(crash_points.AFTER_TAPE_WRITE)
    arm(tmp_path, "connector", crash_points.AFTER_TAPE_WRITE, 3)
    for _ in range(2):
        hook(crash_points.AFTER_TAPE_WRITE)
        hook(crash_points.AFTER_RAW_ACK)
    assert deaths == []
    hook(crash_points.AFTER_TAPE_WRITE)
    assert deaths == ["dead"]
    assert hits(tmp_path, "connector") == [crash_points.AFTER_TAPE_WRITE]
    for _ in range(5):
        hook(crash_points.AFTER_TAPE_WRITE)
    assert deaths == ["dead"]


def test_disarmed_points_and_those_of_other_components_kill_nobody(tmp_path: Path) -> None:
    deaths: list[str] = []
    hook = ArmedCrash(tmp_path, "projector", lambda: deaths.append("dead"))
    arm(tmp_path, "connector", crash_points.AFTER_TAPE_WRITE)
    hook(crash_points.AFTER_TAPE_WRITE)
    arm(tmp_path, "projector", crash_points.AFTER_FOLD_BEFORE_COMMIT)
    disarm(tmp_path, "projector")
    hook(crash_points.AFTER_FOLD_BEFORE_COMMIT)
    assert deaths == []
    assert hits(tmp_path, "projector") == []


def test_an_unknown_point_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="projector has no crash point 'archive-after-seal'") as refused:
        arm(tmp_path, "projector", crash_points.AFTER_SEAL)
    assert refused.value.mend == f"one of: {', '.join(crash_points.PROJECTOR)}"


def test_the_process_dies_as_by_kill_9(tmp_path: Path) -> None:
    arm(tmp_path, "connector", crash_points.SESSION_CLOSED)
    code = (
        "import sys; from pathlib import Path; from ssmd.services.armed_crash import ArmedCrash\n"
        f"try: ArmedCrash(Path(sys.argv[1]), 'connector')({crash_points.SESSION_CLOSED!r})\n"
        "finally: print('said goodbye')"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=False, timeout=30)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")
    assert hits(tmp_path, "connector") == [crash_points.SESSION_CLOSED]


def test_names_are_unique_and_each_belongs_to_a_component() -> None:
    named = {value for name, value in vars(crash_points).items() if name.isupper() and isinstance(value, str)}
    listed = {*crash_points.CONNECTOR, *crash_points.ARCHIVER, *crash_points.PROJECTOR}
    assert named == listed
    assert len(listed) == len(crash_points.CONNECTOR) + len(crash_points.ARCHIVER) + len(crash_points.PROJECTOR)
