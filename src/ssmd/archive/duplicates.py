"""Trades that a date holds twice: as captured, and as the venue told them afterwards (`archive.backfilled`).

By default a reader gets each once: as captured, which has the receive time, the sid and the seq; else of the whole venue's
backfill; else of a market's own. Which is which the venue's trade id says. Held are eight bytes a trade (BLAKE2b), of the
partitions that come first alone, and only where a date has both: two different trades of n share eight bytes with a
probability below n * n / 2**65.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ssmd.archive.backfilled import ALL, ROWS, is_backfill
from ssmd.archive.versions import Placed
from ssmd.schemas.records import Record, Trade

_BUCKETS: Final = 256
Decode = Callable[[bytes], Iterable[Record]]


class ToldTwice:
    """Ids of trades by partition, those that count first; knows nothing until `may_be` was asked."""

    def __init__(self) -> None:
        self._order: list[str] = []
        self._ids: dict[str, _Ids] = {}

    def may_be(self, placed: Sequence[Placed]) -> bool:
        """Whether these segments can hold a trade twice."""
        partitions = {one.segment.partition for one in placed}
        if any(map(is_backfill, partitions)) and len(partitions) > 1:
            self._order = sorted(partitions, key=_rank)
            self._ids = {name: _Ids() for name in self._order[:-1]}
        return bool(self._order)

    def first_told(self, placed: Iterable[Placed]) -> Iterator[Placed]:
        """Those of the segments whose trades are to be noted."""
        return (one for one in placed if one.segment.partition in self._ids)

    def note(self, partition: str, found: Iterable[Record]) -> None:
        """Remember trades of a partition that others may repeat."""
        add = self._ids[partition].add
        for record in found:
            if isinstance(record, Trade) and record.trade_id:
                add(record.trade_id)

    def without(self, partition: str, decode: Decode) -> Decode:
        """`decode` for a partition, without the trades that one before it holds."""
        if not self._order or not is_backfill(partition):
            return decode
        before = [self._ids[name] for name in self._order[: self._order.index(partition)]]

        def fresh(content: bytes) -> Iterator[Record]:
            for record in decode(content):
                if not isinstance(record, Trade) or not any(record.trade_id in ids for ids in before):
                    yield record

        return fresh


def _rank(partition: str) -> tuple[bool, bool, str]:
    return is_backfill(partition), partition != ROWS + ALL, partition


class _Ids:
    """A set of ids in eight bytes each; add first, then ask."""

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(_BUCKETS)]
        self._is_sorted = True

    def add(self, trade_id: str) -> None:
        key = _key(trade_id)
        self._buckets[key % _BUCKETS].append(key)
        self._is_sorted = False

    def __contains__(self, trade_id: str) -> bool:
        if not self._is_sorted:
            self._buckets = [array("Q", sorted(bucket)) for bucket in self._buckets]
            self._is_sorted = True
        key = _key(trade_id)
        bucket = self._buckets[key % _BUCKETS]
        at = bisect_left(bucket, key)
        return at < len(bucket) and bucket[at] == key


def _key(trade_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(trade_id.encode(), digest_size=8).digest(), "little")
