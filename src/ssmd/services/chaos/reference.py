"""What an undisturbed run would have archived of a tape: the same blocks through the same archivers, all in one process.

And what an archive really holds, to be compared with it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ssmd.application.handler import Application
from ssmd.archive.keys import DataType, parse_segment
from ssmd.archive.segment import read_content
from ssmd.archive.segment_index import segment_key_of
from ssmd.archive.storage import Storage
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import Clock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Malformed
from ssmd.exchanges.adapter import Mapper
from ssmd.identifiers import RandomBytes
from ssmd.registry.documents import ArchiveSettings
from ssmd.schemas.blocks import NO_DIGEST
from ssmd.services.connector.tape_follower import BlockMapper, Names
from ssmd.services.normalized_archiver import NormalizedArchiver
from ssmd.services.raw_archiver import RawArchiver
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.tape_cursor import TapeCursor
from ssmd.streams.transport_memory import MemoryTransport


class Content(msgspec.Struct, frozen=True):
    """All decompressed bytes of one kind and day, segments in order; `kind` "raw" = the raw archive."""

    kind: str
    date: str
    content_bytes: int
    sha256: str


class _Shelf(NamedTuple):
    kind: str
    date: str


async def reference(
    directory: Path,
    names: Names,
    make_mapper: Callable[[int], Mapper],
    *,
    clock: Clock,
    random: RandomBytes,
    spool: Path,
    settings: ArchiveSettings,
    zone: str = "UTC",
) -> list[Content]:
    """What archivers make of the tape in `directory` when nothing ever goes wrong. Memory: about three tapes.

    Raises:
        Malformed: the tape is damaged or was pruned, or its blocks do not follow one another.
    """
    transport, storage = MemoryTransport(), MemoryStorage()
    mapper = BlockMapper(names, make_mapper)
    cursor = TapeCursor(directory)
    is_first = True
    while tape_blocks := cursor.read():
        for tape_block in tape_blocks:
            if is_first and tape_block.header.previous_digest != NO_DIGEST:
                raise Malformed(f"the tape in {directory} was pruned: what an undisturbed run would hold of it is not known")
            is_first = False
            unit, _ = mapper.map(tape_block.decode(), tape_block.data, is_wanted=True)
            if unit is not None:
                for message in (unit.raw, *unit.market):
                    transport.put(message)
        await asyncio.sleep(0)
    cursor.close()
    kinds: tuple[type[RawArchiver | NormalizedArchiver], ...] = (RawArchiver, NormalizedArchiver)
    for kind in kinds:
        archiver = kind(
            names.env,
            names.feed,
            instance="reference",
            transport=transport,
            storage=storage,
            application=Application(MemoryJournal(names.env), CATALOGUE, clock, random),
            clock=clock,
            random=random,
            spool=spool / kind.__name__,
            settings=settings,
            zone=zone,
        )
        await _run(archiver, last_seq=len(transport.stored("raw" if kind is RawArchiver else "market")))
    return await contents(storage)


async def _run(archiver: RawArchiver | NormalizedArchiver, last_seq: int) -> None:
    running = asyncio.create_task(archiver.run())
    # A stop alone waits a while only, and leaves the rest on the stream.
    while not running.done() and int(archiver.health().stats["stream_seq"]) < last_seq:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    await archiver.stop()
    await running
    health = archiver.health()
    if not health.ok:
        raise Malformed(f"the tape cannot be archived whole: {health.reason}")


async def contents(storage: Storage) -> list[Content]:
    """What the storage's segments hold, by kind and day; of several mapper versions the newest."""
    segments = [parse_segment(key) async for key in segment_keys(storage)]
    newest: dict[_Shelf, int] = {}
    for segment in segments:
        shelf = _Shelf(segment.shelf.kind or "raw", segment.shelf.date)
        newest[shelf] = max(newest.get(shelf, 0), segment.shelf.mapper)
    hashes: dict[_Shelf, Any] = {}
    sizes: dict[_Shelf, int] = {}
    for segment in sorted(segments, key=lambda one: (one.partition, one.incarnation, one.first_seq)):
        shelf = _Shelf(segment.shelf.kind or "raw", segment.shelf.date)
        if segment.shelf.mapper != newest[shelf]:
            continue
        state = hashes.setdefault(shelf, hashlib.sha256())
        for piece in read_content([stored async for stored in storage.read(segment.key)]):
            state.update(piece)
            sizes[shelf] = sizes.get(shelf, 0) + len(piece)
    return [Content(*shelf, sizes.get(shelf, 0), state.hexdigest()) for shelf, state in sorted(hashes.items())]


async def segment_keys(storage: Storage) -> AsyncIterator[str]:
    """Keys of all segments, of both types."""
    data_types: tuple[DataType, ...] = ("raw", "normalized")
    for data_type in data_types:
        async for key in storage.list(f"{data_type}/"):
            if not key.endswith("/manifest.json") and not segment_key_of(key):
                yield key
