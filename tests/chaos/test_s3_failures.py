"""Archivers on a real S3 server through trouble: what is sealed is whole at every instant, and nothing is missing after it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.chaos.s3_faults import Fault, S3Faults
from tests.services.test_archivers import ENV, IN, Feeder, World, by_kind, raw_lines, records

from ssmd.archive.storage import Storage
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.archive.storage_s3 import S3Access, S3Storage
from ssmd.domain.archive import SegmentSealed
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Rejected
from ssmd.projections.manifest_sink import ManifestSink
from ssmd.projections.manifests import MANIFESTS
from ssmd.projections.rebuild import fold_in_memory
from ssmd.registry.documents import ArchiveSettings
from ssmd.streams.journal import AppendGroup
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.transport import Outgoing

PART_BYTES = 5 << 20
"""The least the server allows."""
LARGE = ArchiveSettings(segment_bytes=12 << 20, idle_seconds=300.0, zstd_level=1)


class WatchedJournal(MemoryJournal):
    """Looks, before it takes a seal, whether each object that it names is whole on the server."""

    def __init__(self, server: Storage) -> None:
        super().__init__(ENV)
        self._server = server
        self.seals = 0

    async def append(self, groups: Sequence[AppendGroup], *, command_id: str) -> int:
        for group in groups:
            for envelope in group.events:
                event = CATALOGUE.decode(envelope.type, envelope.data)
                if isinstance(event, SegmentSealed):
                    self.seals += 1
                    for file in event.files:
                        stat = await self._server.stat(file.key)
                        assert stat is not None, f"{file.key} is sealed and not there"
                        assert (stat.sha256, stat.size_bytes) == (file.sha256, file.size_bytes)
        return await super().append(groups, command_id=command_id)


class Place:
    """A bucket, reached through the proxy by archivers and directly by the test."""

    def __init__(self, server: Any, faults: S3Faults, spool: Path) -> None:
        access = S3Access(f"t-{secrets.token_hex(6)}", server.access_key, server.secret_key, server.url)
        self.faults = faults
        self.direct = S3Storage(access)
        self.through = S3Storage(access._replace(url=faults.url), part_bytes=PART_BYTES, read_s=1.0, attempts_max=2)
        self.world = World(self.through, spool)
        self.world.journal = WatchedJournal(self.direct)
        self.feeder = Feeder()

    @property
    def journal(self) -> WatchedJournal:
        assert isinstance(self.world.journal, WatchedJournal)
        return self.world.journal

    def frames(self, count: int, size: int = 200) -> list[Outgoing]:
        """Frames that compress to about `size` bytes each."""
        feeder = self.feeder
        pads = [secrets.token_hex(size).encode() for _ in range(count)]
        texts = [b'{"type":"delta","at":%d,"pad":"%s"}\n' % (feeder.n + at, pad) for at, pad in enumerate(pads)]
        return feeder.block([(IN, text) for text in texts])

    async def check(self, kind: str) -> None:
        """All is there, once, as sealed; and so say the manifests."""
        self.world.storage = self.direct
        content = await self.world.content(kind)
        assert (raw_lines(content) if kind == "raw" else records(content)) == (
            self.feeder.lines if kind == "raw" else by_kind(self.feeder.records)
        )
        await self.world.check_seals(kind)
        objects = MemoryStorage()
        await ManifestSink(await fold_in_memory(self.journal, [MANIFESTS]), objects).reconcile()
        named = 0
        async for key in objects.list():
            manifest = msgspec.json.decode(await objects.get(key) or b"")
            for segment in manifest["segments"]:
                stat = await self.direct.stat(f"{key.rpartition('/')[0]}/{segment['name']}")
                assert stat is not None
                assert (stat.sha256, stat.size_bytes) == (segment["sha256"], segment["byte_size"])
                named += 1
        assert named


@pytest.fixture
async def place(s3_server: Any, tmp_path: Path) -> AsyncIterator[Place]:
    async with S3Faults(int(s3_server.url.rpartition(":")[2])) as faults:
        made = Place(s3_server, faults, tmp_path / "spool")
        await made.direct.put("made", b"")
        yield made
        await made.through.close()
        await made.direct.close()


async def until(true: Any, what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not true():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


@pytest.mark.parametrize(
    ("fault", "only", "kind"),
    [
        ("away", "", "raw"),
        ("away", "", "normalized"),
        ("errors", "", "raw"),
        ("slow-down", "PUT ", "normalized"),
        ("cut-request", "PUT ", "raw"),
        ("cut-answer", "PUT ", "normalized"),
        ("silent", "PUT ", "raw"),
    ],
)
async def test_trouble_delays_and_what_is_sealed_is_whole(place: Place, fault: Fault, only: str, kind: str) -> None:
    world, faults = place.world, place.faults
    archiver = world.archiver(kind)
    running = asyncio.create_task(archiver.run())
    await asyncio.sleep(0)
    world.publish(place.feeder.connect())
    for _ in range(8):
        world.publish(place.frames(25))
    await archiver.flush()
    sealed = place.journal.seals
    assert sealed >= (1 if kind == "normalized" else 2)
    faults.fault, faults.only = fault, only
    for _ in range(8):
        world.publish(place.frames(25))
    flushing = asyncio.create_task(archiver.flush())
    await until(lambda: faults.hit >= 3 and not archiver.health().ok, f"{fault} was noticed: {archiver.health()}")
    reason = archiver.health().reason
    assert reason.startswith("storage: bucket t-"), reason
    assert not flushing.done()
    # What cannot be stored waits on the stream: nothing piles up here.
    assert archiver.health().stats["open_segments"] == 1
    faults.fault = ""
    await flushing
    assert archiver.health().ok
    assert place.journal.seals > sealed
    await archiver.stop()
    await running
    await place.check(kind)


async def test_an_upload_in_parts_that_is_broken_off_is_made_again(place: Place) -> None:
    """In the middle of the second part; when the parts are put together and the answer to that is lost; before both."""
    world, faults = place.world, place.faults
    archiver = world.archiver("raw", settings=LARGE)
    running = asyncio.create_task(archiver.run())
    await asyncio.sleep(0)
    world.publish(place.feeder.connect())
    cases: list[tuple[Fault, str]] = [
        ("cut-request", "partNumber=2"),
        ("cut-answer", "POST uploadId="),
        ("errors", "uploadId="),
    ]
    for number, (fault, only) in enumerate(cases, 1):
        faults.fault, faults.only, faults.hit = fault, only, 0
        for _ in range(6):
            world.publish(place.frames(25, 45_000))
        flushing = asyncio.create_task(archiver.flush())
        if fault == "cut-answer":
            await flushing  # put together though the answer was lost: the object is found there, whole, and adopted
            assert faults.hit >= 1
        else:
            await until(lambda: faults.hit >= 3 and not archiver.health().ok, f"{fault} was noticed")
            assert len([key async for key in place.direct.list("raw/")]) == number - 1
            faults.fault = ""
            await flushing
        assert place.journal.seals == number
    await archiver.stop()
    await running
    await place.check("raw")


async def test_a_slow_server_only_takes_longer(place: Place) -> None:
    place.faults.fault = "slow"
    place.world.publish(place.feeder.connect())
    for _ in range(6):
        place.world.publish(place.frames(25))
    archiver = await place.world.archive("raw")
    assert archiver.health().ok
    assert place.faults.hit >= 2
    await place.check("raw")


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_of_two_archivers_on_one_partition_one_wins_and_the_other_says_so(place: Place, kind: str) -> None:
    """The one that was fenced has its file on the server already: its seal is refused, the winner adopts the object."""
    world = place.world
    world.publish(place.feeder.connect())
    for _ in range(8):
        world.publish(place.frames(25))
    first = world.archiver(kind, instance="a")
    # The first stands still between its upload and its seal, while the second archives the same.
    stands, go_on = asyncio.Event(), asyncio.Event()
    handle = first._sealer._command

    async def waits(key: Any, command: Any) -> bool:
        if type(command).__name__ == "SealSegment" and not stands.is_set():
            stands.set()
            await go_on.wait()
        return await handle(key, command)

    first._sealer._command = waits  # type: ignore[method-assign]
    running = asyncio.create_task(first.run())
    await asyncio.sleep(0)
    flushing = asyncio.create_task(first.flush())
    await asyncio.wait_for(stands.wait(), 30)
    await world.archive(kind, instance="b")
    go_on.set()
    with pytest.raises(Rejected, match="behind epoch 2 of b"):
        await running
    assert "behind epoch 2 of b" in first.health().reason
    await asyncio.gather(flushing, return_exceptions=True)
    await place.check(kind)
