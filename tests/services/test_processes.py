from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssmd.errors import Misconfigured
from ssmd.services.processes import ProcessMark, is_running, mark_of, read_mark, spawn, stop_child, stop_leftover, write_mark

PAUSE = (sys.executable, "-I", "-S", "-c", "import signal; signal.pause()")


def test_a_mark_is_of_one_life() -> None:
    child = subprocess.Popen(PAUSE)
    mark = mark_of(child.pid)
    assert mark is not None
    assert mark == mark_of(child.pid)
    assert is_running(mark)
    assert not is_running(ProcessMark(child.pid, f"{mark.started}0"))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    # It has ended and nobody has reaped it: no longer running.
    assert mark_of(child.pid) is None
    child.wait()
    assert not is_running(mark)


@pytest.mark.skipif(sys.platform != "linux", reason="the name stands among the fields in /proc only")
def test_the_name_of_a_program_does_not_confuse_its_mark(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    shutil.copy("/bin/sleep", program)
    child = subprocess.Popen([program, "60"])
    plain = subprocess.Popen(["/bin/sleep", "60"])
    try:
        odd, even = mark_of(child.pid), mark_of(plain.pid)
        assert odd is not None
        assert even is not None
        boot, ticks = odd.started.rsplit(":", 1)
        even_boot, even_ticks = even.started.rsplit(":", 1)
        assert boot == even_boot
        assert 0 <= int(even_ticks) - int(ticks) < 1000
    finally:
        for process in (child, plain):
            process.kill()
            process.wait()


@pytest.mark.parametrize("content", ["", "{", '{"pid": "x"}', "[]"])
def test_a_damaged_mark_is_no_mark(tmp_path: Path, content: str) -> None:
    path = tmp_path / "server.json"
    assert read_mark(path) is None
    path.write_text(content)
    assert read_mark(path) is None
    write_mark(path, ProcessMark(7, "then"))
    assert read_mark(path) == ProcessMark(7, "then")
    assert [found.name for found in tmp_path.iterdir()] == ["server.json"]


async def test_a_child_whose_mark_cannot_be_kept_is_not_left_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def recorded(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", recorded)
    with pytest.raises(Misconfigured, match=r"cannot write .*/absent/mark\.new: No such file or directory"):
        spawn(PAUSE, log_path=tmp_path / "log", mark_file=tmp_path / "absent" / "mark")
    assert [child.returncode for child in started] == [-signal.SIGKILL]


async def test_a_log_that_cannot_be_written_is_named_and_nothing_starts(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(Misconfigured, match=r"cannot write .*/log: Is a directory"):
        spawn(PAUSE, log_path=tmp_path / "log")


async def test_output_is_appended_and_the_environment_added(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    code = "import os, sys; print(os.environ['A'], 'PATH' in os.environ, flush=True); sys.stderr.write('err\\n')"
    for value in ("1", "2"):
        child = spawn((sys.executable, "-I", "-S", "-c", code), log_path=log, env={"A": value})
        assert child.wait(30) == 0
    assert log.read_text() == "1 True\nerr\n2 True\nerr\n"


async def test_a_child_has_a_session_of_its_own_and_ends_on_sigterm(tmp_path: Path) -> None:
    child = spawn(PAUSE, log_path=tmp_path / "log")
    assert os.getsid(child.pid) == child.pid
    assert await stop_child(child) == -signal.SIGTERM
    assert await stop_child(child) == -signal.SIGTERM


async def test_a_leftover_that_is_deaf_to_sigterm_is_killed(tmp_path: Path) -> None:
    code = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\nwhile True: signal.pause()"
    left = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE)
    assert left.stdout is not None
    assert left.stdout.readline() == b"1\n"
    left.stdout.close()
    mark = mark_of(left.pid)
    assert mark is not None
    assert await stop_leftover(mark, grace_s=0.05)
    assert left.wait(10) == -signal.SIGKILL
    assert not await stop_leftover(mark)
