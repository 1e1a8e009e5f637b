"""What only a server can do to a row store: lose parts, go away, hold other programs' keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ssmd.errors import Conflict, Misconfigured, Unavailable
from ssmd.identifiers import system_random
from ssmd.projections.store import Changes, Stamp
from ssmd.projections.store_redis import RedisRowStore
from ssmd.services.embedded_servers import start_cache


@pytest.fixture
async def store(cache_url: str, fresh_env: str) -> AsyncIterator[RedisRowStore]:
    opened = RedisRowStore(cache_url, fresh_env, random=system_random)
    yield opened
    await opened.clear()
    await opened.close()


@pytest.fixture
async def client(cache_url: str) -> AsyncIterator[Redis]:
    opened = Redis.from_url(cache_url)
    yield opened
    await opened.aclose()


async def build(store: RedisRowStore) -> Stamp:
    change = Changes({"a/1": b"1", "a/2": b"2"}, ("a/1", "a/2"), (), 3, "0" * 64, 0)
    stamp = await store.commit(await store.begin("days", 1), change)
    await store.swap(stamp, None)
    return stamp


async def test_keys_stand_where_the_design_says(store: RedisRowStore, client: Redis, fresh_env: str) -> None:
    stamp = await build(store)
    prefix = f"{fresh_env}:projection:days"
    keys = sorted([key.decode() async for key in client.scan_iter(match=f"{prefix}*")])
    generation = f"{prefix}:{stamp.generation}"
    assert keys == sorted([f"{generation}:index", f"{generation}:meta", f"{generation}:rows", f"{prefix}:roles"])


@pytest.mark.parametrize("part", ["rows", "index", "meta"])
async def test_a_view_that_lost_a_part_is_treated_as_absent(
    store: RedisRowStore, client: Redis, fresh_env: str, part: str
) -> None:
    stamp = await build(store)
    await client.delete(f"{fresh_env}:projection:days:{stamp.generation}:{part}")
    assert await store.current("days") is None
    with pytest.raises(Unavailable, match="a part of it is lost"):
        await store.read("days", keys=["a/1"])
    with pytest.raises(Conflict):
        await store.commit(stamp, Changes({}, (), (), 4, "0" * 64, 0))
    again = await store.begin("days", 1)
    await store.swap(again, None)
    assert await store.generations("days") == {"current": again}


async def test_clearing_leaves_other_keys_alone(store: RedisRowStore, client: Redis, fresh_env: str) -> None:
    await build(store)
    await client.set(f"{fresh_env}:other", "kept")
    await store.clear()
    assert [key async for key in client.scan_iter(match=f"{fresh_env}:*")] == [f"{fresh_env}:other".encode()]
    await client.delete(f"{fresh_env}:other")


async def test_a_server_that_is_away_is_unavailable_and_its_password_stays_secret() -> None:
    store = RedisRowStore("redis://user:hunter2@127.0.0.1:1/0", "t", random=system_random, deadline_seconds=0.5)
    with pytest.raises(Unavailable, match=r"cache at 127\.0\.0\.1:1 did not answer") as caught:
        await store.current("days")
    assert "hunter2" not in str(caught.value)
    await store.close()


def test_a_url_that_is_none_of_redis_is_misconfigured() -> None:
    for url in ("http://127.0.0.1:1", "redis://:hunter2/x@127.0.0.1:1"):
        with pytest.raises(Misconfigured) as caught:
            RedisRowStore(url, "t", random=system_random)
        assert caught.value.message == "cache.url is not a Redis url"


async def test_a_connection_outlives_the_restart_of_its_server(tmp_path: Path) -> None:
    server = await start_cache(tmp_path / "cache")
    store = RedisRowStore(server.url, "t", random=system_random, deadline_seconds=2)
    stamp = await build(store)
    assert await store.current("days") == stamp
    await server.stop()
    with pytest.raises(Unavailable):
        await store.current("days")
    server = await start_cache(tmp_path / "cache", port=server.prepared.port)
    try:
        # The cache is allowed to forget; what it may not do is answer wrongly, or need a new client.
        assert await store.current("days") in {None, stamp}
        await store.clear()
        again = await build(store)
        assert await store.current("days") == again
    finally:
        await store.close()
        await server.stop()
