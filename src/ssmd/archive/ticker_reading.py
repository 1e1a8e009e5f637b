"""One ticker's records of a date, by the segments' sidecars: frames without it are not read, sums stand for whole groups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

import zstandard

from ssmd.archive.keys import Shelf
from ssmd.archive.reading import segment_content
from ssmd.archive.segment import FRAME_BYTES_MAX
from ssmd.archive.segment_index import (
    PREFIX_BYTES,
    Frame,
    Group,
    Head,
    decode_groups,
    decode_head,
    decode_prefix,
    digest_of,
    index_key,
)
from ssmd.archive.shelf_manifest import ArchivedSegment
from ssmd.archive.storage import Storage
from ssmd.archive.versions import Wanted, Window, record_segments
from ssmd.errors import Malformed, Unavailable
from ssmd.schemas.codecs import find_records, whole_messages
from ssmd.schemas.records import Record

HEAD_BYTES: Final = 256 << 10
"""Asked for at first: the head of some thousand tickers; a larger one takes a second request."""
TOGETHER_MAX: Final = 16
"""Sidecars asked for at once."""
_VERIFY: Final = "ssmd data verify"


class Part(NamedTuple):
    """A ticker's records in a segment: `group` of it, or (without a sidecar: `group` None) what is in all of it."""

    shelf: Shelf
    segment: ArchivedSegment
    head: Head | None = None
    group: Group | None = None

    @property
    def ts_min_ns(self) -> int:
        return self.segment.ts_recv_first_ns if self.group is None else self.group.ts_min_ns

    @property
    def ts_max_ns(self) -> int:
        return self.segment.ts_recv_last_ns if self.group is None else self.group.ts_max_ns


async def parts(storage: Storage, wanted: Wanted, kind: str, ticker: str) -> list[Part]:
    """Where records of `kind` and `ticker` are that may have been received within the window of `wanted`.

    Raises:
        Rejected, Malformed, Unavailable: as `versions.record_segments`.
    """
    segments = [one for one in await record_segments(storage, wanted, kind) if wanted.window.touches(one.segment)]
    found: list[Part] = []
    for at in range(0, len(segments), TOGETHER_MAX):
        some = segments[at : at + TOGETHER_MAX]
        for told in await asyncio.gather(*(_parts_of(storage, *one, ticker) for one in some)):
            found += [part for part in told if _touches(part, wanted.window)]
    return found


def _touches(part: Part, window: Window) -> bool:
    return part.ts_min_ns < window.end_ns and part.ts_max_ns >= window.start_ns


async def _parts_of(storage: Storage, shelf: Shelf, segment: ArchivedSegment, ticker: str) -> list[Part]:
    key = index_key(shelf.prefix + segment.name)
    try:
        start = await storage.read_range(key, 0, HEAD_BYTES)
        if start is None:
            return [Part(shelf, segment)]
        size = PREFIX_BYTES + decode_prefix(start)
        if size > len(start):
            start = await storage.read_range(key, 0, size) or b""
        head = decode_head(start)
        if (head.sha256, head.byte_size) != (segment.sha256, segment.byte_size):
            return [Part(shelf, segment)]
        place = head.tickers.get(ticker)
        if place is None:
            return []
        at, length, crc = place
        block = start[size + at : size + at + length]
        if len(block) < length:
            block = await storage.read_range(key, size + at, length) or b""
        return [Part(shelf, segment, head, group) for group in decode_groups(block, crc)]
    except (Malformed, Unavailable):
        return [Part(shelf, segment)]  # as without it: slower


async def part_records(storage: Storage, part: Part, kind: str, ticker: str) -> AsyncIterator[Sequence[Record]]:
    """The records of `ticker` in a part, in batches, in the segment's order.

    Raises:
        Malformed: the segment is absent or damaged. Unavailable: the storage is away.
    """
    feed = part.shelf.feed
    key = part.shelf.prefix + part.segment.name
    if part.head is not None and part.group is not None:
        frames = part.head.frames_of(part.group)
        start, end = frames[0].offset, frames[-1].offset + frames[-1].size
        stored = await storage.read_range(key, start, end - start)
        if stored is None:
            raise Malformed(f"{key} is named by its manifest, but not in the storage", mend=_VERIFY)
        for frame in frames:
            content = _content(key, frame, stored[frame.offset - start : frame.offset - start + frame.size])
            yield find_records(content, kind, feed, [ticker])
        return
    cut = b""
    async for content in segment_content(storage, key, part.segment):
        data = cut + content if cut else content
        end = whole_messages(data) if cut or len(content) >= FRAME_BYTES_MAX else len(data)
        yield find_records(data[:end], kind, feed, [ticker])
        cut = data[end:]
    if cut:
        raise Malformed(f"{key} ends inside a message", mend=_VERIFY)


def _content(key: str, frame: Frame, stored: bytes) -> bytes:
    if digest_of(stored) != frame.digest:
        raise Malformed(
            f"{key} is damaged: bytes {frame.offset}..{frame.offset + frame.size} are not what was sealed", mend=_VERIFY
        )
    try:
        return zstandard.ZstdDecompressor().decompress(stored)
    except zstandard.ZstdError as error:
        raise Malformed(f"{key} is damaged: {error}", mend=_VERIFY) from error


__all__ = ["Part", "part_records", "parts"]
