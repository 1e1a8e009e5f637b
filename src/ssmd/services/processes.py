"""Processes as ssmd starts and recognizes them: spawned with a log and tied to their parent, marked, stopped.

A mark is a pid together with the moment the process started, so that a pid the system gave to somebody else since is
never taken for ours.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from ssmd.errors import Misconfigured, Unavailable
from ssmd.settings import variables

_CHILD = Path(__file__).with_name("child.py")
_POLL_S = 0.01
_TAIL_BYTES = 16_384
_KILL_S = 10.0


class ProcessMark(msgspec.Struct, frozen=True):
    """One life of a process. `started` is opaque text, equal for the same life only; "" = not to be told here."""

    pid: int
    started: str


def mark_of(pid: int) -> ProcessMark | None:
    """The process that has `pid` now; None when there is none (an ended one that nobody reaped counts as none)."""
    if sys.platform == "linux":
        started = _started_linux(pid)
    else:
        started = _started_elsewhere(pid)
    return None if started is None else ProcessMark(pid, started)


def _started_linux(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The second field is the program's name in parentheses and may hold anything; fields are counted behind it.
    fields = stat.rpartition(")")[2].split()
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}:{start_ticks}"


def _started_elsewhere(pid: int) -> str | None:
    asked = subprocess.run(  # noqa: S603 - fixed arguments
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
    )
    state, _, started = asked.stdout.strip().partition(" ")
    return None if asked.returncode or not started or state.startswith("Z") else started.strip()


def is_running(mark: ProcessMark) -> bool:
    """Whether exactly that process lives."""
    return mark_of(mark.pid) == mark


def write_mark(path: Path, mark: ProcessMark) -> None:
    """Replace the mark file at `path` atomically."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(msgspec.json.encode(mark) + b"\n")
    fresh.replace(path)


def read_mark(path: Path) -> ProcessMark | None:
    """The mark in `path`; None when there is none or the file is no mark (cut by a crash)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProcessMark)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def spawn(
    argv: Sequence[str], *, log_path: Path, env: Mapping[str, str] | None = None, mark_file: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own, its output appended to `log_path`, ended when the calling THREAD ends.

    Call it from the thread that owns the child for its whole life (the event loop's), never from a pool.

    Args:
        env: variables on top of this process's own.
        mark_file: where the child's mark is kept, for whoever comes after a crash.

    Raises:
        Misconfigured: `log_path` or `mark_file` cannot be written.
    """
    command = [sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), *argv]
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - the arguments are ours, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=None if env is None else {**variables(), **env},
                start_new_session=True,
            )
    except OSError as error:
        raise _unwritable(error) from error
    if mark_file is not None:
        try:
            write_mark(mark_file, mark_of(child.pid) or ProcessMark(child.pid, ""))
        except OSError as error:
            child.kill()
            child.wait(timeout=10)
            raise _unwritable(error) from error
    return child


def _unwritable(error: OSError) -> Misconfigured:
    return Misconfigured(f"cannot write {error.filename}: {error.strerror}", mend="choose a writable directory")


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


async def _gone(is_alive: Callable[[], bool], within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while is_alive():
        if loop.time() >= until:
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def stop_child(child: subprocess.Popen[bytes], *, grace_s: float = 10.0) -> int:
    """SIGTERM, up to `grace_s` seconds to end, then SIGKILL. Returns the exit status (negative = the signal).

    Raises:
        Unavailable: the system does not let go of it even so (a disk or file server that hangs).
    """
    if child.poll() is None:
        child.terminate()
    if not await _gone(lambda: child.poll() is None, grace_s):
        child.kill()
        if not await _gone(lambda: child.poll() is None, _KILL_S):
            raise Unavailable(f"process {child.pid} was killed and does not end", mend=f"ps -o stat,wchan -p {child.pid}")
    status: int = child.returncode
    return status


async def stop_leftover(mark: ProcessMark, *, grace_s: float = 5.0) -> bool:
    """End a process of an earlier run, if `mark` still is that process. Returns whether it was running.

    Raises:
        Misconfigured: it is not ours to signal, or does not end.
    """
    if not is_running(mark):
        return False
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            _signal(mark.pid, number)
            if await _gone(lambda: is_running(mark), grace_s):
                return True
    except PermissionError as error:
        raise Misconfigured(f"process {mark.pid} of an earlier run belongs to another user", mend=f"kill {mark.pid}") from error
    raise Misconfigured(f"process {mark.pid} of an earlier run does not end", mend=f"kill -9 {mark.pid}")


def last_lines(path: Path, count: int = 8, *, after: int = 0) -> str:
    """The last `count` lines of a log, from byte `after` on; "" when there are none."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(after, size - _TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])
