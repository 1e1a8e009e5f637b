"""Reading the archive back: a day's raw lines and records in order, from any storage, in bounded memory.

The manifest says what is there: a segment it names that is absent, shorter, or other than its SHA-256 is an error with
its name, never a silent hole. Objects that no manifest names are not read (they are not sealed yet, or never will be).

Order: by receive time, then session and number, over all connections and kinds. Segments of one connection follow each
other in time; one that reaches back (the tape filled a stream again) is merged in. Which version of records:
`archive.versions`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import Final

import zstandard

from ssmd.archive.duplicates import ToldTwice
from ssmd.archive.keys import Shelf
from ssmd.archive.ordering import merge
from ssmd.archive.segment import FRAME_BYTES_MAX
from ssmd.archive.shelf_manifest import ArchivedSegment, check_kinds, read_manifest
from ssmd.archive.storage import Storage
from ssmd.archive.versions import ALL_DAY, NEVER_NS, Placed, Wanted, Window, placed_of, record_segments, resolved
from ssmd.errors import Malformed, Rejected
from ssmd.schemas.codecs import decode_records, find_records, whole_messages
from ssmd.schemas.raw_line import RawLine, read_lines
from ssmd.schemas.records import WHOLE_CHANNEL, Record

FIND_TICKERS_MAX: Final = 8
"""For so few tickers their records are looked for in the content; for more all are decoded and most thrown away."""
_VERIFY: Final = "ssmd data verify"
_FEED_BYTES: Final = 32 << 10
"""Stored bytes given to the decompressor at once: what lies behind a frame's end in them is copied."""


async def segment_content(storage: Storage, key: str, segment: ArchivedSegment) -> AsyncIterator[bytes]:
    """The decompressed content of one segment, a zstd frame at a time, checked on the way.

    Raises:
        Malformed: it is absent, or not the bytes that were sealed. A damaged frame is found before it is given; what
            only the SHA-256 of the whole shows, at the end.
        Unavailable: the storage is away.
    """
    state, size, content_size = hashlib.sha256(), 0, 0
    decompressor = zstandard.ZstdDecompressor()
    stream = decompressor.decompressobj()
    started = False
    held: list[bytes] = []
    try:
        async for piece in storage.read(key):
            state.update(piece)
            before, size = size, size + len(piece)
            for at in range(0, size - before, _FEED_BYTES):
                data = piece[at : at + _FEED_BYTES]
                while data:
                    held.append(stream.decompress(data))
                    started, data = True, b""
                    if stream.eof:
                        # Only now is the frame's checksum known to hold.
                        data, content = stream.unused_data, b"".join(held)
                        stream, started, held = decompressor.decompressobj(), False, []
                        content_size += len(content)
                        yield content
    except zstandard.ZstdError as error:
        raise Malformed(f"{key} is damaged: {error}", mend=_VERIFY) from error
    except Rejected as error:
        if error.rule != "no-such-object":
            raise
        raise Malformed(f"{key} is named by its manifest, but not in the storage", mend=_VERIFY) from error
    found = (size, state.hexdigest(), content_size)
    if started or found != (segment.byte_size, segment.sha256, segment.content_bytes):
        raise Malformed(
            f"{key} is not what was sealed: {segment.byte_size} bytes of sha256 {segment.sha256} expected, "
            f"{size} bytes of sha256 {found[1]} found{', the last frame is cut' if started else ''}",
            mend=_VERIFY,
        )


def chains(placed: Iterable[Placed], window: Window = ALL_DAY) -> list[list[Placed]]:
    """The segments of `window` as sequences that do not overlap in time, each of one connection; connections by name."""
    found: dict[str, list[list[Placed]]] = {}
    for one in sorted(placed, key=_place_of):
        segment = one.segment
        if not window.touches(segment):
            continue
        of_partition = found.setdefault(segment.partition, [])
        for chain in of_partition:
            if chain[-1].segment.ts_recv_last_ns <= segment.ts_recv_first_ns:
                chain.append(one)
                break
        else:
            of_partition.append([one])
    return [chain for of_partition in found.values() for chain in of_partition]


def _place_of(one: Placed) -> tuple[str, int, str, int]:
    segment = one.segment
    return segment.partition, segment.ts_recv_first_ns, segment.incarnation, segment.first_seq


# Raw


async def raw_chains(storage: Storage, shelf: Shelf, window: Window = ALL_DAY) -> list[list[Placed]]:
    """The `chains` of a date's raw lines.

    Raises:
        Malformed, Unavailable: as `read_manifest`.
    """
    return chains(placed_of(shelf, await read_manifest(storage, shelf)), window)


async def raw_content(storage: Storage, shelf: Shelf) -> AsyncIterator[bytes]:
    """The lines of a date as they are stored, in pieces of whole frames; `zstdcat` of its segments, checked.

    Raises:
        Malformed: see `segment_content`; also when connections overlap in time, which needs lines to be looked at.
    """
    for chain in await raw_chains(storage, shelf):
        for one in chain:
            async for content in segment_content(storage, one.key, one.segment):
                yield content


async def count_chains(storage: Storage, shelf: Shelf) -> int:
    """How many sequences of segments a date has; `raw_content` is in order where there is one at most."""
    return len(await raw_chains(storage, shelf))


def _raw_key(line: RawLine) -> tuple[int, ...]:
    return line.entry.ts_recv_ns, line.session, line.entry.n


async def _raw_chain(storage: Storage, chain: Sequence[Placed], window: Window) -> AsyncIterator[list[RawLine]]:
    for one in chain:
        lines = _Lines(one.key)
        async for content in segment_content(storage, one.key, one.segment):
            yield _within(lines.take(content), window)
        yield _within(lines.rest(), window)


def _within(lines: Sequence[RawLine], window: Window) -> list[RawLine]:
    start, end = window
    return [line for line in lines if start <= line.entry.ts_recv_ns < end]


class _Lines:
    """Content in pieces -> its lines. One `read_lines` for the segment: it remembers who ends frames in a newline."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._waiting: list[list[bytes]] = []
        self._cut = b""
        self._read = read_lines(self._next())

    def _next(self) -> Iterable[bytes]:
        while self._waiting:
            yield from self._waiting.pop()

    def take(self, content: bytes) -> list[RawLine]:
        whole, newline, self._cut = (self._cut + content).rpartition(b"\n")
        return self._decoded(whole.split(b"\n")) if newline else []

    def rest(self) -> list[RawLine]:
        cut, self._cut = self._cut, b""
        return self._decoded([cut]) if cut else []

    def _decoded(self, lines: list[bytes]) -> list[RawLine]:
        self._waiting = [lines]
        count = len(lines)
        try:
            return [line for _, line in zip(range(count), self._read, strict=False)]
        except Malformed as error:
            raise Malformed(f"{self._key}: {error.message}", mend=_VERIFY) from error


async def raw_lines(storage: Storage, shelf: Shelf, window: Window = ALL_DAY) -> AsyncIterator[Sequence[RawLine]]:
    """The tape entries of a date in order, in batches.

    Raises:
        Malformed, Unavailable: see `segment_content`.
    """
    found = await raw_chains(storage, shelf, window)
    if found:
        async for batch in merge([_raw_chain(storage, chain, window) for chain in found], _raw_key):
            yield batch


# Records


_record_key: Final[Callable[[Record], tuple[int, ...]]] = attrgetter("ts_recv_ns", "session", "n", "index")


async def record_contents(storage: Storage, wanted: Wanted) -> AsyncIterator[tuple[str, bytes]]:
    """(kind, whole messages) of all records of `wanted.kinds` in the segments that touch the window, kind by kind.

    The cheapest way to all of a day's records: not decoded, not filtered by ticker, duplicates and all, in order within a
    connection only.
    """
    known = await resolved(storage, wanted)
    for kind in wanted.kinds:
        for chain in chains(await record_segments(storage, known, kind), wanted.window):
            async for content in _messages(storage, chain):
                yield kind, content


async def _messages(storage: Storage, chain: Sequence[Placed]) -> AsyncIterator[bytes]:
    """The content of a chain, cut between messages."""
    for one in chain:
        key, cut = one.key, b""
        async for content in segment_content(storage, key, one.segment):
            data = cut + content if cut else content
            # A frame that ends inside a message is a full one: the writer cuts only what is larger than a frame.
            end = whole_messages(data) if cut or len(content) >= FRAME_BYTES_MAX else len(data)
            cut = data[end:]
            if end:
                yield data[:end] if cut else data
        if cut:
            raise Malformed(f"{key} ends inside a message", mend=_VERIFY)


async def _record_chain(
    storage: Storage, chain: Sequence[Placed], decode: Callable[[bytes], Iterable[Record]], window: Window
) -> AsyncIterator[Sequence[Record]]:
    start, end = window
    held: list[Record] = []
    async for content in _messages(storage, chain):
        records = list(decode(content))
        if start > 0 or end < NEVER_NS:
            records = [record for record in records if start <= record.ts_recv_ns < end]
        # A block's records stand together by ticker. Frames are cut between blocks, but for one that is larger than a frame:
        # only within a block do the keys of a session fall.
        records.sort(key=_record_key)
        if not records:
            continue
        if held and records[0].session == held[-1].session and _record_key(records[0]) < _record_key(held[-1]):
            held = sorted(held + records, key=_record_key)
            continue
        if held:
            yield held
        held = records
    if held:
        yield held


def _decoder_of(feed: str, kind: str, tickers: Collection[str]) -> Callable[[bytes], Iterable[Record]]:
    if not tickers:
        return decode_records
    names = frozenset({*tickers, WHOLE_CHANNEL}) if kind == "gap" else frozenset(tickers)
    if len(names) <= FIND_TICKERS_MAX:
        return lambda content: find_records(content, kind, feed, names)
    return lambda content: (record for record in decode_records(content) if record.ticker in names)


async def records(storage: Storage, wanted: Wanted) -> AsyncIterator[Sequence[Record]]:
    """The records of a date in order, in batches.

    Raises:
        Malformed, Unavailable: see `segment_content`.
        Rejected: "unknown-kind".
    """
    check_kinds(wanted.kinds)
    known = await resolved(storage, wanted)
    sources: list[AsyncIterator[Sequence[Record]]] = []
    for kind in wanted.kinds:
        decode = _decoder_of(wanted.feed, kind, wanted.tickers)
        placed = await record_segments(storage, known, kind)
        told = ToldTwice()
        if kind == "trade" and not wanted.keeps_duplicates and told.may_be(placed):
            for chain in chains(told.first_told(placed)):
                async for content in _messages(storage, chain):
                    told.note(chain[0].segment.partition, decode(content))
        for chain in chains(placed, wanted.window):
            records_of = told.without(chain[0].segment.partition, decode)
            sources.append(_record_chain(storage, chain, records_of, wanted.window))
    if sources:
        async for batch in merge(sources, _record_key):
            yield batch


__all__ = [
    "ALL_DAY",
    "NEVER_NS",
    "Wanted",
    "Window",
    "chains",
    "count_chains",
    "raw_chains",
    "raw_content",
    "raw_lines",
    "record_contents",
    "records",
    "segment_content",
]
