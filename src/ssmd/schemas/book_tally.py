"""What book changes come to, without taking each apart: equal ones are counted, and only the different ones read.

Changes of markets with names of one length are messages of one size, and behind its numbers (times, session, sequence)
a message is the same bytes again whenever the same ticker changes by the same size at the same price. Where that does
not hold, `tally` says so, and `record_columns` is what reads them: slower, with the same answer.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from ssmd.schemas import record_layout as layout
from ssmd.schemas.record_columns import names_of

_TAIL_AT: Final = layout.HEAD_AT + 48
"""From here on (exponents, member, names, price, size, side) equal changes are equal bytes."""
_EXPONENTS: Final = Struct("<bbH")
_NAMES_AT: Final = layout.POINTERS_AT - _TAIL_AT
_RECV_WORD, _SESSION_WORD, _SID_HALF = 3, 4, 13
_CHANGES: Final = frozenset({1, 2})
"""Sides of changes, as one number with their meaning."""
_KINDS: Final = frozenset(side | meaning << 16 for side in (0, 1, 2) for meaning in (0, 1))
_SEARCHED_MAX: Final = 32
"""So many tickers are looked for one by one; of more, every row is looked at."""

Level = tuple[str, int, int, int, int]
"""Ticker, price exponent, size exponent, side, price."""


class Tally(NamedTuple):
    """What messages in order come to.

    Attributes:
        sums: of the sizes at each level, levels in the order they first come in; empty unless `is_summable`.
        counts: of messages, by ticker in the order they first come in.
        first, last: the rows (from 0) of a ticker's.
        is_summable: all are changes of a known side; totals depend on their order.
        is_one_subscription: all are of one session and sid.
    """

    data: bytes
    size: int
    sums: dict[Level, int]
    counts: dict[str, int]
    first: dict[str, int]
    last: dict[str, int]
    is_summable: bool
    is_one_subscription: bool

    def place(self, row: int) -> tuple[int, int, int, int, int, int]:
        """Receive time, session, n, index, sid and seq of a message."""
        _, ts_recv_ns, session, n, index, sid, seq, *_ = layout.HEAD.unpack_from(self.data, row * self.size + layout.HEAD_AT)
        return ts_recv_ns, session, n, index, sid, seq

    def time_bounds(self) -> tuple[int, int]:
        """The least and the greatest receive time."""
        times = memoryview(self.data).cast("Q")[_RECV_WORD :: self.size >> 3].tolist()
        return min(times), max(times)


def tally(contents: Sequence[bytes]) -> Tally | None:
    """What the messages in `contents` come to; None = they are not all book changes of one size, laid out as usual."""
    data = b"".join(contents)
    if sys.byteorder != "little" or len(data) < layout.POINTERS_AT:
        return None
    size = layout.FRAME.size + (layout.FRAME.unpack_from(data)[1] << 3)
    if size < layout.POINTERS_AT + layout.BOOK_BODY.size or len(data) % size or data[:4] + data[8:16] != bytes(4) + layout.ROOT:
        return None
    words, halves, step = memoryview(data).cast("Q"), memoryview(data).cast("I"), size >> 3
    if not _is_constant(words, 0, step) or not _is_constant(words, 1, step):
        return None
    found = _sums(Counter([data[at : at + size - _TAIL_AT] for at in range(_TAIL_AT, len(data), size)]))
    if found is None:
        return None
    sums, counts, is_summable = found
    try:
        named = {part: _name(part) for part in counts}
    except (layout.Unusual, UnicodeDecodeError):
        return None
    if len({ticker for ticker, _, _ in named.values()}) < len(named):
        return None  # one ticker with several exponents
    first, last = _rows(data, size, counts)
    return Tally(
        data=data,
        size=size,
        sums={(*named[part], side, price): total for (part, side, price), total in sums.items()} if is_summable else {},
        counts={named[part][0]: count for part, count in counts.items()},
        first={named[part][0]: first[part] for part in counts},
        last={named[part][0]: last[part] for part in counts},
        is_summable=is_summable,
        is_one_subscription=_is_constant(words, _SESSION_WORD, step) and _is_constant(halves, _SID_HALF, step * 2),
    )


def _is_constant(column: memoryview, at: int, step: int) -> bool:
    found = column[at::step].tobytes()
    return found == found[: column.itemsize] * (len(found) // column.itemsize)


def _sums(counted: Counter[bytes]) -> tuple[dict[tuple[bytes, int, int], int], dict[bytes, int], bool] | None:
    """Sums and counts by the bytes from the exponents to the names, and whether all can be summed.

    None = a number is none of a book change.
    """
    sums: defaultdict[tuple[bytes, int, int], int] = defaultdict(int)
    counts: defaultdict[bytes, int] = defaultdict(int)
    numbers = _different(len(next(iter(counted)))).iter_unpack(b"".join(counted))
    kinds = set()
    for count, (part, price, size, kind) in zip(counted.values(), numbers, strict=True):
        if price == layout.UNDEFINED or size == layout.UNDEFINED:  # noqa: PLR1714 - half the time of "in", of millions
            return None
        kinds.add(kind)
        sums[part, kind, price] += size * count
        counts[part] += count
    return (sums, counts, kinds <= _CHANGES) if kinds <= _KINDS else None


def _rows(data: bytes, size: int, parts: Collection[bytes]) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """The first and the last row of each of `parts`."""
    if len(parts) <= _SEARCHED_MAX:
        return {part: _first(data, size, part) for part in parts}, {part: _last(data, size, part) for part in parts}
    width = len(next(iter(parts)))
    every = [data[at : at + width] for at in range(_TAIL_AT, len(data), size)]
    rows = range(len(every))
    return dict(zip(reversed(every), reversed(rows), strict=True)), dict(zip(every, rows, strict=True))


def _first(data: bytes, size: int, part: bytes) -> int:
    at = data.find(part, _TAIL_AT)
    while (at - _TAIL_AT) % size:
        at = data.find(part, at + 1)
    return (at - _TAIL_AT) // size


def _last(data: bytes, size: int, part: bytes) -> int:
    at = data.rfind(part)
    while (at - _TAIL_AT) % size:
        at = data.rfind(part, 0, at + len(part) - 1)
    return (at - _TAIL_AT) // size


@lru_cache(256)
def _different(size: int) -> Struct:
    """Of the end of a message: what is before the price, price, size, and side and meaning as one number."""
    return Struct(f"<{size - layout.BOOK_BODY.size}sqqI4x")


def _name(part: bytes) -> tuple[str, int, int]:
    """Ticker and exponents."""
    price_exponent, size_exponent, member = _EXPONENTS.unpack_from(part)
    if member != layout.BOOK:
        raise layout.Unusual
    return names_of(part[_NAMES_AT:])[1], price_exponent, size_exponent
