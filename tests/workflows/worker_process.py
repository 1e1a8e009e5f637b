"""The worker processes of a `real_week`: kept running, whatever kills them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.workflows.week_worker import READY

from ssmd.services.processes import spawn, stop_child

ROOT = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """Starts `count` workers; one that was killed is started again.

    Attributes:
        killed: how many were.
    """

    def __init__(self, env: str, directory: Path, given: Mapping[str, str], count: int) -> None:
        self.killed = 0
        self._kills = directory / "kills"
        self._kills.mkdir()
        self._log = directory / "worker.log"
        paths = (directory / "workspace", directory / "clock", self._kills)
        self._argv = [sys.executable, "-m", "tests.workflows.week_worker", env, *map(str, paths)]
        self._given = {**given, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        self._count = count
        self._children: list[subprocess.Popen[bytes]] = []
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._children = [self._spawned() for _ in range(self._count)]
        self._keeping = asyncio.create_task(self._keep())

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Done, they have failed."""
        return [] if self._keeping is None else [self._keeping]

    def arm(self, places: Sequence[str]) -> None:
        """Where to die, once each; see `week_worker`."""
        (self._kills / "armed").write_text("\n".join(places) + "\n", encoding="utf-8")

    @property
    def is_ready(self) -> bool:
        """Whether all of them have all they need."""
        return all((self._kills / f"{READY}{child.pid}").exists() and child.poll() is None for child in self._children)

    @property
    def hits(self) -> list[str]:
        """Where they died, in order."""
        path = self._kills / "hit"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    async def stop(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        await asyncio.gather(*(stop_child(child, grace_s=0.1) for child in self._children))

    def _spawned(self) -> subprocess.Popen[bytes]:
        return spawn(self._argv, log_path=self._log, env=self._given)

    async def _keep(self) -> None:
        while True:
            for number, child in enumerate(self._children):
                status = child.poll()
                if status is None:
                    continue
                assert status == -signal.SIGKILL, f"a worker ended with {status}: {self._log.read_text()[-2000:]}"
                self.killed += 1
                self._children[number] = self._spawned()
            await asyncio.sleep(0.05)
