"""Looks after a connection's tape beside the capture: lets go of what the archive has, brings again what it misses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ssmd.errors import Malformed, Unavailable
from ssmd.services.connector.archive_watch import ArchiveWatch
from ssmd.services.connector.fact_journal import FactJournal
from ssmd.services.connector.mapper_checkpoint import prunable_before, prune
from ssmd.services.connector.tape_follower import MakeMapper, TapeFollower
from ssmd.streams.publisher import OrderedPublisher
from ssmd.streams.tape import TapeWriter


class TapeKeeper:
    """See the module. One task.

    Args:
        epoch: of this connector; a higher one in the journal means that another took over.
        on_fenced: told so, once.
    """

    def __init__(
        self,
        watch: ArchiveWatch,
        tape: TapeWriter,
        make_mapper: MakeMapper,
        publisher: OrderedPublisher,
        follower: TapeFollower,
        facts: FactJournal,
        *,
        epoch: int,
        on_fenced: Callable[[str], None],
        log: Any,
    ) -> None:
        self._watch = watch
        self._tape = tape
        self._make_mapper = make_mapper
        self._publisher = publisher
        self._follower = follower
        self._facts = facts
        self._epoch = epoch
        self._on_fenced = on_fenced
        self._log = log

    async def run(self, every_s: float) -> None:
        """Look every `every_s`, until cancelled or fenced. A journal that is away delays it, nothing else."""
        while True:
            await asyncio.sleep(every_s)
            try:
                if await self._look():
                    return
            except (Unavailable, Malformed) as error:
                self._log.warning("archive-not-seen", reason=error.message)

    async def _look(self) -> bool:
        """Whether another connector took over."""
        seen = await self._watch.look()
        if seen.epoch > self._epoch:
            self._on_fenced(f"connection epoch {self._epoch} is behind epoch {seen.epoch}: another connector took over")
            return True
        if seen.missed is not None:
            self._follower.refill(seen.missed, f"an archiver misses what is behind {seen.missed.session}/{seen.missed.n}")
        done = min(seen.sealed, self._publisher.acked, self._facts.done(self._follower.published))
        before = await asyncio.to_thread(prunable_before, self._tape.directory, done, self._make_mapper)
        if freed := self._tape.prune(before):
            prune(self._tape.directory, before.file_index)
            self._log.info("pruned", before_file=before.file_index, size_bytes=freed)
        return False
