"""What happens to projections, told to the journal: rebuilds, swaps, rollbacks, and events that were passed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ssmd.application.handler import Application
from ssmd.domain import dead_letter, projection
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.dead_letter import RecordDeadLetter, RecordReplay
from ssmd.domain.decider import Catalogue
from ssmd.domain.projection import Made, RecordDivergence, RecordRebuild, RecordRollback, RecordSwap
from ssmd.errors import Rejected
from ssmd.projections.folder import POISON, Poison
from ssmd.projections.projection import Projection
from ssmd.projections.rebuild import Rebuilt, build_first, rebuild
from ssmd.projections.store import RowStore, Stamp
from ssmd.projections.working_set import decode_row
from ssmd.streams.journal import Journal

COMPONENT: Final = "projector"
_UNRECORDED: Final = frozenset({dead_letter.AGGREGATE, projection.AGGREGATE})
"""Recording that an event of these cannot be folded would make another one of the same kind, without end."""


def made_of(stamp: Stamp) -> Made:
    """A stamp as events have it."""
    return Made(stamp.generation, stamp.version, stamp.position, stamp.digest, stamp.rows, stamp.skipped)


class ProjectionRecord:
    """Writes the events of aggregates `projection` and `dead-letter`. All of it may be said again.

    Args:
        actor: who does it ("projector:main", "cli:anna").
    """

    def __init__(self, application: Application, actor: str, catalogue: Catalogue = CATALOGUE) -> None:
        self._application = application
        self._actor = actor
        self._catalogue = catalogue

    async def rebuild(self, journal: Journal, store: RowStore, view: Projection, *, is_strict: bool = True) -> Rebuilt:
        """`projections.rebuild`, recorded: what it came to before readers can see it, the swap once they do.

        Raises:
            as `projections.rebuild.rebuild`.
        """
        omitted = await self._omissions(store, view.name)
        built = await rebuild(journal, store, view, catalogue=self._catalogue, is_strict=is_strict, when_compared=self.compared)
        if built.outcome == "swapped":
            await self.swapped(built.after)
            still = {poison.position for poison in await self._omissions(store, view.name)}
            await self._folded_after_all(view.name, [one.position for one in omitted if one.position not in still])
        return built

    async def build_first(self, journal: Journal, store: RowStore, views: Sequence[Projection]) -> list[Stamp]:
        """`projections.build_first`, recorded as a rebuild is, but for the swaps: those are left to `swapped`."""
        return await build_first(journal, store, views, catalogue=self._catalogue, when_built=self.compared)

    async def compared(self, found: Rebuilt) -> None:
        """What a rebuild came to, said before readers can see it."""
        made, before = made_of(found.after), None if found.before is None else made_of(found.before)
        command: RecordDivergence | RecordRebuild
        if found.outcome == "diverged" and before is not None:
            command = RecordDivergence(made, before)
        else:
            command = RecordRebuild(made, before)
        await self._application.handle(projection.DECIDER, (found.projection,), command, actor=self._actor)

    async def _omissions(self, store: RowStore, name: str) -> list[Poison]:
        stamp = await store.current(name)
        if stamp is None or not stamp.skipped:
            return []
        page = await store.read(name, prefixes=[f"{POISON}/"])
        return [decode_row(value, Poison) for value in page.rows.values()]

    async def swapped(self, stamp: Stamp) -> None:
        """Readers see the generation of `stamp`: recorded unless it is known already."""
        command = RecordSwap(stamp.generation, stamp.version, stamp.position)
        await self._application.handle(projection.DECIDER, (stamp.projection,), command, actor=self._actor)

    async def rollback(self, store: RowStore, name: str, reason: str) -> Stamp:
        """Make the previous generation current, and record it.

        Raises:
            Rejected: there is no previous one.
        """
        replaced = await store.current(name)
        stamp = await store.rollback(name)
        command = RecordRollback(
            stamp.generation, stamp.version, stamp.position, "" if replaced is None else replaced.generation, reason
        )
        await self._application.handle(projection.DECIDER, (name,), command, actor=self._actor)
        return stamp

    async def passed_over(self, name: str, events: list[Poison]) -> None:
        """Record events that the view `name` could not fold as dead letters, each once."""
        for poison in events:
            if poison.aggregate.partition("/")[0] in _UNRECORDED:
                continue
            command = RecordDeadLetter(COMPONENT, "journal", poison.position, poison.aggregate, poison.type, poison.reason)
            await self._application.handle(dead_letter.DECIDER, (letter_id(name, poison.position),), command, actor=self._actor)

    async def known_omissions(self, store: RowStore, stamp: Stamp) -> None:
        """Record what the generation of `stamp` passed over, in case that was not done when it happened."""
        if stamp.skipped:
            await self.passed_over(stamp.projection, await self._omissions(store, stamp.projection))

    async def _folded_after_all(self, name: str, positions: list[int]) -> None:
        for position in positions:
            try:
                await self._application.handle(
                    dead_letter.DECIDER, (letter_id(name, position),), RecordReplay(f"rebuild of {name}"), actor=self._actor
                )
            except Rejected:
                # Discarded by a person, or never recorded: nothing to close.
                continue


def letter_id(name: str, position: int) -> str:
    """Id of the dead letter for the event at journal `position` that view `name` passed over."""
    return f"{name}-{position}"
