"""The row store port: where views are kept, with their position and digest. Backends: redis, memory.

A projection has generations: at most one current (what readers see), one previous (kept for rollback) and one shadow
(a rebuild at work). Only the current one and the shadow take commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

Role = Literal["current", "previous", "shadow"]


class Stamp(NamedTuple):
    """A state of one generation. Equal stamps hold equal rows.

    Attributes:
        generation: identity of the keyspace, never used twice.
        version: the projection's version that folded it.
        position: last journal position folded.
        digest: 64 hex digits, see `projection`.
        rows: how many there are.
        skipped: events it could not fold and passed over; while there are any, answers may be incomplete.
    """

    projection: str
    generation: str
    version: int
    position: int
    digest: str
    rows: int
    skipped: int


class Changes(NamedTuple):
    """What one batch of events does to a generation. `added`, `removed`: keys that begin or cease to exist."""

    puts: Mapping[str, bytes]
    added: Sequence[str]
    removed: Sequence[str]
    position: int
    digest: str
    skipped: int


class Page(NamedTuple):
    """Rows of one projection, all of one instant. `rows` is in key order (by code point), without doubles."""

    stamp: Stamp
    rows: dict[str, bytes]


class ReadableRows(Protocol):
    """Where queries read."""

    async def read(self, projection: str, *, keys: Sequence[str] = (), prefixes: Sequence[str] = ()) -> Page:
        """Rows of the current generation by key and by key prefix, at one instant.

        Raises:
            Unavailable: there is no whole current generation.
        """
        ...


class FoldableRows(Protocol):
    """Where folds read and write."""

    async def fetch(self, stamp: Stamp, keys: Sequence[str]) -> list[bytes | None]:
        """Rows of the generation, in the order of `keys`.

        Raises:
            Conflict: it is not at `stamp` any more.
        """
        ...

    async def commit(self, stamp: Stamp, changes: Changes) -> Stamp:
        """Apply `changes` to the generation if it is still exactly at `stamp`.

        Returns:
            the new stamp.

        Raises:
            Conflict: it is elsewhere, gone, or no longer takes commits.
        """
        ...


class RowStore(ReadableRows, FoldableRows, Protocol):
    """What every backend promises.

    - A commit, a read, a swap each happen wholly and at one instant, or not at all.
    - After a raised Unavailable a change may or may not have happened; the stamp tells.
    - A keyspace that lost a part of itself (evicted, flushed) is never read as if it were whole: `current` and `read`
      treat it as absent.
    """

    async def current(self, projection: str) -> Stamp | None:
        """The generation readers see; None = there is none, or it is damaged."""
        ...

    async def generations(self, projection: str) -> dict[Role, Stamp]:
        """All whole generations by their role."""
        ...

    async def begin(self, projection: str, version: int) -> Stamp:
        """A new, empty shadow generation at position 0; a shadow there was is dropped (its rebuild ends in Conflict)."""
        ...

    async def scan(self, stamp: Stamp, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """Up to `limit` rows of a generation whose key is above `after`, in key order; [] = no more.

        Raises:
            Conflict: it is not at `stamp` any more.
        """
        ...

    async def swap(self, shadow: Stamp, over: Stamp | None) -> None:
        """Make `shadow` current in place of `over` (None = there is no current one), which becomes previous.

        Raises:
            Conflict: the shadow is not at its stamp; or `over` is not the current generation; or it moved from its
                stamp to a position past the shadow's, so that readers would go back. Nothing changed.
        """
        ...

    async def rollback(self, projection: str) -> Stamp:
        """Make the previous generation current and the current one previous.

        Raises:
            Rejected: there is no previous one.
        """
        ...

    async def clear(self) -> None:
        """Take every generation of every projection of this environment away."""
        ...

    async def close(self) -> None:
        """Release the connection. Safe to call twice."""
        ...
