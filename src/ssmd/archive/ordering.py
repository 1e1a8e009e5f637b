"""Several ordered sources as one, a batch at a time, in bounded memory.

A batch of every source is held. All that is not beyond the least of their last items can go on, for what comes later in
any source is not before that; those runs are sorted together (they are sorted already: a merge), and what is used up is
read on. The order is a function of the sources' content alone, not of how it came in batches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")


class Comparable(Protocol):
    def __lt__(self, other: object, /) -> bool: ...


class _Source(Generic[Item]):
    """What is held of one source: items from `at` on are not yet given."""

    def __init__(self, number: int, batches: AsyncIterator[Sequence[Item]], key: Callable[[Item], tuple[int, ...]]) -> None:
        self.number = number
        self._batches = batches
        self._key = key
        self._high: tuple[int, ...] = ()
        self.items: Sequence[Item] = ()
        self.keys: list[tuple[int, ...]] = []
        self.at = 0

    async def fill(self) -> bool:
        """Whether there is something; reads the next batch when all is given."""
        while self.at >= len(self.items):
            batch = await anext(self._batches, None)
            if batch is None:
                return False
            self.items, self.at = batch, 0
            self.keys = [self._key(item) for item in batch]
            # Where a clock stepped back between sessions keys fall: the source's own order counts, so they are raised.
            for index, key in enumerate(self.keys):
                if key < self._high:
                    self.keys[index] = self._high
                else:
                    self._high = key
        return True

    def take(self, bound: tuple[int, ...]) -> list[tuple[tuple[int, ...], int, int, Item]]:
        end = bisect_right(self.keys, bound, self.at)
        taken = [
            (key, self.number, index, item)
            for index, (key, item) in enumerate(zip(self.keys[self.at : end], self.items[self.at : end], strict=True))
        ]
        self.at = end
        return taken


async def merge(
    sources: Sequence[AsyncIterator[Sequence[Item]]], key: Callable[[Item], tuple[int, ...]]
) -> AsyncIterator[Sequence[Item]]:
    """The items of all `sources` by `key`; equal ones by the place of their source, and in its order.

    Args:
        sources: each gives batches of items whose keys do not fall, by and large.
    """
    if len(sources) == 1:
        async for batch in sources[0]:
            yield batch
        return
    left = [_Source(number, batches, key) for number, batches in enumerate(sources)]
    while True:
        left = [source for source in left if await source.fill()]
        if not left:
            return
        bound = min(source.keys[-1] for source in left)
        runs = [run for source in left for run in source.take(bound)]
        runs.sort(key=lambda run: run[:3])
        yield [run[3] for run in runs]
