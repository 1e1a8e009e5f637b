"""One suite for the row store port, on the memory backend and on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ssmd.errors import Conflict, Rejected, Unavailable
from ssmd.identifiers import system_random
from ssmd.projections.projection import EMPTY_DIGEST, digest_text
from ssmd.projections.store import Changes, RowStore, Stamp
from ssmd.projections.store_memory import MemoryRowStore
from ssmd.projections.store_redis import RedisRowStore

NAME = "days"


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """Where the backend is, "" for memory."""
    return "" if request.param == "memory" else str(request.getfixturevalue("cache_url"))


@pytest.fixture
async def store(url: str, fresh_env: str) -> AsyncIterator[RowStore]:
    opened: RowStore = RedisRowStore(url, fresh_env, random=system_random) if url else MemoryRowStore()
    yield opened
    await opened.clear()
    await opened.close()


def changes(
    puts: dict[str, bytes],
    position: int,
    *,
    added: tuple[str, ...] | None = None,
    removed: tuple[str, ...] = (),
    skipped: int = 0,
) -> Changes:
    """A commit; its digest is a stand-in, the store never computes one."""
    return Changes(puts, tuple(puts) if added is None else added, removed, position, digest_text(position), skipped)


async def built(store: RowStore, rows: dict[str, bytes], position: int = 5, *, version: int = 1) -> Stamp:
    stamp = await store.commit(await store.begin(NAME, version), changes(rows, position))
    await store.swap(stamp, await store.current(NAME))
    return stamp


async def test_nothing_is_there_before_the_first_build(store: RowStore) -> None:
    assert await store.current(NAME) is None
    assert await store.generations(NAME) == {}
    with pytest.raises(Unavailable, match="days"):
        await store.read(NAME, keys=["a"])
    with pytest.raises(Rejected, match="no previous"):
        await store.rollback(NAME)


async def test_a_shadow_is_empty_and_unseen_until_it_is_swapped_in(store: RowStore) -> None:
    shadow = await store.begin(NAME, 3)
    assert shadow == Stamp(NAME, shadow.generation, 3, 0, digest_text(EMPTY_DIGEST), 0, 0)
    shadow = await store.commit(shadow, changes({"a/1": b"x"}, 5, skipped=2))
    assert shadow == Stamp(NAME, shadow.generation, 3, 5, digest_text(5), 1, 2)
    assert await store.current(NAME) is None
    assert await store.generations(NAME) == {"shadow": shadow}

    await store.swap(shadow, None)

    assert await store.generations(NAME) == {"current": shadow}
    assert await store.read(NAME, keys=["a/1"]) == (shadow, {"a/1": b"x"})


async def test_reads_by_key_and_prefix_come_in_key_order_without_doubles(store: RowStore) -> None:
    rows = {"b/2": b"2", "a/1": b"1", "b/10": b"10", "b": b"b", "b/%C3%A9": b"e", "c/1": b"3"}
    await built(store, rows)
    page = await store.read(NAME, keys=["c/1", "absent", "b/2"], prefixes=["b/", "absent/"])
    assert list(page.rows.items()) == [("b/%C3%A9", b"e"), ("b/10", b"10"), ("b/2", b"2"), ("c/1", b"3")]
    assert (await store.read(NAME)).rows == {}


async def test_commits_change_add_and_remove(store: RowStore) -> None:
    stamp = await built(store, {"a/1": b"1", "a/2": b"2", "a/3": b"3"})
    change = changes({"a/2": b"two", "a/4": b"4"}, 9, added=("a/4",), removed=("a/1",))
    stamp = await store.commit(stamp, change)
    page = await store.read(NAME, prefixes=["a/"])
    assert page == (stamp, {"a/2": b"two", "a/3": b"3", "a/4": b"4"})
    assert (stamp.position, stamp.rows) == (9, 3)
    assert await store.fetch(stamp, ["a/4", "a/1", "a/2"]) == [b"4", None, b"two"]


async def test_a_commit_that_only_moves_the_position(store: RowStore) -> None:
    stamp = await built(store, {"a/1": b"1"})
    moved = await store.commit(stamp, changes({}, 8))
    assert moved == stamp._replace(position=8, digest=digest_text(8))


async def test_of_two_commits_on_one_stamp_the_second_is_a_conflict_and_changes_nothing(store: RowStore) -> None:
    stamp = await built(store, {"a/1": b"1"})
    after = await store.commit(stamp, changes({"a/1": b"first"}, 6, added=()))
    with pytest.raises(Conflict):
        await store.commit(stamp, changes({"a/1": b"second"}, 6, added=()))
    with pytest.raises(Conflict):
        await store.fetch(stamp, ["a/1"])
    with pytest.raises(Conflict):
        await store.scan(stamp)
    assert await store.read(NAME, keys=["a/1"]) == (after, {"a/1": b"first"})


async def test_twenty_racing_commits_have_one_winner(store: RowStore) -> None:
    stamp = await built(store, {"a/1": b"1"})
    race = [store.commit(stamp, changes({"a/1": f"{n}".encode()}, 6 + n, added=())) for n in range(20)]
    results = await asyncio.gather(*race, return_exceptions=True)
    (winner,) = [(n, result) for n, result in enumerate(results) if isinstance(result, Stamp)]
    assert all(isinstance(result, Conflict) for n, result in enumerate(results) if n != winner[0])
    assert await store.read(NAME, keys=["a/1"]) == (winner[1], {"a/1": f"{winner[0]}".encode()})


async def test_many_rows_in_one_commit_and_one_read(store: RowStore) -> None:
    rows = {f"a/{number:06}": f"{number}".encode() for number in range(9001)}
    stamp = await built(store, rows)
    assert (await store.read(NAME, prefixes=["a/"])).rows == rows
    assert await store.fetch(stamp, list(rows)) == list(rows.values())
    pages: list[tuple[str, bytes]] = []
    while page := await store.scan(stamp, after=pages[-1][0] if pages else "", limit=4000):
        pages += page
    assert pages == sorted(rows.items())
    emptied = await store.commit(stamp, changes({}, 6, removed=tuple(rows)))
    assert emptied.rows == 0
    assert (await store.read(NAME, prefixes=["a/"])).rows == {}


async def test_a_swap_keeps_the_old_generation_frozen_for_rollback(store: RowStore) -> None:
    old = await built(store, {"a/1": b"old"}, 5)
    new = await built(store, {"a/1": b"new"}, 7, version=2)
    assert await store.generations(NAME) == {"current": new, "previous": old}
    with pytest.raises(Conflict):
        await store.commit(old, changes({"a/1": b"late"}, 6, added=()))

    assert await store.rollback(NAME) == old
    assert await store.generations(NAME) == {"current": old, "previous": new}
    assert await store.read(NAME, keys=["a/1"]) == (old, {"a/1": b"old"})
    moved = await store.commit(old, changes({"a/1": b"onward"}, 6, added=()))
    assert await store.read(NAME, keys=["a/1"]) == (moved, {"a/1": b"onward"})


async def test_only_two_generations_and_one_shadow_are_kept(store: RowStore) -> None:
    await built(store, {"a/1": b"1"}, 5)
    second = await built(store, {"a/1": b"2"}, 6)
    third = await built(store, {"a/1": b"3"}, 7)
    abandoned = await store.begin(NAME, 1)
    shadow = await store.begin(NAME, 1)
    assert await store.generations(NAME) == {"current": third, "previous": second, "shadow": shadow}
    with pytest.raises(Conflict):
        await store.commit(abandoned, changes({"a/1": b"4"}, 8))


async def test_a_swap_over_a_view_that_moved_past_the_shadow_is_a_conflict(store: RowStore) -> None:
    current = await built(store, {"a/1": b"1"}, 5)
    shadow = await store.commit(await store.begin(NAME, 1), changes({"a/1": b"shadow"}, 7))
    moved = await store.commit(current, changes({"a/1": b"moved"}, 8, added=()))
    with pytest.raises(Conflict):
        await store.swap(shadow, current)
    assert await store.generations(NAME) == {"current": moved, "shadow": shadow}
    caught_up = await store.commit(shadow, changes({"a/1": b"moved"}, 8, added=()))
    await store.swap(caught_up, current)
    assert await store.generations(NAME) == {"current": caught_up, "previous": moved}


async def test_a_swap_never_puts_aside_what_it_does_not_name(store: RowStore) -> None:
    current = await built(store, {"a/1": b"1"}, 5)
    shadow = await store.commit(await store.begin(NAME, 1), changes({"a/1": b"shadow"}, 9))
    with pytest.raises(Conflict):
        await store.swap(shadow, None)
    with pytest.raises(Conflict):
        await store.swap(shadow, current._replace(generation="another"))
    with pytest.raises(Conflict):
        await store.swap(shadow._replace(position=8), current)
    assert await store.current(NAME) == current


async def test_projections_and_environments_do_not_meet(store: RowStore, url: str, fresh_env: str) -> None:
    await built(store, {"a/1": b"1"})
    assert await store.current("gaps") is None
    if url:
        other = RedisRowStore(url, f"{fresh_env}-2", random=system_random)
        assert await other.current(NAME) is None
        await other.clear()
        await other.close()
    assert await store.current(NAME) is not None
    await store.clear()
    assert await store.current(NAME) is None
