"""Who runs an environment on this machine, and where it listens: .ssmd/{env}/run.json, and the lock beside it.

The lock (flock on run.lock) is what excludes a second run; it ends with its owner however that ends. The run file is
what others read; one whose owner is gone is stale.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from ssmd.clock import iso_of
from ssmd.errors import Malformed, Misconfigured
from ssmd.services.processes import ProcessMark, is_running, mark_of, stop_leftover

RUN_FILE = "run.json"
LOCK_FILE = "run.lock"


class Endpoints(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a run listens; "" = it has none of that kind. No credentials."""

    transport_url: str = ""
    journal_url: str = ""
    cache_url: str = ""
    simulator_rest: str = ""
    simulator_websocket: str = ""
    gateway_url: str = ""
    temporal_url: str = ""


class RunFile(msgspec.Struct, frozen=True):
    """One run of an environment. `processes` by component name, in start order; `owner` is `ssmd up` itself."""

    env: str
    owner: ProcessMark
    started_ns: int
    endpoints: Endpoints = Endpoints()
    processes: dict[str, ProcessMark] = {}

    @property
    def pid(self) -> int:
        return self.owner.pid

    @property
    def is_alive(self) -> bool:
        """Whether its owner runs (the very process, not one with the same pid)."""
        return is_running(self.owner)


def read_run(directory: Path) -> RunFile | None:
    """The run file of the environment whose state is in `directory`, stale or not; None when there is none.

    Raises:
        Malformed: it is no run file.
    """
    path = directory / RUN_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunFile)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise Malformed(f"{path} is no run file: {error}", mend=f"rm {path}") from error


def live_run(directory: Path) -> RunFile | None:
    """The run that is on now, None when the environment is not run here or its run crashed. Raises as `read_run`."""
    run = read_run(directory)
    return run if run is not None and run.is_alive else None


class RunLock:
    """The right to run one environment on this machine, held until `close` or the end of this process.

    Raises:
        Misconfigured: somebody else holds it (the message says who), or `directory` cannot be written.
    """

    def __init__(self, directory: Path, env: str) -> None:
        self._directory = directory
        self._env = env
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (directory / LOCK_FILE).open("a+", encoding="utf-8")
        except OSError as error:
            raise Misconfigured(
                f"cannot keep the state of {env} in {directory}: {error.strerror}", mend="choose a writable workspace"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refusal = self._refusal()
            self._lock.close()
            raise refusal from None
        self._own = mark_of(os.getpid()) or ProcessMark(os.getpid(), "")
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def _refusal(self) -> Misconfigured:
        self._lock.seek(0)
        pid = self._lock.read().strip() or "unknown"
        try:
            run = read_run(self._directory)
        except Malformed:
            run = None
        since = f" since {iso_of(run.started_ns)}" if run is not None and str(run.pid) == pid else ""
        return Misconfigured(f"environment {self._env} is already run by process {pid}{since}", mend=f"kill {pid}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def stop_leftovers(self, say: Callable[[str], None]) -> list[str]:
        """Stop what a crashed run of this environment left running; names of what was stopped, told to `say` as well.

        Raises:
            Misconfigured: a process does not end.
        """
        stopped = []
        try:
            before = read_run(self._directory)
        except Malformed as error:
            say(f"{error.message}: ignored, it will be replaced")
            before = None
        for name, mark in reversed((before.processes if before is not None else {}).items()):
            if await stop_leftover(mark):
                say(f"stopped {name} (process {mark.pid}), left by a run of {self._env} that crashed")
                stopped.append(name)
        (self._directory / RUN_FILE).unlink(missing_ok=True)
        return stopped

    def publish(self, started_ns: int, endpoints: Endpoints, processes: dict[str, ProcessMark]) -> RunFile:
        """Write the run file, whole or not at all; call again when a process was restarted."""
        run = RunFile(self._env, self._own, started_ns, endpoints, processes)
        fresh = self._directory / f"{RUN_FILE}.new"
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")
        fresh.replace(self._directory / RUN_FILE)
        return run

    def close(self) -> None:
        """Withdraw the run file and let others run. Safe to call twice."""
        if not self._lock.closed:
            (self._directory / RUN_FILE).unlink(missing_ok=True)
            self._lock.close()
