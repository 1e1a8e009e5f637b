"""Taking anchors of the journal: every minute and at each seal, so that a journal that lost or changed something is found.

An anchor is written once and never changed. Beside them, `anchors-latest/{env}.json` names the last two: all that a query
needs to check the journal's end without listing a year of them.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from ssmd.clock import Clock
from ssmd.domain.archive import SegmentSealed
from ssmd.domain.decider import tag_of
from ssmd.projections.journal_guard import Latest, check_latest, decode_latest, encode_latest, latest_key
from ssmd.projections.reading import Batch, closing
from ssmd.streams.journal import Journal, RecordedEvent
from ssmd.streams.journal_anchor import Anchor, RollingDigest, anchor_key, encode_anchor

ANCHOR_S: Final = 60.0
_SEAL: Final = tag_of(SegmentSealed)


class AnchorStore(Protocol):
    """As much of object storage as anchors need."""

    async def put(self, key: str, data: bytes) -> None:
        """Write an object whole."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The object's bytes, None = there is none."""
        ...


class Anchoring:
    """Follows the journal and takes anchors of it. One at work per environment; two do no harm.

    Args:
        anchor_s: time between anchors while there is anything new.
    """

    def __init__(self, env: str, journal: Journal, objects: AnchorStore, clock: Clock, *, anchor_s: float = ANCHOR_S) -> None:
        self._env = env
        self._journal = journal
        self._objects = objects
        self._clock = clock
        self._anchor_s = anchor_s
        self._latest = Latest()
        self.position = 0
        """Of the last anchor."""

    async def run(self) -> None:
        """Take anchors until cancelled, or until the journal is closed.

        Raises:
            Malformed: the journal is not what the last anchors say; the range is named.
            Unavailable: journal or storage is away.
        """
        stored = await self._objects.get(latest_key(self._env))
        self._latest = Latest() if stored is None else decode_latest(stored)
        await check_latest(self._journal, self._env, self._latest)
        self.position = 0 if self._latest.newer is None else self._latest.newer.position
        digest = RollingDigest(self._env, self._latest.newer)
        loop = asyncio.get_running_loop()
        due = loop.time() + self._anchor_s
        async with closing(self._journal.follow(after=digest.position)) as batches:
            waiting = asyncio.ensure_future(anext(batches))
            try:
                while True:
                    await asyncio.wait({waiting}, timeout=max(0.0, due - loop.time()))
                    has_seal = False
                    if waiting.done():
                        try:
                            batch = waiting.result()
                        except StopAsyncIteration:
                            return
                        waiting = asyncio.ensure_future(anext(batches))
                        has_seal = _take(digest, batch)
                    if has_seal or loop.time() >= due:
                        await self._write(digest)
                        due = loop.time() + self._anchor_s
            finally:
                waiting.cancel()
                await asyncio.wait({waiting})

    async def _write(self, digest: RollingDigest) -> None:
        if digest.position == self.position:
            return
        anchor = digest.anchor(self._clock.now_ns())
        await self._objects.put(anchor_key(self._env, anchor.position), encode_anchor(anchor))
        self._latest = Latest(older=self._latest.newer or Anchor(0, bytes(32).hex()), newer=anchor)
        await self._objects.put(latest_key(self._env), encode_latest(self._latest))
        self.position = anchor.position


def _take(digest: RollingDigest, batch: Batch) -> bool:
    """Take in `batch`; whether a seal is among it."""
    has_seal = False
    for message in batch:
        digest.add(message)
        has_seal = has_seal or (isinstance(message, RecordedEvent) and message.envelope.type == _SEAL)
    return has_seal
