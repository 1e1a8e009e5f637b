"""The storage port in memory: for tests and for environments with `storage: memory`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from ssmd.archive.storage import CHUNK_BYTES, ObjectStat, PutResult, check_key, no_such_object
from ssmd.errors import Conflict, Unavailable


class MemoryStorage:
    """Objects held in a dict, unbounded: for runs whose size the caller bounds."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self.is_away = False
        """Set to True, every call raises Unavailable, as with a server that is down."""

    def _held(self, key: str) -> dict[str, bytes]:
        check_key(key)
        self._check_here()
        return self._objects

    def _check_here(self) -> None:
        if self.is_away:
            raise Unavailable("the memory storage has been told to be away")

    async def put_file(self, key: str, path: Path) -> PutResult:
        held = self._held(key)
        data = await asyncio.to_thread(path.read_bytes)
        there = held.setdefault(key, data)
        if there is data:
            return "created"
        if there == data:
            return "identical"
        raise Conflict(f"object {key!r} has other content")

    async def put(self, key: str, data: bytes) -> None:
        self._held(key)[key] = data

    async def get(self, key: str) -> bytes | None:
        return self._held(key).get(key)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        data = self._held(key).get(key)
        if data is None:
            raise no_such_object(key)
        for at in range(0, len(data), CHUNK_BYTES):
            yield data[at : at + CHUNK_BYTES]

    async def read_range(self, key: str, start: int, size: int) -> bytes | None:
        data = self._held(key).get(key)
        return None if data is None else data[start : start + size]

    async def stat(self, key: str) -> ObjectStat | None:
        data = self._held(key).get(key)
        return None if data is None else ObjectStat(hashlib.sha256(data).hexdigest(), len(data))

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        self._check_here()
        for key in sorted(self._objects):
            if key.startswith(prefix):
                yield key

    async def delete(self, key: str) -> None:
        self._held(key).pop(key, None)

    async def check(self) -> None:
        self._check_here()

    async def close(self) -> None:
        return
