from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssmd.errors import Malformed, Misconfigured
from ssmd.services.processes import ProcessMark, is_running, mark_of
from ssmd.services.run_file import Endpoints, RunFile, RunLock, live_run, read_run

STARTED_NS = 1_795_363_200_123_456_789


def test_a_published_run_is_read_back_whole_and_withdrawn_at_the_end(tmp_path: Path) -> None:
    own = mark_of(os.getpid())
    assert own is not None
    endpoints = Endpoints(transport_url="nats://127.0.0.1:1", gateway_url="http://127.0.0.1:2")
    processes = {"nats-transport": ProcessMark(11, "x"), "connector": ProcessMark(12, "y")}
    assert read_run(tmp_path) is None
    with RunLock(tmp_path, "dev") as lock:
        lock.publish(STARTED_NS, Endpoints(), {})
        published = lock.publish(STARTED_NS, endpoints, processes)
        assert published == RunFile("dev", own, STARTED_NS, endpoints, processes)
        assert read_run(tmp_path) == live_run(tmp_path) == published
        assert (published.pid, published.is_alive) == (os.getpid(), True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "run.lock"]
    lock.close()
    assert read_run(tmp_path) is None


_OWNER = """
import sys, signal
from pathlib import Path
from ssmd.services.run_file import Endpoints, RunLock
from ssmd.services.processes import ProcessMark

lock = RunLock(Path(sys.argv[1]), "dev")
lock.publish(int(sys.argv[2]), Endpoints(), {"connector": ProcessMark(int(sys.argv[3]), sys.argv[4])})
print("held", flush=True)
signal.pause()
"""


def owned(directory: Path, child: ProcessMark) -> subprocess.Popen[bytes]:
    """Another process that runs the environment."""
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(directory), str(STARTED_NS), str(child.pid), child.started], stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"held\n"
    owner.stdout.close()
    return owner


def test_a_second_run_is_refused_with_who_runs_it_and_changes_nothing(tmp_path: Path) -> None:
    owner = owned(tmp_path, ProcessMark(1, "elsewhere"))
    try:
        before = read_run(tmp_path)
        expected = f"environment dev is already run by process {owner.pid} since 2026-11-22T16:00:00.123456789Z"
        with pytest.raises(Misconfigured, match=re.escape(expected)) as found:
            RunLock(tmp_path, "dev")
        assert found.value.mend == f"kill {owner.pid}"
        assert read_run(tmp_path) == live_run(tmp_path) == before
    finally:
        owner.kill()
        owner.wait()


async def test_what_a_crashed_run_left_is_stopped_and_named(tmp_path: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        mark, strangers = mark_of(left.pid), mark_of(stranger.pid)
        assert mark is not None
        assert strangers is not None
        owner = owned(tmp_path, mark)
        owner.kill()
        owner.wait()

        stale = read_run(tmp_path)
        assert stale is not None
        assert (stale.pid, stale.is_alive) == (owner.pid, False)
        assert live_run(tmp_path) is None

        said: list[str] = []
        with RunLock(tmp_path, "dev") as lock:
            assert await lock.stop_leftovers(said.append) == ["connector"]
            assert said == [f"stopped connector (process {left.pid}), left by a run of dev that crashed"]
            assert left.wait(10) == -signal.SIGTERM
            # A pid that was given to somebody else since.
            lock.publish(STARTED_NS, Endpoints(), {"connector": ProcessMark(stranger.pid, "another life")})
            assert await lock.stop_leftovers(said.append) == []
            assert is_running(strangers)
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


async def test_a_damaged_run_file_is_named_and_replaced_by_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"env": "dev"')
    with pytest.raises(Malformed, match=r"run\.json is no run file: ") as found:
        read_run(tmp_path)
    assert found.value.mend == f"rm {tmp_path / 'run.json'}"
    said: list[str] = []
    with RunLock(tmp_path, "dev") as lock:
        assert await lock.stop_leftovers(said.append) == []
        assert "ignored, it will be replaced" in said[0]
        assert lock.publish(STARTED_NS, Endpoints(), {}) == live_run(tmp_path)


def test_a_workspace_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Misconfigured, match=r"cannot keep the state of dev in .*/file/dev: Not a directory"):
        RunLock(tmp_path / "file" / "dev", "dev")


async def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    processes = {f"component-{number}": ProcessMark(number, "x" * 100) for number in range(200)}
    with RunLock(tmp_path, "dev") as lock:
        lock.publish(STARTED_NS, Endpoints(), processes)

        def write() -> None:
            for _ in range(50):
                lock.publish(STARTED_NS, Endpoints(), processes)

        writing = asyncio.create_task(asyncio.to_thread(write))
        seen = []
        while not writing.done():
            run = read_run(tmp_path)
            seen.append(run is not None and run.processes == processes)
            await asyncio.sleep(0)
        await writing
    assert seen
    assert all(seen)
