"""Old partitions are deleted by a journaled fact; holds, open days and a replica that is not whole keep them."""

from __future__ import annotations

from typing import Any

import pytest

from ssmd.archive.segment_index import index_key
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import date_of
from ssmd.domain import archive
from ssmd.domain.archive import HoldPartition, RecordPruning
from ssmd.errors import Rejected, Unavailable
from ssmd.projections import queries
from ssmd.projections.views import fold_views
from ssmd.services.pruner import Pruned, Pruner
from ssmd.services.verifier import Scope, verify

FEED, OLD, YOUNG, TODAY = "kalshi", "2026-05-14", "2026-05-15", "2026-08-12"
"""On 2026-08-12 OLD is 90 days old, YOUNG 89."""
DAYS = {"raw": 90, "normalized": 90}
SCOPE = Scope("test", FEED)


@pytest.fixture
async def world(make_world: Any) -> Any:
    made = make_world()
    await made.session(count=80)
    made.ts += 86_400 * 10**9
    await made.session(count=40)
    await made.complete()
    assert date_of(made.ts) == YOUNG
    return made


def pruner(world: Any, replica: Any = None) -> Pruner:
    return Pruner("test", FEED, world.storage, replica, world.journal, world.application, "cli:t")


async def prune(world: Any, replica: Any = None, *, is_dry: bool = False, days: Any = None) -> Pruned:
    return await pruner(world, replica).prune(days or DAYS, TODAY, is_dry=is_dry, progress=lambda *_: None)


def keys_of(world: Any, date: str) -> list[str]:
    day = date.replace("-", "/")
    return sorted(key for key in world.storage._objects if f"/{day}/" in key and not key.endswith("manifest.json"))


async def test_what_is_old_enough_goes_and_nothing_else(world: Any) -> None:
    old, young = keys_of(world, OLD), keys_of(world, YOUNG)
    side = index_key(next(key for key in old if "/book/" in key))
    world.storage._objects[side] = b"a sidecar"
    size_bytes = sum(len(world.storage._objects[key]) for key in old)
    dry = await prune(world, is_dry=True)
    assert keys_of(world, OLD) == sorted([*old, side])
    done = await prune(world)
    assert done == dry
    assert (done.deleted, done.size_bytes, done.leftovers) == (len(old), size_bytes, 0)
    assert [(one.date, one.type, one.why_not) for one in done.partitions] == [(OLD, "normalized", ""), (OLD, "raw", "")]
    assert (keys_of(world, OLD), keys_of(world, YOUNG)) == ([], young)
    await world.manifests()
    assert (await verify(world.storage, world.journal, SCOPE)).is_clean
    lines = await queries.inventory(await fold_views(world.journal), FEED)
    by_date = {(line.date, line.status, line.segments > 0) for line in lines}
    assert by_date == {(OLD, "pruned", False), (YOUNG, "complete", True)}
    assert sum(line.pruned_segments for line in lines if line.kind in {"raw", "book"}) == len(old)
    assert (await prune(world)).partitions == ()


async def test_types_have_retentions_of_their_own(world: Any) -> None:
    done = await prune(world, days={"normalized": 30})
    assert {(one.date, one.type) for one in done.partitions} == {(OLD, "normalized"), (YOUNG, "normalized")}
    assert all(key.startswith("raw/") for key in (*keys_of(world, OLD), *keys_of(world, YOUNG)))


async def test_a_hold_keeps_it_until_it_is_released(world: Any) -> None:
    kept = keys_of(world, OLD)
    care = pruner(world)
    held = await care.hold("audit", "the desk asked", OLD, OLD)
    assert [(one.type, one.partition) for one in held] == [("normalized", "main"), ("raw", "main")]
    assert await care.hold("audit", "the desk asked", OLD, OLD) == held  # again: nothing new
    done = await prune(world)
    assert {one.why_not for one in done.partitions} == {'hold "audit": the desk asked'}
    assert (done.deleted, keys_of(world, OLD)) == (0, kept)
    assert await care.holds() == held
    assert await care.release("audit") == held
    assert await care.holds() == []
    with pytest.raises(Rejected, match='no hold "audit"'):
        await care.release("audit")
    with pytest.raises(Rejected, match="nothing of kalshi is archived"):
        await care.hold("x", "y", "2020-01-01", "2020-01-02")
    assert (await prune(world)).deleted == len(kept)


async def test_a_hold_that_comes_between_plan_and_deed_holds(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [key for key in keys_of(world, OLD) if key.startswith("raw/")]
    handle = world.application.handle

    async def held_first(decider: Any, parts: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, RecordPruning) and parts[2] == "raw":
            await handle(decider, parts, HoldPartition("late", "just in time"), actor="cli:other")
        return await handle(decider, parts, command, **more)

    monkeypatch.setattr(world.application, "handle", held_first)
    done = await prune(world)
    assert [one.why_not for one in done.partitions if one.type == "raw"] == ['hold "late" lies on it: just in time']
    assert [key for key in keys_of(world, OLD) if key.startswith("raw/")] == kept


async def test_what_is_open_is_kept(make_world: Any) -> None:
    world = make_world()
    await world.session(count=30)
    await world.manifests()
    done = await prune(world)
    assert {one.why_not for one in done.partitions} == {f"it is open: ssmd day end --date {OLD}"}
    assert keys_of(world, OLD)


@pytest.mark.parametrize("harm", ["absent", "other", "none"])
async def test_nothing_goes_that_is_not_whole_in_the_replica(world: Any, harm: str) -> None:
    replica = MemoryStorage()
    replica._objects = dict(world.storage._objects)
    raw = next(key for key in keys_of(world, OLD) if key.startswith("raw/"))
    if harm == "absent":
        del replica._objects[raw]
    elif harm == "other":
        replica._objects[raw] = replica._objects[raw][:-1] + b"x"
    done = await prune(world, replica)
    told = {one.type: one.why_not for one in done.partitions}
    assert told["normalized"] == ""
    assert (
        told["raw"]
        == {
            "absent": f"the replica does not have {raw}",
            "other": f"{raw} of the replica is not what was sealed",
            "none": "",
        }[harm]
    )
    assert bool(keys_of(world, OLD)) == (harm != "none")
    assert replica._objects.keys() >= {raw} - ({raw} if harm == "absent" else set())


@pytest.mark.parametrize("after", range(5))
async def test_killed_between_fact_and_deletion_the_next_run_completes(
    world: Any, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    old, young = keys_of(world, OLD), keys_of(world, YOUNG)
    delete, count = world.storage.delete, 0

    async def killed(key: str) -> None:
        nonlocal count
        if count == after and not key.endswith(".index"):
            raise Unavailable("killed here")
        count += not key.endswith(".index")
        await delete(key)

    monkeypatch.setattr(world.storage, "delete", killed)
    with pytest.raises(Unavailable):
        await prune(world)
    monkeypatch.undo()
    assert len(keys_of(world, OLD)) == len(old) - after
    # What is journaled is pruned, not damaged: verify names what still has to go, and nothing else.
    await world.manifests()
    problems = {finding.problem for finding in (await verify(world.storage, world.journal, SCOPE)).findings}
    assert problems == {"pruned-but-there"}
    lines = await queries.inventory(await fold_views(world.journal), FEED, OLD, OLD)
    assert "pruned" in {line.status for line in lines}
    events = [one async for batch in world.journal.replay(filters=["archive"]) for one in batch]
    assert not [one for one in events if one.envelope.type == "archive.damaged.v1"]
    done = await prune(world)
    assert (keys_of(world, OLD), keys_of(world, YOUNG)) == ([], young)
    assert done.leftovers + done.deleted == len(old) - after
    await world.manifests()
    assert (await verify(world.storage, world.journal, SCOPE)).is_clean


async def test_a_pruned_partition_may_be_sealed_anew(world: Any) -> None:
    await prune(world)
    world.ts -= 86_400 * 10**9
    await world.session(count=20)
    await world.manifests()
    found = await verify(world.storage, world.journal, SCOPE)
    assert found.is_clean
    state = await world.application.state(archive.DECIDER, (FEED, OLD, "raw", "main"))
    assert not state.is_complete
    lines = await queries.inventory(await fold_views(world.journal), FEED, OLD, OLD)
    assert {line.status for line in lines} == {"open"}
