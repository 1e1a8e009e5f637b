"""`services.verifier`: a sound archive is clean, and each of 200 seeded damages is found and named for what it is."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from ssmd.archive.storage_memory import MemoryStorage
from ssmd.domain.archive import RecordPruning
from ssmd.errors import Unavailable
from ssmd.services.verifier import Finding, Scope, Verification, verify

DATE = "2026-05-14"
SCOPE = Scope("test", "kalshi", DATE)
DAMAGES = ("flip", "truncate", "swap", "delete", "extra", "lengthen", "manifest-flip", "manifest-delete", "manifest-edit")
SEEDS = 200


@pytest.fixture
async def world(make_world: Any) -> Any:
    made = make_world()
    for _ in range(2):
        await made.session(count=120)
    await made.complete()
    return made


async def check(world: Any, scope: Scope = SCOPE) -> Verification:
    return await verify(world.storage, world.journal, scope)


def named(found: Verification) -> list[tuple[str, str]]:
    return [(finding.key, finding.problem) for finding in found.findings]


async def test_a_sound_archive_is_clean(world: Any) -> None:
    keys = [key async for key in world.storage.list()]
    segments = [key for key in keys if not key.endswith("manifest.json")]
    found = await check(world)
    assert found.is_clean
    assert found.is_certain
    assert (found.objects, found.manifests) == (len(segments), len(keys) - len(segments))
    assert found.size_bytes == sum(len(world.storage._objects[key]) for key in segments)
    assert found.position == await world.journal.head()
    assert (await check(world, Scope("test", "kalshi"))).objects == found.objects
    assert (await check(world, Scope("test", "kalshi", "2026-05-15"))).objects == 0


def damage(storage: MemoryStorage, seed: int) -> set[tuple[str, str]]:
    """Do one thing; what has to be found."""
    dice = random.Random(seed)
    held = storage._objects
    segments = sorted(key for key in held if not key.endswith("manifest.json"))
    manifests = sorted(held.keys() - set(segments))
    key, manifest = dice.choice(segments), dice.choice(manifests)
    data = bytearray(held[key])
    match DAMAGES[seed % len(DAMAGES)]:
        case "flip":
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            held[key] = bytes(data)
            return {(key, "flipped")}
        case "truncate":
            held[key] = bytes(data[: dice.randrange(len(data))])
            return {(key, "truncated")}
        case "lengthen":
            held[key] = bytes(data) + dice.randbytes(dice.randrange(1, 50))
            return {(key, "longer")}
        case "swap":
            other = dice.choice([one for one in segments if held[one] != held[key]])
            held[key], held[other] = held[other], held[key]
            return {(key, "swapped"), (other, "swapped")}
        case "delete":
            del held[key]
            return {(key, "missing")}
        case "extra":
            fresh = dice.choice([f"{key}.bak", key.replace("-ab12-", "-cd34-"), f"{manifest.removesuffix('.json')}.tmp"])
            held[fresh] = dice.randbytes(20)
            return {(fresh, "extra")}
        case "manifest-flip":
            text = bytearray(held[manifest])
            text[text.index(b'"sha256": "') + 11 + dice.randrange(64)] ^= 1
            held[manifest] = bytes(text)
            return {(manifest, "manifest-differs")}
        case "manifest-delete":
            del held[manifest]
            return {(manifest, "manifest-missing")}
        case _:
            document = msgspec.json.decode(held[manifest])
            document["segments"].pop(dice.randrange(len(document["segments"])))
            held[manifest] = msgspec.json.encode(document)
            return {(manifest, "manifest-differs")}


async def test_every_seeded_damage_is_found_and_named(world: Any) -> None:
    sound = dict(world.storage._objects)
    for seed in range(SEEDS):
        world.storage._objects = dict(sound)
        expected = damage(world.storage, seed)
        found = await check(world)
        assert set(named(found)) == expected, f"seed {seed}"
        assert found.is_certain


async def test_what_cannot_be_read_is_not_called_damage(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key async for key in world.storage.list("raw/")]
    read = world.storage.read

    def away(key: str) -> Any:
        if key == keys[0]:
            raise Unavailable("the disk is on fire")
        return read(key)

    monkeypatch.setattr(world.storage, "read", away)
    found = await check(world)
    assert not found.is_certain
    (finding,) = found.findings
    assert isinstance(finding, Finding)
    assert (finding.key, finding.problem, finding.detail) == (keys[0], "unreadable", "the disk is on fire")


async def test_what_is_sealed_while_we_look_is_no_stranger(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.storage.put(f"raw/test/kalshi/{DATE.replace('-', '/')}/main-ab12-{1:020}-{2:020}.jsonl.zst", b"")
    listing = world.storage.list
    late = False

    async def session_meanwhile(prefix: str = "") -> Any:
        nonlocal late
        if not late:
            late = True
            await world.session(count=20)  # uploaded before we list, sealed after we read the journal
        async for key in listing(prefix):
            yield key

    replay, held = world.journal.replay, [await world.journal.head()]

    def before(**given: Any) -> Any:
        return replay(**given, until=held.pop()) if held else replay(**given)

    monkeypatch.setattr(world.storage, "list", session_meanwhile)
    monkeypatch.setattr(world.journal, "replay", before)
    problems = {problem for _, problem in named(await check(world))}
    assert problems == {"extra"}  # only the one nobody sealed; manifests were those of before, as the first reading was


async def test_pruned_objects_are_not_missed(world: Any) -> None:
    keys = [key async for key in world.storage.list("raw/") if not key.endswith("manifest.json")]
    await world.handle("raw", DATE, "main", RecordPruning((keys[0],), 1, "old"))
    assert (keys[0], "pruned-but-there") in named(await check(world))
    await world.storage.delete(keys[0])
    assert [problem for _, problem in named(await check(world))] == ["manifest-differs"]
