"""Row store in this process: for `cache: memory`, for folding the journal into an answer, and for tests."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from ssmd.errors import Conflict, Rejected, Unavailable
from ssmd.projections.projection import EMPTY_DIGEST, digest_text
from ssmd.projections.store import Changes, Page, Role, Stamp


@dataclass
class _Generation:
    stamp: Stamp
    rows: dict[str, bytes] = field(default_factory=dict)
    index: list[str] = field(default_factory=list)
    is_index_sorted: bool = True

    def keys(self) -> list[str]:
        if not self.is_index_sorted:
            self.index = sorted(self.rows)
            self.is_index_sorted = True
        return self.index

    def apply(self, changes: Changes) -> None:
        self.rows.update(changes.puts)
        for key in changes.removed:
            self.rows.pop(key, None)
        if self.is_index_sorted and len(changes.added) + len(changes.removed) == 1:
            for key in changes.added:
                insort(self.index, key)
            for key in changes.removed:
                del self.index[bisect_left(self.index, key)]
        elif changes.added or changes.removed:
            self.is_index_sorted = False
        self.stamp = self.stamp._replace(
            position=changes.position, digest=changes.digest, rows=len(self.rows), skipped=changes.skipped
        )


class MemoryRowStore:
    """Implements `store.RowStore`. Everything happens within one step of the event loop, so at one instant."""

    def __init__(self) -> None:
        self._generations: dict[str, dict[Role, _Generation]] = {}
        self._last_generation = 0

    async def current(self, projection: str) -> Stamp | None:
        found = self._of(projection).get("current")
        return None if found is None else found.stamp

    async def generations(self, projection: str) -> dict[Role, Stamp]:
        return {role: found.stamp for role, found in self._of(projection).items()}

    async def begin(self, projection: str, version: int) -> Stamp:
        self._last_generation += 1
        stamp = Stamp(projection, f"{self._last_generation:06}", version, 0, digest_text(EMPTY_DIGEST), 0, 0)
        self._of(projection)["shadow"] = _Generation(stamp)
        return stamp

    async def commit(self, stamp: Stamp, changes: Changes) -> Stamp:
        role, generation = self._at(stamp)
        if role == "previous":
            raise Conflict(f"generation {stamp.generation} of projection {stamp.projection} was replaced")
        generation.apply(changes)
        return generation.stamp

    async def fetch(self, stamp: Stamp, keys: Sequence[str]) -> list[bytes | None]:
        _, generation = self._at(stamp)
        return [generation.rows.get(key) for key in keys]

    async def read(self, projection: str, *, keys: Sequence[str] = (), prefixes: Sequence[str] = ()) -> Page:
        generation = self._of(projection).get("current")
        if generation is None:
            raise Unavailable(f"projection {projection} is not built", mend=f"ssmd projection rebuild {projection}")
        found = {key for key in keys if key in generation.rows}
        index = generation.keys() if prefixes else []
        for prefix in prefixes:
            found.update(index[bisect_left(index, prefix) : bisect_left(index, prefix + "\x7f")])
        return Page(generation.stamp, {key: generation.rows[key] for key in sorted(found)})

    async def scan(self, stamp: Stamp, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        _, generation = self._at(stamp)
        index = generation.keys()
        start = bisect_right(index, after)
        return [(key, generation.rows[key]) for key in index[start : start + limit]]

    async def swap(self, shadow: Stamp, over: Stamp | None) -> None:
        role, generation = self._at(shadow)
        generations = self._of(shadow.projection)
        current = generations.get("current")
        if role != "shadow" or not _may_replace(None if current is None else current.stamp, over, shadow):
            raise Conflict(f"projection {shadow.projection} moved while {shadow.generation} was to become current")
        self._generations[shadow.projection] = {"current": generation}
        if current is not None:
            self._generations[shadow.projection]["previous"] = current

    async def rollback(self, projection: str) -> Stamp:
        generations = self._of(projection)
        if "previous" not in generations:
            raise Rejected("nothing-to-roll-back-to", f"projection {projection} has no previous generation")
        previous = generations.pop("previous")
        if "current" in generations:
            generations["previous"] = generations["current"]
        generations["current"] = previous
        return previous.stamp

    async def clear(self) -> None:
        self._generations.clear()

    async def close(self) -> None:
        """Nothing is held open."""

    def _of(self, projection: str) -> dict[Role, _Generation]:
        return self._generations.setdefault(projection, {})

    def _at(self, stamp: Stamp) -> tuple[Role, _Generation]:
        for role, generation in self._of(stamp.projection).items():
            if generation.stamp == stamp:
                return role, generation
        raise Conflict(f"generation {stamp.generation} of projection {stamp.projection} is not at {stamp.position} any more")


def _may_replace(current: Stamp | None, over: Stamp | None, shadow: Stamp) -> bool:
    if current is None or over is None:
        return current is over
    return current.generation == over.generation and (current == over or current.position <= shadow.position)
