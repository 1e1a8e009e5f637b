"""Row store on a Redis-compatible server (Redis, Valkey); the one home of the redis driver.

Every step is one Lua script (`store_redis_scripts`, where the keys are laid out), so it happens at one instant and
compares what it is based on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final, cast

import msgspec

from ssmd.errors import Conflict, Misconfigured, Rejected, Unavailable
from ssmd.identifiers import RandomBytes, encode_token
from ssmd.optional_modules import without
from ssmd.projections import store_redis_scripts as scripts
from ssmd.projections.projection import EMPTY_DIGEST, digest_text
from ssmd.projections.store import Changes, Page, Role, Stamp

# For metrics of its own, which nobody asks it for; a third of what loading it takes.
with without("opentelemetry"):
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError, ResponseError

CONNECTIONS_MAX: Final = 16
DEADLINE_SECONDS: Final = 10.0
_CONFLICT: Final = "SSMDCONFLICT"


class RedisRowStore:
    """Implements `store.RowStore`.

    Args:
        url: redis://[user:password@]host:port/db; the password never appears in messages.
        env: whose views these are.
        random: makes generations' names.
        deadline_seconds: for each step, waiting for a connection included.

    Raises:
        Misconfigured: the url is none of Redis.
    """

    def __init__(self, url: str, env: str, *, random: RandomBytes, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS_MAX,
                timeout=deadline_seconds,
                socket_timeout=deadline_seconds,
                socket_connect_timeout=deadline_seconds,
                # A commit sent twice would meet its own first try as a Conflict: the caller decides what to repeat.
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:
            # What it says may be part of a password.
            raise Misconfigured(
                "cache.url is not a Redis url", mend="set cache.url to redis://host:port/0; in a password / is %2F, @ %40"
            ) from None
        self._client: Redis = Redis.from_pool(pool)
        arguments = pool.connection_kwargs
        self._address = str(arguments.get("path") or f"{arguments.get('host')}:{arguments.get('port', 6379)}")
        self._prefix = f"{encode_token(env)}:projection:"
        self._random = random
        self._deadline_seconds = deadline_seconds
        self._scripts = {text: self._client.register_script(text) for text in _SCRIPTS}

    async def current(self, projection: str) -> Stamp | None:
        return (await self.generations(projection)).get("current")

    async def generations(self, projection: str) -> dict[Role, Stamp]:
        flat = await self._run(scripts.STAMPS, projection, ())
        return {
            cast("Role", flat[at].decode()): _stamp(projection, flat[at + 1 : at + _STAMP_FIELDS + 1])
            for at in range(0, len(flat), _STAMP_FIELDS + 1)
        }

    async def begin(self, projection: str, version: int) -> Stamp:
        stamp = Stamp(projection, self._random(8).hex(), version, 0, digest_text(EMPTY_DIGEST), 0, 0)
        await self._run(scripts.BEGIN, projection, (stamp.generation, version, stamp.digest))
        return stamp

    async def commit(self, stamp: Stamp, changes: Changes) -> Stamp:
        pack, values = msgspec.msgpack.encode, changes.puts.values()
        new = 0
        for put, added in zip(changes.puts, changes.added, strict=False):
            if put != added:
                break
            new += 1
        arguments: list[str | bytes | int] = [*_at(stamp), changes.position, changes.digest, changes.skipped]
        arguments += (pack(list(changes.puts)), pack(list(map(len, values))), b"".join(values))
        arguments += (new, pack(list(changes.added[new:])), pack(list(changes.removed)))
        rows = await self._run(scripts.COMMIT, stamp.projection, arguments)
        return stamp._replace(position=changes.position, digest=changes.digest, skipped=changes.skipped, rows=int(rows))

    async def fetch(self, stamp: Stamp, keys: Sequence[str]) -> list[bytes | None]:
        values: list[bytes | None] = await self._run(scripts.FETCH, stamp.projection, (*_at(stamp), *keys))
        return values

    async def read(self, projection: str, *, keys: Sequence[str] = (), prefixes: Sequence[str] = ()) -> Page:
        flat = await self._run(scripts.READ, projection, (len(keys), *keys, *prefixes))
        if not flat:
            raise Unavailable(
                f"projection {projection} is not in the cache at {self._address}, or a part of it is lost",
                mend=f"ssmd projection rebuild {projection}",
            )
        rows = {key.decode(): value for key, value in _pairs(flat[_STAMP_FIELDS:])}
        return Page(_stamp(projection, flat[:_STAMP_FIELDS]), dict(sorted(rows.items())))

    async def scan(self, stamp: Stamp, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        bound = f"({after}" if after else "-"
        flat = await self._run(scripts.SCAN, stamp.projection, (*_at(stamp), bound, limit))
        return [(key.decode(), value) for key, value in _pairs(flat)]

    async def swap(self, shadow: Stamp, over: Stamp | None) -> None:
        replaced = ("", "", "") if over is None else _at(over)
        await self._run(scripts.SWAP, shadow.projection, (*_at(shadow), *replaced))

    async def rollback(self, projection: str) -> Stamp:
        flat = await self._run(scripts.ROLLBACK, projection, ())
        if not flat:
            raise Rejected("nothing-to-roll-back-to", f"projection {projection} has no previous generation")
        return _stamp(projection, flat)

    async def clear(self) -> None:
        # Characters of a token mean nothing to a glob but for the hyphen, and that only within brackets.
        await self._translated(self._unlink_all(), "*")

    async def _unlink_all(self) -> None:
        keys = [key async for key in self._client.scan_iter(match=f"{self._prefix}*", count=1000)]
        for start in range(0, len(keys), 1000):
            await self._client.unlink(*keys[start : start + 1000])

    async def close(self) -> None:
        await self._client.aclose()

    async def _run(self, script: str, projection: str, arguments: Iterable[str | bytes | int]) -> Any:
        call = self._scripts[script](keys=[self._prefix + encode_token(projection)], args=list(arguments))
        return await self._translated(cast("Awaitable[Any]", call), projection)

    async def _translated(self, call: Awaitable[Any], what: str) -> Any:
        task = asyncio.current_task()
        cancels = 0 if task is None else task.cancelling()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                result = await call
                if task is not None and task.cancelling() > cancels:
                    # The driver can lose a cancellation that meets an answer (asyncio.wait_for before Python 3.12).
                    raise asyncio.CancelledError
                return result
        except ResponseError as error:
            text = str(error)
            if _CONFLICT in text:
                raise Conflict(f"projection {what}: {text.partition(_CONFLICT)[2].strip()}") from None
            raise Unavailable(f"cache at {self._address} refused a step on projection {what}: {text}") from error
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(
                f"cache at {self._address} did not answer within {self._deadline_seconds:g} s"
                f" ({type(error).__name__}: {error})",
                mend="start the cache; until then queries answer from the journal",
            ) from error


_SCRIPTS: Final = (
    scripts.STAMPS,
    scripts.BEGIN,
    scripts.COMMIT,
    scripts.FETCH,
    scripts.READ,
    scripts.SCAN,
    scripts.SWAP,
    scripts.ROLLBACK,
)
_STAMP_FIELDS: Final = 6


def _at(stamp: Stamp) -> tuple[str, int, str]:
    return stamp.generation, stamp.position, stamp.digest


def _stamp(projection: str, flat: Sequence[bytes]) -> Stamp:
    generation, version, position, digest, rows, skipped = flat
    return Stamp(projection, generation.decode(), int(version), int(position), digest.decode(), int(rows), int(skipped))


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
