"""The storage port: objects by key, written whole or not at all. Backends: local, memory, s3.

A key is one or more names joined by "/". A name is made of letters, digits and `-_.%`, and begins with no dot.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

from ssmd.errors import Rejected

CHUNK_BYTES: Final = 1 << 20
"""Objects are read and written in pieces of at most this size."""

LIST_KEYS: Final = 1000
"""Objects are listed so many at once; no S3 server gives more."""

PutResult = Literal["created", "identical"]

_KEY: Final = re.compile(r"[A-Za-z0-9_%-][A-Za-z0-9_.%-]*(?:/[A-Za-z0-9_%-][A-Za-z0-9_.%-]*)*")
_KEY_BYTES_MAX: Final = 1024
_NAME_BYTES_MAX: Final = 240


class ObjectStat(NamedTuple):
    """What an object is: the SHA-256 (hex) and size of its bytes."""

    sha256: str
    size_bytes: int


class Storage(Protocol):
    """What every backend promises: an object is there whole or not at all, whenever the writer is killed.

    Every method raises Rejected("bad-key") for a key outside the grammar, and Unavailable when the backend does not
    answer, has no room, or refuses.
    """

    async def put_file(self, key: str, path: Path) -> PutResult:
        """Store the file at `path`, unless there is an object. Durable when it returns.

        Returns:
            "identical" when the same bytes were there.

        Raises:
            Conflict: other bytes are there; they stay.
        """
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Write an object whole, in place of one there may be. Durable when it returns."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The object's bytes, None = there is none."""
        ...

    def read(self, key: str) -> AsyncIterator[bytes]:
        """The object's bytes in pieces of at most CHUNK_BYTES.

        Raises:
            Rejected: "no-such-object".
        """
        ...

    async def read_range(self, key: str, start: int, size: int) -> bytes | None:
        """Its bytes from `start` on, at most `size` (fewer where it ends); None = there is no object."""
        ...

    async def stat(self, key: str) -> ObjectStat | None:
        """What is there, by reading it; None = nothing."""
        ...

    def list(self, prefix: str = "") -> AsyncIterator[str]:
        """Keys that start with `prefix` (any text), sorted."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the object, if there is one."""
        ...

    async def check(self) -> None:
        """Try whether this storage can be written to and keeps the promises above; leaves no object that counts.

        Raises:
            Misconfigured: it cannot, as the environment describes it: waiting would not help.
            Unavailable: no answer, or no room: later it may.
        """
        ...

    async def close(self) -> None:
        """Let go of what the backend holds open. Safe to call twice."""
        ...


def check_key(key: str) -> None:
    """Refuse what is no key.

    Raises:
        Rejected: "bad-key".
    """
    if not _KEY.fullmatch(key) or len(key) > _KEY_BYTES_MAX or any(len(name) > _NAME_BYTES_MAX for name in key.split("/")):
        raise Rejected("bad-key", f"not the key of an object: {key!r}")


def hash_file(path: Path) -> ObjectStat:
    """What an object of the file's bytes would be. Blocks."""
    state, size = hashlib.sha256(), 0
    with path.open("rb") as source:
        while piece := source.read(CHUNK_BYTES):
            state.update(piece)
            size += len(piece)
    return ObjectStat(state.hexdigest(), size)


def no_such_object(key: str) -> Rejected:
    """What `Storage.read` raises for a key without an object."""
    return Rejected("no-such-object", f"the storage has no object {key!r}")
