"""The projector: keeps every view, and the manifests beside the archive, up to the head of the journal.

It holds nothing of its own. Whatever goes wrong, it opens the views again where the store has them and goes on from
there; a store that lost them gets them rebuilt. Of two projectors one works: the other meets a Conflict and stands by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ssmd import crash_points
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import Catalogue
from ssmd.errors import Conflict, Malformed, SsmdError, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.projections import manifests
from ssmd.projections.folder import Folder, decode_events, in_pieces
from ssmd.projections.manifest_sink import ManifestSink
from ssmd.projections.projection import Projection
from ssmd.projections.reading import Batch, closing
from ssmd.projections.rebuild import Rebuilt, build_first, rebuild
from ssmd.projections.store import RowStore, Stamp
from ssmd.projections.views import PROJECTIONS
from ssmd.projections.working_set import RowDamaged
from ssmd.services.anchoring import Anchoring
from ssmd.services.component import Health
from ssmd.services.ended_tasks import end_tasks
from ssmd.services.folding import folding
from ssmd.services.projection_record import ProjectionRecord
from ssmd.streams.backoff import backoff_s
from ssmd.streams.journal import Journal, PoisonEvent, RecordedEvent

_QUEUED_BATCHES_MAX: Final = 8
_CONFLICT_PAUSE_S_MAX: Final = 2.0


@dataclass(frozen=True)
class ProjectorSettings:
    """Durations and sizes.

    Attributes:
        batch_events: events in one commit, at most; fewer when no more are waiting, so nothing waits for company.
        retry_max_s: longest pause before another try with a backend that is away.
        standby_s: views that stand still so long, to twice as long, behind the journal are taken over by who stands by.
        head_s: how often the journal is asked for its head.
        flush_s: deadline of `flush`.
    """

    batch_events: int = 1000
    retry_max_s: float = 5.0
    standby_s: float = 2.0
    head_s: float = 1.0
    flush_s: float = 30.0


class ProjectorService:
    """Implements `services.component.Component`.

    Args:
        sink: None = manifests are not written.
        record: tells the journal of rebuilds, swaps and events passed over; None = nobody does.
        anchoring: takes anchors of the journal; None = nobody does.
    """

    name = "projector"

    def __init__(
        self,
        journal: Journal,
        store: RowStore,
        sink: ManifestSink | None,
        *,
        random: RandomBytes,
        projections: Sequence[Projection] = PROJECTIONS,
        catalogue: Catalogue = CATALOGUE,
        settings: ProjectorSettings = ProjectorSettings(),
        instance: str = "main",
        crash_point: crash_points.CrashPoint = crash_points.no_crash,
        record: ProjectionRecord | None = None,
        anchoring: Anchoring | None = None,
    ) -> None:
        self.instance = instance
        self._journal = journal
        self._store = store
        self._sink = sink
        self._random = random
        self._projections = tuple(projections)
        self._aggregates = frozenset().union(*(projection.aggregates for projection in projections))
        self._catalogue = catalogue
        self._settings = settings
        self._crash_point = crash_point
        self._record = record
        self._anchoring = anchoring
        self._stopping = asyncio.Event()
        self._dirty = asyncio.Event()
        self._moved = asyncio.Event()
        self._stamps: dict[str, Stamp] = {}
        self._head = 0
        self._failure = "not started"
        self._sink_failure = ""
        self._is_standing_by = self._is_reconciled = False
        self._conflicts = 0
        self._counts = {"batches": 0, "events": 0, "failures": 0, "rebuilds": 0}

    @property
    def position(self) -> int:
        """Journal position that every view includes."""
        if len(self._stamps) < len(self._projections):
            return 0
        return min(stamp.position for stamp in self._stamps.values())

    async def run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            position = self.position
            try:
                await self._session()
            except Conflict as error:
                await self._after_conflict(error)
                continue
            except SsmdError as error:
                self._counts["failures"] += 1
                self._failure = error.message
            attempt = 1 if self.position > position else attempt + 1
            await self._pause(backoff_s(attempt, self._random, max_s=self._settings.retry_max_s))

    async def stop(self) -> None:
        self._stopping.set()

    async def flush(self) -> None:
        """Return once every view and manifest includes the journal's head of now.

        Raises:
            Unavailable: that took longer than `flush_s`; the reason is named.
        """
        try:
            async with asyncio.timeout(self._settings.flush_s):
                head = await self._journal.head()
                self._moved.set()
                while await self._moved.wait():
                    self._moved.clear()
                    if self.position >= head and self._are_manifests_written() and await self._holds(head):
                        return
        except TimeoutError:
            raise Unavailable(
                f"projector is at position {self.position} of {self._head} after {self._settings.flush_s:g} s:"
                f" {self.health().reason or 'it is behind'}",
            ) from None

    def health(self) -> Health:
        skipped = sum(stamp.skipped for stamp in self._stamps.values())
        reasons = [reason for reason in (self._failure, self._sink_failure) if reason]
        if skipped:
            names = ", ".join(name for name, stamp in self._stamps.items() if stamp.skipped)
            reasons.append(f"{skipped} events could not be folded into {names}: ssmd journal verify")
        return Health(
            ok=not reasons,
            reason="; ".join(reasons),
            stats={
                "position": self.position,
                "head": max(self._head, self.position),
                "lag": max(0, self._head - self.position),
                "skipped": skipped,
                "standing_by": int(self._is_standing_by),
                "anchored": 0 if self._anchoring is None else self._anchoring.position,
                "manifests_written": 0 if self._sink is None else self._sink.written,
                "manifests_pending": 0 if self._sink is None else self._sink.pending,
                **self._counts,
                **{f"position_{name}": stamp.position for name, stamp in self._stamps.items()},
                **{f"lag_{name}": max(0, self._head - stamp.position) for name, stamp in self._stamps.items()},
            },
        )

    def _are_manifests_written(self) -> bool:
        return self._sink is None or (self._is_reconciled and not self._sink.pending and not self._dirty.is_set())

    async def _session(self) -> None:
        """From opening the views to the first trouble, or to `stop`."""
        folders = await self._until_stop(self._open())
        if folders is None:
            return
        self._failure = ""
        self._conflicts = 0
        self._moved.set()
        # Whatever ended the last session may have come between a commit and its manifests.
        self._is_reconciled = self._sink is None
        queue: asyncio.Queue[Batch | SsmdError] = asyncio.Queue(_QUEUED_BATCHES_MAX)
        tasks = [
            asyncio.create_task(self._read(queue, min(folder.stamp.position for folder in folders))),
            asyncio.create_task(self._watch_head(queue)),
        ]
        if self._sink is not None:
            tasks.append(asyncio.create_task(self._write_manifests(self._sink)))
        if self._anchoring is not None:
            tasks.append(asyncio.create_task(self._take_anchors(self._anchoring, queue)))
        try:
            while (batch := await self._next(queue)) is not None:
                with folding(batch):
                    await self._fold(folders, batch)
        finally:
            await end_tasks(tasks)
        await self._write_last_manifests()

    async def _open(self) -> list[Folder]:
        self._head = await self._journal.head()
        found = await self._positions()
        if missing := [projection for projection in self._projections if projection.name not in found]:
            self._counts["rebuilds"] += len(missing)
            await (build_first if self._record is None else self._record.build_first)(self._journal, self._store, missing)
        folded = partial(self._crash_point, crash_points.AFTER_FOLD_BEFORE_COMMIT)
        folders = []
        for projection in self._projections:
            stamp = await self._store.current(projection.name)
            if stamp is not None and stamp.version > projection.version:
                raise Unavailable(
                    f"projection {projection.name} is at version {stamp.version}, this program folds {projection.version}",
                    mend="upgrade ssmd, or roll the projection back",
                )
            if stamp is not None and stamp.position > self._head:
                raise Malformed(
                    f"the journal ends at position {self._head}, projection {projection.name} has folded up to"
                    f" {stamp.position}: events {self._head + 1}..{stamp.position} are lost from the journal",
                    mend="restore the journal, or accept the loss with: ssmd projection rebuild --all",
                )
            if stamp is None or stamp.version != projection.version:
                self._counts["rebuilds"] += 1
                stamp = (await self._rebuild(projection, is_strict=stamp is not None)).after
            if self._record is not None:
                # In case the one that swapped or passed over had no time left to say so.
                await self._record.swapped(stamp)
                await self._record.known_omissions(self._store, stamp)
            self._stamps[projection.name] = stamp
            folders.append(Folder(projection, self._store, stamp, before_commit=folded))
        return folders

    async def _rebuild(self, projection: Projection, *, is_strict: bool) -> Rebuilt:
        if self._record is None:
            return await rebuild(self._journal, self._store, projection, catalogue=self._catalogue, is_strict=is_strict)
        return await self._record.rebuild(self._journal, self._store, projection, is_strict=is_strict)

    async def _take_anchors(self, anchoring: Anchoring, queue: asyncio.Queue[Batch | SsmdError]) -> None:
        attempt = 0
        while True:
            try:
                await anchoring.run()
            except Unavailable:
                attempt += 1
                await asyncio.sleep(backoff_s(attempt, self._random, max_s=self._settings.retry_max_s))
            except SsmdError as error:
                await queue.put(error)
                return
            else:
                return

    async def _read(self, queue: asyncio.Queue[Batch | SsmdError], after: int) -> None:
        try:
            async with closing(self._journal.follow(after=after)) as batches:
                async for batch in batches:
                    for piece in in_pieces(batch, self._settings.batch_events):
                        await queue.put(list(piece))
        except SsmdError as error:
            await queue.put(error)

    async def _watch_head(self, queue: asyncio.Queue[Batch | SsmdError]) -> None:
        while True:
            await asyncio.sleep(self._settings.head_s)
            try:
                self._head = await self._journal.head()
                found = await self._positions()
            except SsmdError as error:
                await queue.put(error)
                return
            if lost := [projection.name for projection in self._projections if projection.name not in found]:
                await queue.put(Unavailable(f"the cache lost {', '.join(lost)}"))
                return

    async def _next(self, queue: asyncio.Queue[Batch | SsmdError]) -> list[RecordedEvent | PoisonEvent] | None:
        """What has come, up to `batch_events`; None = stop."""
        first = await self._until_stop(queue.get()) if queue.empty() else queue.get_nowait()
        if first is None or (self._stopping.is_set() and isinstance(first, SsmdError)):
            return None
        if isinstance(first, SsmdError):
            raise first
        batch = first
        while not queue.empty() and len(batch) < self._settings.batch_events:
            more = queue.get_nowait()
            if isinstance(more, SsmdError):
                raise more
            batch = batch + more
        return batch

    async def _fold(self, folders: Sequence[Folder], batch: Batch) -> None:
        events = decode_events(batch, self._catalogue, self._aggregates)
        applied = await asyncio.gather(
            *(folder.apply(events, batch[-1].position) for folder in folders), return_exceptions=True
        )
        for folder, changes in zip(folders, applied, strict=True):
            self._stamps[folder.projection.name] = folder.stamp
            if isinstance(changes, RowDamaged):
                # What is stored is no row of ours: nothing short of folding it anew mends that.
                await self._rebuild(folder.projection, is_strict=False)
            if isinstance(changes, BaseException):
                raise changes
            if folder.passed_over and self._record is not None:
                await self._record.passed_over(folder.projection.name, folder.passed_over)
            if changes is not None and self._sink is not None and folder.projection.name == manifests.NAME:
                self._sink.note(changes)
                if self._sink.pending:
                    self._dirty.set()
        self._head = max(self._head, batch[-1].position)
        self._moved.set()
        self._counts["batches"] += 1
        self._counts["events"] += len(batch)

    async def _write_manifests(self, sink: ManifestSink) -> None:
        attempt = 0
        while True:
            try:
                if not self._is_reconciled:
                    await sink.reconcile()
                    self._is_reconciled = True
                self._dirty.clear()
                if sink.pending:
                    self._crash_point(crash_points.AFTER_COMMIT_BEFORE_MANIFEST)
                await sink.write_pending()
            except SsmdError as error:
                self._sink_failure = f"manifests are not written: {error.message}"
                self._counts["failures"] += 1
                attempt += 1
                await asyncio.sleep(backoff_s(attempt, self._random, max_s=self._settings.retry_max_s))
                continue
            attempt = 0
            self._sink_failure = ""
            self._moved.set()
            await self._dirty.wait()

    async def _write_last_manifests(self) -> None:
        if self._sink is not None and self._sink.pending:
            try:
                await self._sink.write_pending()
            except SsmdError as error:
                self._sink_failure = f"manifests are not written: {error.message}"

    async def _after_conflict(self, error: Conflict) -> None:
        """Somebody else changed a view: stand by while they go on, or open the views anew at once."""
        self._counts["failures"] += 1
        self._failure = ""
        try:
            found = await self._positions()
            mine = {name: stamp.generation for name, stamp in self._stamps.items()}
            if found.keys() != mine.keys() or any(found[name].generation != mine[name] for name in found):
                # Swapped, rolled back or flushed: that happened once, and is over. Or two begin at the same time, and each
                # drops the other's shadow: they have to get out of step by more than a rebuild takes.
                self._conflicts += 1
                await self._pause(backoff_s(self._conflicts, self._random, max_s=_CONFLICT_PAUSE_S_MAX))
                return
            self._is_standing_by = True
            while not self._stopping.is_set():
                # Out of step by chance: two that each met the other's commit would return, and meet again, at one moment.
                await self._pause(self._settings.standby_s * (1 + int.from_bytes(self._random(2), "big") / 65536))
                before, found = found, await self._positions()
                self._stamps = found
                self._head = await self._journal.head()
                self._moved.set()
                if self.position > self._head or (found == before and self.position < self._head):
                    return
        except SsmdError as trouble:
            self._failure = f"{trouble.message} (after: {error.message})"
            await self._pause(backoff_s(1, self._random, max_s=self._settings.retry_max_s))
        finally:
            self._is_standing_by = False

    async def _positions(self) -> dict[str, Stamp]:
        found = {projection.name: await self._store.current(projection.name) for projection in self._projections}
        return {name: stamp for name, stamp in found.items() if stamp is not None}

    async def _holds(self, head: int) -> bool:
        """Whether the store itself says that every view is at `head`: it may have been emptied since."""
        found = await self._positions()
        return len(found) == len(self._projections) and all(stamp.position >= head for stamp in found.values())

    async def _until_stop(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of `work`; None when `stop` came first, with `work` cancelled."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            await end_tasks([task, stop])

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
