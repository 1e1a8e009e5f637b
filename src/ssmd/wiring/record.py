"""`ssmd record`: a few markets onto this machine, without any document written by hand.

A workspace of its own is made below the state directory: its registry, servers, tape and archive. It is kept, and the
next recording goes on in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from ssmd.clock import Clock, date_of
from ssmd.errors import Misconfigured
from ssmd.identifiers import RandomBytes
from ssmd.projections import queries
from ssmd.projections.queries import GapLine, InventoryLine
from ssmd.projections.views import freshest_views
from ssmd.registry.bootstrap import write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services.run_file import LOCK_FILE, RunLock
from ssmd.settings import Workspace
from ssmd.wiring.backends import open_journal
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment
from ssmd.wiring.system import LocalSystem, race_failure
from ssmd.wiring.trading_day import day_procedure, end_day
from ssmd.wiring.up import begin_day

ENV: Final = "record"
GIVEN: Final = "given"

ENVIRONMENT: Final = """\
# Made by ssmd record; the next one replaces it.
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    required: false
name: record
feed: kalshi
schema: market:1
capture:
  endpoint: {endpoint}
  key: $key:kalshi
  tickers: {tickers}
cache:
  backend: memory
gateway:
  port: 0
  auth: dev
"""


class Recorded(msgspec.Struct, frozen=True):
    """What a recording came to.

    Attributes:
        archive: directory of the segments.
        frames: payloads of the venue in this recording.
        records: archived today, by kind.
        gaps: all that is known.
    """

    workspace: str
    archive: str
    frames: int
    records: dict[str, int]
    segments: int
    gaps: tuple[GapLine, ...]


@dataclass(frozen=True)
class Recording:
    """One recording.

    Args:
        endpoint: "prod" or "demo"; `url` of a REST root in its place, "" = none.
        seconds: how long, 0 = until cancelled.
        view: the live view, begun with the gateway's url once it answers, and cancelled at the end.
        progress: told the connector's figures about once a second.
    """

    variables: Mapping[str, str]
    clock: Clock
    random: RandomBytes
    actor: str
    tickers: tuple[str, ...]
    endpoint: str
    url: str
    seconds: float
    say: Callable[[str], None]
    view: Callable[[str], Awaitable[None]]
    progress: Callable[[Mapping[str, int]], None]

    async def run(self, directory: Path, stopping: asyncio.Event) -> Recorded:
        """Record in `directory` until it is time, or told to stop; then seal what came.

        Raises:
            Misconfigured: the url is none, or the directory cannot be used.
            Unavailable: a part of the system gave up.
        """
        workspace = Workspace(await asyncio.to_thread(directory.resolve))
        state = workspace.environment(ENV)
        if (state / LOCK_FILE).exists():
            with RunLock(state, ENV) as lock:
                await lock.stop_leftovers(self.say)
        environment = await asyncio.to_thread(self._prepare, workspace)
        async with LocalSystem(environment, self.variables, self.clock, self.say) as system:
            return await race_failure(system, self._record(system, stopping))

    def _prepare(self, workspace: Workspace) -> ResolvedEnvironment:
        endpoint = GIVEN if self.url else self.endpoint
        text = ENVIRONMENT.format(endpoint=endpoint, tickers=msgspec.json.encode(self.tickers).decode())
        try:
            workspace.root.mkdir(parents=True, exist_ok=True)
            write_registry(workspace.root, {ENV: text}, definition_sha256())
            (workspace.registry / "environments" / f"{ENV}.yaml").write_text(text, encoding="utf-8")
            if self.url:
                _add_endpoint(workspace.registry / "feeds" / "kalshi.yaml", self.url)
        except OSError as error:
            raise Misconfigured(
                f"cannot write to {workspace.root}: {error.strerror}", mend="name another with --keep"
            ) from error
        return resolve_environment(workspace, ENV, date_of(self.clock.now_ns()))

    async def _record(self, system: LocalSystem, stopping: asyncio.Event) -> Recorded:
        environment = system.environment
        date = await begin_day(
            environment, self.variables, self.clock, self.random, self.say, actor=self.actor, reason="ssmd record"
        )
        await system.until_capturing()
        run = environment.run
        view = asyncio.ensure_future(self.view(run.endpoints.gateway_url if run is not None else ""))
        try:
            frames = await self._watch(system, stopping)
        finally:
            view.cancel()
            await asyncio.gather(view, return_exceptions=True)
        self.say("sealing what was recorded")
        await system.supervisor.stop("connector")
        async with day_procedure(
            environment, self.variables, clock=self.clock, random=self.random, actor=self.actor, say=self.say
        ) as procedure:
            await end_day(procedure, date, reason="the recording is over")
        return await self._report(environment, date, frames)

    async def _watch(self, system: LocalSystem, stopping: asyncio.Event) -> int:
        """Frames taken until it is time."""
        end_ns = self.clock.monotonic_ns() + int(self.seconds * 1e9) if self.seconds else 0
        frames = 0
        while not stopping.is_set() and not (end_ns and self.clock.monotonic_ns() >= end_ns):
            health = await system.health("connector")
            frames = int(health["stats"]["frames"])
            self.progress(health["stats"])
            left_s = (end_ns - self.clock.monotonic_ns()) / 1e9 if end_ns else 1.0
            try:
                async with asyncio.timeout(max(0.0, min(1.0, left_s))):
                    await stopping.wait()
            except TimeoutError:
                pass
        return frames

    async def _report(self, environment: ResolvedEnvironment, date: str, frames: int) -> Recorded:
        journal = await open_journal(environment, self.variables)
        try:
            views = await freshest_views(None, journal)
            lines: list[InventoryLine] = await queries.inventory(views, "kalshi")
            gaps = tuple(await queries.gaps(views, "kalshi", ""))
        finally:
            await journal.close()
        today = [line for line in lines if line.date == date]
        records: dict[str, int] = {}
        for line in today:
            if line.kind and line.type != "raw":
                records[line.kind] = records.get(line.kind, 0) + line.records
        segments = sum(line.segments for line in today)
        root, archive = str(environment.workspace.root), str(environment.archive_directory)
        return Recorded(root, archive, frames, dict(sorted(records.items())), segments, gaps)


def _add_endpoint(path: Path, url: str) -> None:
    """Give the feed the endpoint of `url`, which is its REST root or its host alone."""
    given = urlsplit(url)
    if given.scheme not in ("http", "https") or not given.netloc:
        raise Misconfigured(f"{url!r} is no url of a venue", mend="--url http://127.0.0.1:9700")
    socket = "wss" if given.scheme == "https" else "ws"
    lines = [f"      {GIVEN}:", f"        rest: {given.scheme}://{given.netloc}/trade-api/v2",
             f"        websocket: {socket}://{given.netloc}/trade-api/ws/v2"]  # fmt: skip
    text = path.read_text(encoding="utf-8").partition(f"      {GIVEN}:\n")[0]
    path.write_text(text.rstrip("\n") + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
