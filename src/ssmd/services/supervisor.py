"""Keeps the processes of one environment running on one machine: `ssmd up`, `ssmd demo`.

Children start one after another, each when the one before is ready. A child that ends unasked is started again, with
growing pauses, a limited number of times; past that the whole has failed, and says with which last words. Children end
with the supervisor, also when it is killed (`services.child`).
"""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import msgspec

from ssmd.errors import SsmdError, Unavailable
from ssmd.services.embedded_servers import PreparedServer
from ssmd.services.processes import ProcessMark, last_lines, mark_of, spawn, stop_child

_POLL_S = 0.02


@dataclass(frozen=True)
class ChildSpec:
    """A process to keep running.

    Attributes:
        argv: program and arguments; everybody on the machine can read them: no secrets.
        log_path: its output is appended there.
        env: variables on top of the supervisor's own.
        ready: asked with its pid until it says yes; must not raise. None = ready as soon as it runs.
        ready_within_s: past this a start counts as failed.
        is_finite: ending with status 0 is its end, not a crash.
        mark_file: where its mark is kept for whoever comes after a crash.
    """

    name: str
    argv: tuple[str, ...]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ready: Callable[[int], Awaitable[bool]] | None = None
    ready_within_s: float = 30.0
    is_finite: bool = False
    mark_file: Path | None = None


def spec_of(server: PreparedServer) -> ChildSpec:
    """How to keep an embedded server running. It needs its `release` when all is stopped."""
    return ChildSpec(server.name, server.argv, server.log_path, ready=server.ready, mark_file=server.mark_file)


class RestartPolicy(NamedTuple):
    """Pauses of first_s x 2^k, at most max_s, each shortened by up to a half at random, `limit` starts in a row.

    A child that ran for `steady_s` is forgiven its earlier crashes.
    """

    limit: int = 5
    first_s: float = 0.2
    max_s: float = 10.0
    steady_s: float = 30.0

    def pause_s(self, restarts: int, fraction: float) -> float:
        """Before restart number `restarts` (from 0); `fraction` in [0, 1) is the jitter."""
        whole = min(self.first_s * 2.0 ** min(restarts, 30), self.max_s)
        return whole * (1 - fraction / 2)


class _LastWord(msgspec.Struct, frozen=True, tag_field="event", tag="cannot-go-on"):
    """The line with which a component of ours gives up (`wiring.process`)."""

    reason: str
    mend: str = ""


What = Literal["started", "ready", "exited", "restarting", "finished", "gave-up", "stopped"]


class ChildEvent(NamedTuple):
    """Something happened to a child.

    Attributes:
        status: its exit status (negative = the signal) where it ended, else None.
        detail: of "exited" the last lines of its log; of "restarting" and "gave-up" a sentence.
    """

    name: str
    what: What
    pid: int
    status: int | None = None
    detail: str = ""


@dataclass
class _Child:
    spec: ChildSpec
    process: subprocess.Popen[bytes]
    log_start: int
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    watcher: asyncio.Task[None] | None = None
    restarts: int = 0
    started_at: float = 0.0


class Supervisor:
    """Owns its children. Use as a context manager, in the main thread; leaving it stops them all.

    Args:
        tell: called with every event, in order; must not raise.
        jitter: numbers in [0, 1).
    """

    def __init__(
        self,
        tell: Callable[[ChildEvent], None] = lambda _event: None,
        *,
        policy: RestartPolicy | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._tell = tell
        self._policy = RestartPolicy() if policy is None else policy
        self._jitter = jitter
        self._children: dict[str, _Child] = {}
        self._failure: SsmdError | None = None
        self._failed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_all()

    async def start(self, spec: ChildSpec) -> None:
        """Start a child and wait until it is ready; from then on it is kept running.

        Raises:
            Unavailable: it ended, or was not ready in time; it is stopped and not tried again.
            Misconfigured: its log cannot be written.
        """
        if spec.name in self._children:
            raise ValueError(f"there is a child {spec.name!r} already")
        child = self._spawned(spec)
        self._children[spec.name] = child
        try:
            trouble = await self._trouble_until_ready(child)
        except BaseException:
            await self._end(child, 1.0)
            raise
        if trouble:
            failure = self._failure_of(child, trouble)
            await self._end(child, 1.0)
            raise failure
        child.watcher = asyncio.create_task(self._watch(child), name=f"watch {spec.name}")
        child.watcher.add_done_callback(partial(self._watched, child))

    def kill(self, name: str) -> int:
        """SIGKILL, as a crash would; the child is then restarted like after any crash. Returns the pid killed."""
        process = self._children[name].process
        self._children[name].is_ready.clear()
        process.kill()
        return process.pid

    async def wait_ready(self, name: str, *, deadline_s: float = 30.0) -> None:
        """Wait until a child (restarted, say) is ready.

        Raises:
            Unavailable: it gave up, or is not ready within `deadline_s`.
        """
        child = self._children[name]
        ready = asyncio.create_task(child.is_ready.wait())
        failed = asyncio.create_task(self._failed.wait())
        try:
            await asyncio.wait((ready, failed), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if child.is_ready.is_set():
                return
            raise self._failure or self._failure_of(child, f"is not ready after {deadline_s:g} s")
        finally:
            ready.cancel()
            failed.cancel()

    async def failed(self) -> SsmdError:
        """Wait until a child has given up; why. Forever when none does: race it against what ends the run."""
        await self._failed.wait()
        return self._failure or Unavailable("a child gave up")

    def processes(self) -> dict[str, ProcessMark]:
        """The children that run now, in start order."""
        marks = {name: mark_of(child.process.pid) for name, child in self._children.items() if child.process.poll() is None}
        return {name: mark for name, mark in marks.items() if mark is not None}

    async def stop(self, name: str, *, grace_s: float = 10.0) -> int:
        """End one child for good: SIGTERM, SIGKILL past `grace_s`. Returns its exit status."""
        return await self._end(self._children[name], grace_s)

    async def stop_all(self, *, grace_s: float = 10.0) -> None:
        """End all children, the last started first. Safe to call twice.

        Raises:
            Unavailable: one does not end; the others have been ended.
        """
        stuck: Unavailable | None = None
        for child in reversed(list(self._children.values())):
            try:
                await self._end(child, grace_s)
            except Unavailable as error:
                stuck = error
        if stuck is not None:
            raise stuck

    def _spawned(self, spec: ChildSpec) -> _Child:
        log_start = spec.log_path.stat().st_size if spec.log_path.exists() else 0
        process = spawn(spec.argv, log_path=spec.log_path, env=spec.env, mark_file=spec.mark_file)
        self._tell(ChildEvent(spec.name, "started", process.pid))
        return _Child(spec, process, log_start, started_at=asyncio.get_running_loop().time())

    async def _trouble_until_ready(self, child: _Child) -> str:
        """Wait; "" once it is ready, else why it is not."""
        spec, process = child.spec, child.process
        try:
            async with asyncio.timeout(spec.ready_within_s):
                while process.poll() is None:
                    if spec.ready is None or await spec.ready(process.pid):
                        child.is_ready.set()
                        self._tell(ChildEvent(spec.name, "ready", process.pid))
                        return ""
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            return f"was not ready within {spec.ready_within_s:g} s"
        return "" if spec.is_finite and process.returncode == 0 else f"ended with status {process.returncode} while starting"

    def _failure_of(self, child: _Child, trouble: str) -> Unavailable:
        lines = last_lines(child.spec.log_path, after=child.log_start)
        said = last_word(lines)
        if said is not None:
            return Unavailable(f"{child.spec.name} {trouble}: {said.reason}", mend=said.mend or f"see {child.spec.log_path}")
        words = f"; its log ends:\n{lines}" if lines else " and logged nothing"
        return Unavailable(f"{child.spec.name} {trouble}{words}", mend=f"see {child.spec.log_path}")

    async def _watch(self, child: _Child) -> None:
        while await self._ended(child):
            trouble = await self._restart(child)
            while trouble:
                trouble = await self._restart(child, trouble)

    def _watched(self, child: _Child, watcher: asyncio.Task[None]) -> None:
        """The watch is over: hand a failure to whoever waits in `failed` or `wait_ready`."""
        error = None if watcher.cancelled() else watcher.exception()
        if error is None:
            return
        if not isinstance(error, SsmdError):
            error = Unavailable(f"the watch over {child.spec.name} broke: {error!r}")
        self._failure = self._failure or error
        self._failed.set()
        self._tell(ChildEvent(child.spec.name, "gave-up", child.process.pid, child.process.returncode, error.message))

    async def _ended(self, child: _Child) -> bool:
        """Wait for the child's end; whether that was a crash."""
        while (status := child.process.poll()) is None:  # noqa: ASYNC110 - not on every platform an event of the loop
            await asyncio.sleep(_POLL_S)
        name, pid = child.spec.name, child.process.pid
        child.is_ready.clear()
        if child.spec.is_finite and status == 0:
            self._tell(ChildEvent(name, "finished", pid, status))
            return False
        self._tell(ChildEvent(name, "exited", pid, status, last_lines(child.spec.log_path, 3, after=child.log_start)))
        if asyncio.get_running_loop().time() - child.started_at >= self._policy.steady_s:
            child.restarts = 0
        return True

    async def _restart(self, child: _Child, trouble: str = "") -> str:
        """Pause and start it once more; "" when that went well, else the trouble.

        Raises:
            SsmdError: the limit is reached.
        """
        if child.restarts >= self._policy.limit:
            what = trouble or f"ended with status {child.process.returncode}"
            raise self._failure_of(child, f"{what} and was restarted {child.restarts} times in a row")
        pause_s = self._policy.pause_s(child.restarts, self._jitter())
        child.restarts += 1
        detail = f"restart {child.restarts} of at most {self._policy.limit} in {pause_s:.2f} s"
        self._tell(ChildEvent(child.spec.name, "restarting", child.process.pid, child.process.returncode, detail))
        await asyncio.sleep(pause_s)
        fresh = self._spawned(child.spec)
        child.process, child.log_start, child.started_at = fresh.process, fresh.log_start, fresh.started_at
        found = await self._trouble_until_ready(child)
        if found:
            await stop_child(child.process, grace_s=1.0)
        return found

    async def _end(self, child: _Child, grace_s: float) -> int:
        if child.watcher is not None:
            child.watcher.cancel()
            await asyncio.wait((child.watcher,))
            child.watcher = None
        was_running = child.process.poll() is None
        child.is_ready.clear()
        status = await stop_child(child.process, grace_s=grace_s)
        if child.spec.mark_file is not None:
            child.spec.mark_file.unlink(missing_ok=True)
        if was_running:
            self._tell(ChildEvent(child.spec.name, "stopped", child.process.pid, status))
        return status


def last_word(lines: str) -> _LastWord | None:
    """Why a component gave up, as it said itself in the last lines of its log; None when it did not say."""
    for line in reversed(lines.splitlines()):
        try:
            return msgspec.json.decode(line, type=_LastWord)
        except msgspec.DecodeError:
            continue
    return None
