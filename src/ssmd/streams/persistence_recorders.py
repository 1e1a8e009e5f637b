"""The recorders of `ssmd.streams.persistence`: the library's synchronous classes over an async `EventStore`.

Any number of threads may use one recorder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    Notification,
    ProcessRecorder,
    Recorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)

from ssmd.streams.journal_nats_read import StreamReader
from ssmd.streams.persistence_loop import LoopThread, translated
from ssmd.streams.persistence_store import Change, EventStore, notification_of

SUBSCRIPTION_BATCHES_MAX: Final = 4
"""Batches (of at most 2000 notifications) held for a subscriber; the server sends no more until it takes them."""


class Backing(NamedTuple):
    """What a recorder works on. `ensure` makes the stream where it may."""

    loop: LoopThread
    store: EventStore
    reader: StreamReader
    ensure: Callable[[], Awaitable[None]]


class JetStreamRecorder(Recorder):
    """Over one stream."""

    def __init__(self, backing: Backing) -> None:
        self._loop = backing.loop
        self._store = backing.store
        self._reader = backing.reader
        self._ensure = backing.ensure

    def create_table(self) -> None:
        """Make the stream if there is none."""

        async def ensure() -> None:
            await self._ensure()

        self._loop.call(ensure())


class JetStreamAggregateRecorder(JetStreamRecorder, AggregateRecorder):
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        self._insert(stored_events, **kwargs)
        return None

    def _insert(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        tracking: Tracking | None = kwargs.get("tracking")
        return self._loop.call(self._store.insert(stored_events, tracking, ()))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        return self._loop.call(self._store.events(originator_id, gt=gt, lte=lte, desc=desc, limit=limit))


class JetStreamApplicationRecorder(JetStreamAggregateRecorder, ApplicationRecorder):
    """Notification ids are stream sequences: rising, and contiguous where no trackings stand between (process recorders)."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        return self._insert(stored_events, **kwargs)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        first = 1 if start is None else start + (not inclusive_of_start)
        return self._loop.call(self._store.notifications(first, limit, stop, topics))

    def max_notification_id(self) -> int | None:
        return self._loop.call(self._store.max_notification_id())

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        return JetStreamSubscription(self, gt, topics)


class JetStreamTrackingRecorder(JetStreamRecorder, TrackingRecorder):
    """Views derive from it: what they keep is written together with the tracking."""

    def insert_tracking(self, tracking: Tracking) -> None:
        self._loop.call(self._store.insert((), tracking, ()))

    def max_tracking_id(self, application_name: str) -> int | None:
        return self._loop.call(self._store.max_tracking_id(application_name))

    def get_value(self, key: str) -> bytes:
        """What was last written under `key`, b"" = nothing."""
        return self._loop.call(self._store.value(key))[0]

    def insert_tracking_with(
        self, tracking: Tracking, update: Callable[[Mapping[str, bytes]], Mapping[str, bytes]], *keys: str
    ) -> None:
        """Write the tracking and new values atomically.

        Args:
            update: given the values under `keys`, those to be written (of the same keys).

        Raises:
            IntegrityError: the tracking is recorded already, or another process has changed a value meanwhile.
        """

        async def write() -> None:
            values = {key: await self._store.value(key) for key in keys}
            new = update({key: value for key, (value, _) in values.items()})
            changes = [Change(key, value, values[key][1]) for key, value in new.items()]
            await self._store.insert((), tracking, changes)

        self._loop.call(write())


class JetStreamProcessRecorder(JetStreamTrackingRecorder, JetStreamApplicationRecorder, ProcessRecorder):
    """Events and trackings on one stream: they commit together."""


class JetStreamSubscription(Subscription[ApplicationRecorder]):
    """Follows the stream over restarts of the server; what it holds is bounded."""

    def __init__(self, recorder: JetStreamApplicationRecorder, gt: int | None, topics: Sequence[str]) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._loop = recorder._loop  # noqa: SLF001 - one backend
        self._reader = recorder._reader  # noqa: SLF001 - one backend
        self._filter = recorder._store.all_events  # noqa: SLF001 - one backend
        self._batches: asyncio.Queue[list[Notification] | BaseException | None] = asyncio.Queue(SUBSCRIPTION_BATCHES_MAX)
        self._stopped = asyncio.Event()
        self._held: list[Notification] = []
        self._cancel = self._loop.start(self._follow(gt or 0))

    async def _follow(self, after: int) -> None:
        try:
            with translated():
                async with aclosing(self._reader.read(after=after, subjects=[self._filter])) as batches:
                    async for batch in batches:
                        notifications = [notification_of(one) for one in batch]
                        wanted = [one for one in notifications if not self._topics or one.topic in self._topics]
                        if wanted:
                            await self._batches.put(wanted)
            await self._batches.put(None)
        except Exception as error:  # noqa: BLE001 - whoever iterates raises it
            await self._batches.put(error)

    async def _next(self) -> list[Notification] | BaseException | None:
        getting = asyncio.ensure_future(self._batches.get())
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait([getting, stopped], return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting.done() else None
        finally:
            getting.cancel()
            stopped.cancel()

    async def _set_stopped(self) -> None:
        self._stopped.set()

    def __next__(self) -> Notification:
        while not self._held and not self._has_been_stopped:
            batch = self._loop.call(self._next())
            if batch is None:
                self.stop()
            elif isinstance(batch, BaseException):
                self.stop()
                raise batch
            else:
                self._held = batch[::-1]
        if self._has_been_stopped:
            raise StopIteration
        return self._held.pop()

    def stop(self) -> None:
        """Ends the iteration, from any thread, and what is read for it."""
        if not self._has_been_stopped:
            super().stop()
            self._cancel()
            if not self._loop.is_closed:
                self._loop.call(self._set_stopped())
