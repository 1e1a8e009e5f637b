"""`ssmd demo`: the whole main job in a workspace of its own, told step by step, with its answers at the end.

Without a capture it also stages a disaster: the connector is killed and the hole it leaves is named; the cache and all
manifests are deleted and rebuilt from the journal, and the answers compared. With a capture it is the plain capture.
"""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec
import zstandard

from ssmd.archive.segment_index import segment_key_of
from ssmd.clock import Clock, date_of, iso_of
from ssmd.errors import Malformed, Misconfigured, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.projections import queries
from ssmd.projections.queries import DayHistory, GapLine, InventoryLine
from ssmd.projections.views import freshest_views, open_views
from ssmd.registry.bootstrap import DEMO_ENVIRONMENT, write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services.http_client import httpx
from ssmd.services.run_file import LOCK_FILE, RunLock
from ssmd.services.simulator.capture_file import frames
from ssmd.settings import Workspace
from ssmd.wiring.backends import open_journal, open_rows_store, open_storage
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment
from ssmd.wiring.system import LocalSystem, race_failure
from ssmd.wiring.trading_day import day_procedure, end_day
from ssmd.wiring.up import begin_day

ENV: Final = "demo"
MARKER: Final = "ssmd-demo"
CAPTURE_S: Final = 4.0
"""How long the seeded market is watched before and after the staged kill."""
REBUILT_WITHIN_S: Final = 30.0
DONE_WITHIN_S: Final = 900.0
SEGMENT_BYTES: Final = 16 << 20
SEEDED_SOURCE: Final = "  simulator:\n    seed: 7\n    markets: 12\n    rate: 300\n"
# Paused until the day has been started: a short capture would be over before.
CAPTURED_SOURCE: Final = "  channels: [orderbook_delta, ticker]\n  simulator:\n    speed: max\n    start_paused: true\n"


class Answers(msgspec.Struct, frozen=True):
    """What the demo asks twice: the same before the cache is deleted and after it is rebuilt."""

    history: tuple[DayHistory, ...]
    inventory: tuple[InventoryLine, ...]
    gaps: tuple[GapLine, ...]


class StoredSegment(msgspec.Struct, frozen=True):
    """One archived file. `path` is on this machine."""

    path: str
    size_bytes: int


class DemoReport(msgspec.Struct, frozen=True):
    """What the demo came to.

    Attributes:
        frames: payloads of the venue in the raw archive (without our commands and facts: `entries` counts all lines).
        records: by kind, in the normalized archive.
        is_rebuilt_equal: None = not staged.
    """

    workspace: str
    env: str
    frames: int
    entries: int
    records: dict[str, int]
    segments: tuple[StoredSegment, ...]
    manifests: tuple[str, ...]
    answers: Answers
    is_rebuilt_equal: bool | None


class Stage(Protocol):
    """Where the demo is told."""

    def step(self, text: str) -> None:
        """A new part begins."""
        ...

    def say(self, text: str) -> None:
        """News within a part."""
        ...

    def progress(self, text: str) -> None:
        """Replaces the last progress line."""
        ...

    def gaps(self, gaps: tuple[GapLine, ...]) -> None:
        """The holes found so far."""
        ...


@dataclass(frozen=True)
class Demo:
    """One run of it."""

    variables: Mapping[str, str]
    clock: Clock
    random: RandomBytes
    actor: str
    stage: Stage
    capture_s: float = CAPTURE_S

    async def run(self, directory: Path, capture: Path | None) -> DemoReport:
        """Run it all in `directory`; see the module.

        Raises:
            Misconfigured: the directory or the capture cannot be used.
            Malformed: the capture has a bad line; nothing has been started.
            Unavailable: a part of the system gave up, or did not finish in time.
        """
        self.stage.step(f"A workspace of its own in {directory}")
        if capture is not None:
            await asyncio.to_thread(_check_capture, capture)
        await self._stop_earlier(Workspace(await asyncio.to_thread(directory.resolve)))
        environment = await asyncio.to_thread(self._prepare, directory, capture)
        async with LocalSystem(environment, self.variables, self.clock, self.stage.say) as system:
            report = await race_failure(system, self._work(system, capture))
            self.stage.step("Stopping")
        return report

    def _prepare(self, directory: Path, capture: Path | None) -> ResolvedEnvironment:
        workspace = Workspace(directory.resolve())
        marker = workspace.root / MARKER
        if workspace.root.exists() and not workspace.root.is_dir():
            raise Misconfigured(f"{directory} is not a directory", mend="name another with --keep")
        if workspace.root.exists() and any(workspace.root.iterdir()):
            if not marker.exists():
                raise Misconfigured(
                    f"{directory} is not empty and no earlier demo's", mend="name another directory with --keep"
                )
            self._clear(workspace)
        try:
            workspace.root.mkdir(parents=True, exist_ok=True)
            marker.write_text("made by ssmd demo; the next one replaces it\n", encoding="utf-8")
        except OSError as error:
            raise Misconfigured(f"cannot write to {directory}: {error.strerror}", mend="name another with --keep") from error
        source = f"{CAPTURED_SOURCE}    capture: {_yaml_text(capture)}\n" if capture is not None else SEEDED_SOURCE
        text = DEMO_ENVIRONMENT.format(capture=source, segment_bytes=SEGMENT_BYTES)
        write_registry(workspace.root, {ENV: text}, definition_sha256())
        return resolve_environment(workspace, ENV, date_of(self.clock.now_ns()))

    async def _stop_earlier(self, workspace: Workspace) -> None:
        """End what an earlier demo left running when it was killed; refuse where it still runs."""
        state = workspace.environment(ENV)
        if (state / LOCK_FILE).exists():
            with RunLock(state, ENV) as lock:
                await lock.stop_leftovers(self.stage.say)

    @staticmethod
    def _clear(workspace: Workspace) -> None:
        """Delete an earlier demo's files."""
        for path in workspace.root.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != MARKER:
                path.unlink()

    async def _work(self, system: LocalSystem, capture: Path | None) -> DemoReport:
        stage = self.stage
        stage.step("A trading day is started")
        date = await begin_day(
            system.environment, self.variables, self.clock, self.random, stage.say, actor=self.actor, reason="ssmd demo"
        )
        is_equal: bool | None = None
        if capture is not None:
            stage.step(f"Capturing {capture.name}")
            await self._until_played(system)
        else:
            stage.step("Capturing simulated markets")
            await self._watch(system, self.capture_s)
            await self._kill_connector(system)
            await self._watch(system, self.capture_s)
        stage.step("The trading day is ended: the connector stops, everything captured is sealed and counted")
        await system.supervisor.stop("connector")
        await self._end_day(system, date)
        if capture is None:
            is_equal = await self._lose_cache(system)
        return await self._report(system, is_equal)

    # Capturing

    async def _watch(self, system: LocalSystem, seconds: float) -> None:
        end = self.clock.monotonic_ns() + int(seconds * 1e9)
        while self.clock.monotonic_ns() < end:
            await self._show_progress(system)
            await asyncio.sleep(0.25)

    async def _show_progress(self, system: LocalSystem) -> dict[str, int]:
        """One line of figures; the connector's."""
        try:
            stats = (await system.health("connector"))["stats"]
            raw = (await system.health("raw-archiver"))["stats"]
        except Unavailable:
            return {}
        self.stage.progress(
            f"{stats['frames']:>9,} frames since the connector's start, tape {stats['tape_bytes'] / 1e6:6.1f} MB; "
            f"archive: {raw['records']:,} lines sealed, {raw['open_bytes'] / 1e6:.1f} MB open"
        )
        figures: dict[str, int] = stats
        return figures

    async def _until_played(self, system: LocalSystem) -> None:
        """Wait until the simulator has nothing more to give and the streams hold what came."""
        run = system.environment.run
        if run is None:
            raise Unavailable("the demo's run file is gone")
        url = run.endpoints.simulator_rest.replace("/trade-api/v2", "/simulator")
        try:
            async with asyncio.timeout(DONE_WITHIN_S), httpx.AsyncClient(timeout=5) as client:
                (await client.post(f"{url}/resume")).raise_for_status()
                while not (await client.get(f"{url}/status")).json()["done"]:
                    await self._show_progress(system)
                    await asyncio.sleep(0.2)
                while True:
                    stats = await self._show_progress(system)
                    if stats and stats["unacked"] == 0:
                        return
                    await asyncio.sleep(0.2)
        except (TimeoutError, httpx.HTTPError) as error:
            raise Unavailable(f"the capture was not played to its end: {error or 'took too long'}") from error

    # The staged disasters

    async def _kill_connector(self, system: LocalSystem) -> None:
        stage = self.stage
        stage.step("Disaster: the connector is killed (SIGKILL)")
        pid = system.supervisor.kill("connector")
        stage.say(f"killed process {pid} at {iso_of(self.clock.now_ns())}")
        await system.supervisor.wait_ready("connector")
        await system.until_capturing()
        stage.step("What was missed, as the journal knows it")
        async with asyncio.timeout(REBUILT_WITHIN_S):
            while True:
                gaps = (await self._answers(system)).gaps
                if any(gap.end_ns is not None for gap in gaps):
                    break
                await asyncio.sleep(0.1)
        stage.gaps(gaps)

    async def _lose_cache(self, system: LocalSystem) -> bool:
        """Delete every key of the cache and every manifest; wait for their return; whether the answers are the same."""
        stage = self.stage
        stage.step("Disaster: every key of the cache and every manifest is deleted")
        environment = system.environment
        before, manifests = await self._answers(system), await self._manifests(environment)
        journal = await open_journal(environment, self.variables)
        store = open_rows_store(environment, self.variables, self.random)
        storage = open_storage(environment, self.variables)
        try:
            head = await journal.head()
            # Manifests first: the projector writes them again when it finds its views gone.
            for key in manifests:
                await storage.delete(key)
            await store.clear()
            stage.say(f"deleted the cache and {len(manifests)} manifests; the projector folds {head} events again")
            async with asyncio.timeout(REBUILT_WITHIN_S):
                while True:
                    try:
                        if (await open_views(store)).position >= head and len(await self._manifests(environment)) == len(
                            manifests
                        ):
                            break
                    except Unavailable:
                        pass
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise Unavailable(f"the views were not rebuilt within {REBUILT_WITHIN_S:g} s") from error
        finally:
            await store.close()
            await journal.close()
        is_equal = await self._answers(system) == before and await self._manifests(environment) == manifests
        stage.say("history, inventory and gaps are the same, manifests byte for byte" if is_equal else "THE ANSWERS DIFFER")
        return is_equal

    # Answers

    async def _end_day(self, system: LocalSystem, date: str) -> None:
        async with day_procedure(
            system.environment, self.variables, clock=self.clock, random=self.random, actor=self.actor, say=self.stage.say
        ) as procedure:
            await end_day(procedure, date, reason="the demo is over")

    async def _answers(self, system: LocalSystem) -> Answers:
        environment = system.environment
        journal = await open_journal(environment, self.variables)
        store = open_rows_store(environment, self.variables, self.random)
        try:
            views = await freshest_views(store, journal)
            days = await queries.days(views)
            feed = environment.document.feed
            history = tuple([await queries.day_history(views, day.date) for day in days])
            return Answers(history, tuple(await queries.inventory(views, feed)), tuple(await queries.gaps(views, feed, "")))
        finally:
            await store.close()
            await journal.close()

    async def _manifests(self, environment: ResolvedEnvironment) -> dict[str, bytes]:
        storage = open_storage(environment, self.variables)
        found: dict[str, bytes] = {}
        async for key in storage.list():
            if key.endswith("/manifest.json"):
                found[key] = await storage.get(key) or b""
        return dict(sorted(found.items()))

    async def _report(self, system: LocalSystem, is_equal: bool | None) -> DemoReport:
        environment = system.environment
        answers = await self._answers(system)
        records: dict[str, int] = {}
        entries = 0
        for line in answers.inventory:
            if line.type == "raw":
                entries += line.records
            elif line.kind:
                records[line.kind] = records.get(line.kind, 0) + line.records
        storage = open_storage(environment, self.variables)
        segments, manifests = [], []
        async for key in storage.list():
            path = environment.archive_directory / key
            if key.endswith("/manifest.json"):
                manifests.append(str(path))
            elif not segment_key_of(key):
                segments.append(StoredSegment(str(path), path.stat().st_size))
        return DemoReport(
            workspace=str(environment.workspace.root),
            env=ENV,
            frames=sum(count_frames(Path(one.path)) for one in segments if one.path.endswith(".jsonl.zst")),
            entries=entries,
            records=dict(sorted(records.items())),
            segments=tuple(sorted(segments, key=lambda segment: segment.path)),
            manifests=tuple(sorted(manifests)),
            answers=answers,
            is_rebuilt_equal=is_equal,
        )


def _yaml_text(path: Path) -> str:
    """A path as a YAML scalar: JSON's text is YAML's."""
    return msgspec.json.encode(str(path.resolve())).decode()


def _check_capture(path: Path) -> None:
    """Read it once before anything is started. Raises Malformed with the bad line, or where there is none at all."""
    count = sum(1 for _ in frames(path))
    if not count:
        raise Malformed(f"capture {path} holds no frame", mend="name one that does: --capture FILE")


def count_frames(path: Path) -> int:
    """The venue's payloads in one raw segment: lines without a direction."""
    with path.open("rb") as stored, zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True) as content:
        return sum(1 for line in io.BufferedReader(content) if b',"dir":"' not in line.partition(b',"frame":')[0])
