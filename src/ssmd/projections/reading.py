"""Reading the journal for folds: batch sizes, prefixes as of an instant, closing what was opened."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from ssmd.streams.journal import PoisonEvent, RecordedEvent

Batch = list[RecordedEvent | PoisonEvent]


class AsOf(NamedTuple):
    """A prefix of the journal: up to a position (inclusive), or up to an instant, or both (the shorter).

    By instant T it is the longest prefix whose running maximum of `ts_ns` is <= T, that is all before the first event
    later than T: what was knowable then, although writers' clocks may disagree.
    """

    position: int | None = None
    ts_ns: int | None = None


@asynccontextmanager
async def closing(batches: AsyncIterator[Batch]) -> AsyncGenerator[AsyncIterator[Batch]]:
    """`batches`, closed at the end of the block if it is a generator."""
    try:
        yield batches
    finally:
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()


async def gathered(batches: AsyncIterator[Batch], size: int) -> AsyncGenerator[Batch]:
    """The same messages in batches of `size` or a little more; the last one holds what is left."""
    held: Batch = []
    async for batch in batches:
        held += batch
        if len(held) >= size:
            yield held
            held = []
    if held:
        yield held


def within(batch: Batch, ts_ns: int) -> Batch:
    """The messages of `batch` before the first event later than `ts_ns`; shorter than `batch` = the prefix ends here."""
    for index, message in enumerate(batch):
        if isinstance(message, RecordedEvent) and message.envelope.ts_ns > ts_ns:
            return batch[:index]
    return batch
