"""Each source mends what it can, exactly; what is whole is never touched, and what cannot be mended is said so."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tests.schemas.first_blocks import first_block

from ssmd.archive.reading import Wanted, records
from ssmd.archive.segment_index import build, index_key
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.blocks import NO_DIGEST, Block, Entry, decode_block, encode_block
from ssmd.services.connector.tape_follower import BlockMapper, Names
from ssmd.services.repair_sources import Made, RawSource, ReplicaSource, Source, StreamSource, TapeSource
from ssmd.services.repairer import Repairer, journal_verified
from ssmd.services.verifier import Scope, Verification, verify
from ssmd.streams.tape_files import file_of
from ssmd.streams.transport_memory import MemoryTransport

ENV, FEED, DATE = "test", "kalshi", "2026-05-14"
SCOPE = Scope(ENV, FEED, DATE)
CUT, BLOCK = 70, 9
MADE = Made(ENV, FEED, "UTC", 3)


def make_mapper(session: int) -> KalshiMapper:
    return KalshiMapper(FEED, session)


@pytest.fixture
async def world(make_world: Any) -> Any:
    made = make_world()
    await made.session(count=150, tickers=("A-1", "B.2", "C"))
    await made.session(count=90, tickers=("A-1", "B.2", "C"))
    await made.complete()
    return made


def blocks_of(world: Any) -> list[tuple[Block, bytes]]:
    """The blocks the world was archived from, as they would lie on the tape: its first session in the first layout."""
    made: list[tuple[Block, bytes]] = []
    digest = NO_DIGEST
    for session, of_session in groupby(world.lines, key=lambda line: line.session):
        entries: list[Entry] = [line.entry for line in of_session]
        encode = encode_block if made else first_block
        for at in range(0, len(entries), CUT):
            segment = entries[at : at + CUT]
            for start in range(0, len(segment), BLOCK):
                part = segment[start : start + BLOCK]
                data = encode(session, part[0].n, [(one.kind, one.ts_recv_ns, one.payload) for one in part], digest)
                made.append((decode_block(data), data))
                digest = made[-1][0].digest
    return made


async def stream_of(world: Any, blocks: Sequence[tuple[Block, bytes]]) -> StreamSource:
    transport = MemoryTransport()
    publisher = await transport.publisher()
    mapper = BlockMapper(Names(ENV, FEED, "main"), make_mapper)
    for block, data in blocks:
        unit, _ = mapper.map(block, data, is_wanted=True)
        assert unit is not None
        await publisher.publish([unit.raw, *unit.market])
    return StreamSource(transport, MADE)


def tape_of(directory: Path, blocks: Sequence[tuple[Block, bytes]]) -> TapeSource:
    directory.mkdir()
    half = len(blocks) // 2
    for index, part in enumerate((blocks[:half], blocks[half:])):
        file_of(directory, index).write_bytes(b"".join(data for _, data in part))
    return TapeSource(lambda _: directory, MADE, make_mapper)


async def mend(world: Any, tmp_path: Path, sources: Sequence[Source], *, is_dry: bool = False) -> Any:
    repairer = Repairer(world.storage, world.journal, world.application, sources, tmp_path, "cli:t")
    found = await verify(world.storage, world.journal, SCOPE)
    return await repairer.repair(SCOPE, found, is_dry=is_dry, progress=lambda *_: None)


async def checked(world: Any) -> Verification:
    await world.manifests()
    return await verify(world.storage, world.journal, SCOPE)


async def events_of(world: Any) -> list[Any]:
    return [
        CATALOGUE.decode(one.envelope.type, one.envelope.data)
        async for batch in world.journal.replay(filters=["archive"])
        for one in batch
    ]


def segments(world: Any) -> list[str]:
    return sorted(key for key in world.storage._objects if not key.endswith("manifest.json"))


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
    "truncated": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"x",
    "missing": lambda _: None,
}


def damage_all(world: Any, keys: Sequence[str], seed: int = 1) -> dict[str, str]:
    dice = random.Random(seed)
    done = {}
    for key in keys:
        problem = dice.choice(sorted(DAMAGE))
        data = DAMAGE[problem](world.storage._objects[key])
        if data is None:
            del world.storage._objects[key]
        else:
            world.storage._objects[key] = data
        done[key] = problem
    return done


@pytest.mark.parametrize("name", ["stream", "tape", "replica"])
async def test_a_source_that_has_the_blocks_gives_the_very_objects(world: Any, tmp_path: Path, name: str) -> None:
    sound = dict(world.storage._objects)
    damaged = damage_all(world, segments(world))
    blocks = blocks_of(world)
    source: Source
    if name == "stream":
        source = await stream_of(world, [*blocks[:9], *blocks])  # some came twice, as after a refill
    elif name == "tape":
        source = tape_of(tmp_path / "tape", blocks)
    else:
        replica = MemoryStorage()
        replica._objects = dict(sound)
        source = ReplicaSource(replica)
    repairs = await mend(world, tmp_path, [source])
    assert {one.key: one.problem for one in repairs} == damaged
    assert {(one.source, one.fit, one.key_now == one.key) for one in repairs} == {(name, "same object", True)}
    assert {key: world.storage._objects[key] for key in segments(world)} == {
        key: data for key, data in sound.items() if not key.endswith("manifest.json")
    }
    assert (await checked(world)).is_clean
    told = await events_of(world)
    assert {one.key for one in told if isinstance(one, archive.Damaged)} == damaged.keys()
    assert {(one.key, one.source, one.file) for one in told if isinstance(one, archive.Repaired)} == {
        (key, name, None) for key in damaged
    }
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("repair-")]


async def test_raw_gives_the_same_records_beside(world: Any, tmp_path: Path) -> None:
    normalized = [key for key in segments(world) if key.startswith("normalized/")]
    damaged = damage_all(world, normalized)
    left = {key: world.storage._objects.get(key) for key in normalized}
    repairs = await mend(world, tmp_path, [RawSource(world.storage, MADE, make_mapper)])
    assert {one.key for one in repairs} == damaged.keys()
    assert {one.source for one in repairs} == {"raw"}
    books = [one for one in repairs if "/book/" in one.key]
    assert books
    assert {one.fit for one in books} <= {"same records", "same content"}
    for one in books:
        assert one.key_now == one.key.replace(".capnp.zst", "-r1.capnp.zst")
        assert world.storage._objects.get(one.key) == left[one.key]  # what is damaged stays, and nobody reads it
    assert (await checked(world)).is_clean
    read = [one async for batch in records(world.storage, Wanted(ENV, FEED, DATE, KalshiMapper.version)) for one in batch]
    assert read == sorted(world.records, key=lambda one: (one.ts_recv_ns, one.session, one.n, one.index))
    # A revision that is damaged in turn is made again, as the next one.
    broken = damage_all(world, [books[0].key_now])
    (again,) = await mend(world, tmp_path, [RawSource(world.storage, MADE, make_mapper)])
    assert (again.key, again.problem) == next(iter(broken.items()))
    assert again.source == "raw"
    assert (await checked(world)).is_clean


async def test_a_mapper_of_another_version_makes_no_records_of_the_old(world: Any, tmp_path: Path) -> None:
    key = next(key for key in segments(world) if "/book/" in key)
    damage_all(world, [key])

    class Newer(KalshiMapper):
        version = 99

    (one,) = await mend(world, tmp_path, [RawSource(world.storage, MADE, lambda session: Newer(FEED, session))])
    assert (one.is_done, one.tried) == (False, {"raw": f"mapper {KalshiMapper.version} made the records, this ssmd has 99"})


async def test_nothing_left_to_repair_from(world: Any, tmp_path: Path) -> None:
    key = next(key for key in segments(world) if key.startswith("raw/"))
    damage_all(world, [key], seed=3)
    before = dict(world.storage._objects)
    replica = MemoryStorage()
    replica._objects = {key: b"other bytes"}
    blocks = blocks_of(world)
    sources: list[Source] = [
        ReplicaSource(replica),
        await stream_of(world, blocks[4:]),  # retention took the first
        tape_of(tmp_path / "tape", []),
        RawSource(world.storage, MADE, make_mapper),
    ]
    (one,) = await mend(world, tmp_path, sources)
    assert not one.is_done
    assert one.tried["replica"].startswith("its object is not what was sealed either: 11 bytes")
    assert one.tried["stream"] == f"entry 1 of session {world.lines[0].session} is not there"
    assert one.tried["tape"].startswith("entries 1..70 of session")
    assert one.tried["raw"] == "raw lines cannot be made from records"
    assert world.storage._objects == before
    found = await checked(world)
    assert {finding.key for finding in found.findings} == {key}
    assert [type(one) for one in await events_of(world)][-1] is archive.Damaged


async def test_a_dry_run_changes_nothing(world: Any, tmp_path: Path) -> None:
    damage_all(world, segments(world)[:3])
    before, head = dict(world.storage._objects), await world.journal.head()
    repairs = await mend(world, tmp_path, [tape_of(tmp_path / "tape", blocks_of(world))], is_dry=True)
    assert [(one.source, one.fit) for one in repairs] == [("tape", "same object")] * 3
    assert (world.storage._objects, await world.journal.head()) == (before, head)


async def test_a_sidecar_is_made_again_from_its_segment(world: Any, tmp_path: Path) -> None:
    key = next(key for key in segments(world) if "/book/" in key)
    side = index_key(key)
    sound = build("book", hashlib.sha256(world.storage._objects[key]).hexdigest(), [world.storage._objects[key]])
    assert sound is not None
    world.storage._objects[side] = sound[:-1] + bytes([sound[-1] ^ 1])
    (one,) = await mend(world, tmp_path, [])
    assert (one.key, one.problem, one.source) == (side, "sidecar-differs", "its segment")
    assert world.storage._objects[side] == sound
    assert (await checked(world)).is_clean


async def test_what_was_mended_before_the_kill_is_told_after_it(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = segments(world)[0]
    damage_all(world, [key])
    source = tape_of(tmp_path / "tape", blocks_of(world))
    handle = world.application.handle

    async def killed(decider: Any, parts: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, archive.RecordRepair):
            raise KeyboardInterrupt
        return await handle(decider, parts, command, **more)

    monkeypatch.setattr(world.application, "handle", killed)
    with pytest.raises(KeyboardInterrupt):
        await mend(world, tmp_path, [source])
    monkeypatch.undo()
    assert (await checked(world)).is_clean  # the object stands, the journal calls it damaged
    assert await mend(world, tmp_path, [source]) == []
    last = (await events_of(world))[-1]
    assert isinstance(last, archive.Repaired)
    assert (last.key, last.source) == (key, "found whole")


async def test_sound_partitions_are_journaled_once(world: Any) -> None:
    found = await checked(world)
    assert await journal_verified(world.application, world.journal, SCOPE, found, "cli:t") == 2
    assert await journal_verified(world.application, world.journal, SCOPE, await checked(world), "cli:t") == 0
    raw = [one for one in await events_of(world) if isinstance(one, archive.Verified)]
    assert sum(one.objects for one in raw) == found.objects
    key = next(key for key in segments(world) if key.startswith("raw/"))
    damage_all(world, [key], seed=2)
    assert await journal_verified(world.application, world.journal, SCOPE, await checked(world), "cli:t") == 0
