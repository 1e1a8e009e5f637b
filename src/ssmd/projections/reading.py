"""Reading the journal for folds: batch sizes, prefixes as of an instant, closing what was opened."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, NamedTuple

from ssmd.errors import Rejected
from ssmd.streams.journal import PoisonEvent, RecordedEvent

Batch = list[RecordedEvent | PoisonEvent]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class AsOf(NamedTuple):
    """A prefix of the journal: up to a position (inclusive), or up to an instant, or both (the shorter).

    By instant T it is the longest prefix whose running maximum of `ts_ns` is <= T, that is all before the first event
    later than T: what was knowable then, although writers' clocks may disagree.
    """

    position: int | None = None
    ts_ns: int | None = None


_TIME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2})?)?")
_SEQUENCE_DIGITS_MAX: Final = 18


def parse_as_of(text: str) -> AsOf:
    """A journal position ("812"), or an instant: a date (its first moment) or a time in ISO 8601, UTC unless it says else.

    Raises:
        Rejected: "bad-as-of".
    """
    if text.isascii() and text.isdecimal() and len(text) <= _SEQUENCE_DIGITS_MAX:
        return AsOf(position=int(text))
    found = _TIME.fullmatch(text)
    # What is no time at all fails like a time of day that does not exist.
    date, clock, fraction, zone = found.groups() if found else ("", "", "", "")
    try:
        moment = datetime.fromisoformat(f"{date}T{clock or '00:00'}{(zone or 'Z').replace('Z', '+00:00')}")
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        raise Rejected(
            "bad-as-of",
            f"{text!r} is neither a journal position nor a time",
            mend="--as-of 812, --as-of 2026-05-14 or --as-of 2026-05-14T13:00:00.5Z",
        ) from None
    seconds = since.days * 86_400 + since.seconds
    return AsOf(ts_ns=seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0")))


@asynccontextmanager
async def closing(batches: AsyncIterator[Batch]) -> AsyncGenerator[AsyncIterator[Batch]]:
    """`batches`, closed at the end of the block if it is a generator."""
    try:
        yield batches
    finally:
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()


async def gathered(batches: AsyncIterator[Batch], size: int) -> AsyncGenerator[Batch]:
    """The same messages in batches of `size` or a little more; the last one holds what is left. Closes `batches`."""
    held: Batch = []
    async with closing(batches):
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
