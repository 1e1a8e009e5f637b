"""Making views anew from the journal: beside the current one (blue/green), in memory, and to check it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, NamedTuple

from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import Catalogue
from ssmd.errors import Conflict, Unavailable
from ssmd.projections.folder import Folder, decode_events
from ssmd.projections.projection import EMPTY_DIGEST, Projection, digest_text, row_digest, shift_digest
from ssmd.projections.rare_collection import collecting_rarely
from ssmd.projections.reading import AsOf, Batch, closing, gathered, within
from ssmd.projections.store import RowStore, Stamp
from ssmd.projections.store_memory import MemoryRowStore
from ssmd.streams.journal import Journal

BATCH_EVENTS: Final = 5000
"""Events in one commit of a rebuild."""
SWAP_SECONDS: Final = 60.0
"""How long a rebuild that has caught up may run after a moving view before it gives up."""


class Rebuilt(NamedTuple):
    """What a rebuild came to.

    Attributes:
        outcome: swapped: `after` is what readers see now. diverged: the same version gave another digest at the same
            position; readers still see `before`, `after` is the shadow as it was compared.
        before: the view there was when the rebuild began, None = none; it was compared at its position.
        is_regressed: the journal ended before the view's position (it lost its tail), so readers went back.
    """

    projection: str
    outcome: Literal["swapped", "diverged"]
    before: Stamp | None
    after: Stamp
    is_regressed: bool = False


WhenCompared = Callable[[Rebuilt], Awaitable[None]]
"""`outcome` is what will be, `after` is the shadow at the position at which it was compared."""


async def rebuild(
    journal: Journal,
    store: RowStore,
    projection: Projection,
    *,
    catalogue: Catalogue = CATALOGUE,
    is_strict: bool = True,
    batch_events: int = BATCH_EVENTS,
    swap_seconds: float = SWAP_SECONDS,
    when_compared: WhenCompared | None = None,
) -> Rebuilt:
    """Fold the journal into a shadow generation and put it in the current one's place, under load if need be.

    Args:
        is_strict: stop at an event that cannot be folded; otherwise pass it over and record it, as a live projector does.
        when_compared: awaited with what the shadow came to at the view's position, before readers can see any of it.

    Raises:
        Malformed: strict, and an event cannot be folded (its position is named); the view stays as it is.
        Conflict: another rebuild or a rollback came between; the view is as they left it.
        Unavailable: journal or store is away, or the view moved away for `swap_seconds`.
    """
    before = await store.current(projection.name)
    head = await journal.head()
    target = head if before is None else min(before.position, head)
    is_regressed = before is not None and before.position > head
    folder = Folder(
        projection, store, await store.begin(projection.name, projection.version), is_strict=is_strict, is_ahead=True
    )
    await fold_until(journal, [folder], target, catalogue, batch_events)
    is_diverged = before is not None and not is_regressed and _is_diverged(before, folder.stamp)
    compared = Rebuilt(projection.name, "diverged" if is_diverged else "swapped", before, folder.stamp, is_regressed)
    if when_compared is not None:
        await when_compared(compared)
    if is_diverged:
        return compared
    await fold_until(journal, [folder], max(target, await journal.head()), catalogue, batch_events)
    if not await _swapped(store, folder.stamp, before):
        try:
            async with asyncio.timeout(swap_seconds):
                await _chase(journal, store, folder, before, catalogue)
        except TimeoutError:
            raise Unavailable(
                f"projection {projection.name} moved on for {swap_seconds:g} s while its rebuild was to take its place",
                mend=f"ssmd projection rebuild {projection.name}",
            ) from None
    return Rebuilt(projection.name, "swapped", before, folder.stamp, is_regressed)


async def build_first(
    journal: Journal,
    store: RowStore,
    projections: Sequence[Projection],
    *,
    catalogue: Catalogue = CATALOGUE,
    when_built: WhenCompared | None = None,
) -> list[Stamp]:
    """Views of which there is no generation, all from one reading of the journal; as they are afterwards, in order.

    An event that cannot be folded is passed over and recorded: a view with a known omission serves better than none.

    Args:
        when_built: as `when_compared` of `rebuild`, for each view.

    Raises:
        Conflict: somebody else builds one of them.
        Unavailable: journal or store is away.
    """
    head = await journal.head()
    folders = [Folder(one, store, await store.begin(one.name, one.version)) for one in projections]
    await fold_until(journal, folders, head, catalogue, BATCH_EVENTS)
    for folder in folders:
        if when_built is not None:
            await when_built(Rebuilt(folder.projection.name, "swapped", None, folder.stamp))
        await store.swap(folder.stamp, None)
    return [folder.stamp for folder in folders]


def _is_diverged(before: Stamp, after: Stamp) -> bool:
    # A view that passed events over has a reason to differ: this very rebuild may be what mends it.
    return before.version == after.version and before.skipped == 0 and before.digest != after.digest


async def _swapped(store: RowStore, shadow: Stamp, before: Stamp | None) -> bool:
    """Try to swap; False = the current view is ahead of the shadow."""
    current = await store.current(shadow.projection)
    if before is None or current is None:
        # Nothing was compared: whatever stands there now is none of this rebuild's business.
        if current is not None:
            raise Conflict(f"projection {shadow.projection} was built by somebody else meanwhile")
        await store.swap(shadow, None)
        return True
    if current.generation != before.generation:
        raise Conflict(f"projection {shadow.projection} was replaced by somebody else meanwhile")
    if current != before and current.position > shadow.position:
        return False
    try:
        await store.swap(shadow, current)
    except Conflict:
        # Either it just moved again, or the next look at it says what happened.
        after = (await store.generations(shadow.projection)).get("shadow")
        if after != shadow:
            raise
        return False
    return True


async def _chase(journal: Journal, store: RowStore, folder: Folder, before: Stamp | None, catalogue: Catalogue) -> None:
    """Follow the journal beside the live projector until the shadow is not behind it at one instant."""
    async with closing(journal.follow(after=folder.stamp.position)) as batches:
        async for batch in batches:
            await _apply(folder, batch, catalogue)
            if await _swapped(store, folder.stamp, before):
                return


async def _apply(folder: Folder, batch: Batch, catalogue: Catalogue) -> None:
    await folder.apply(decode_events(batch, catalogue, folder.projection.aggregates), batch[-1].position)
    await folder.settle()


async def fold_until(
    journal: Journal, folders: Sequence[Folder], position: int, catalogue: Catalogue, batch_events: int
) -> None:
    """Bring every folder to `position`; they read the journal together, from the one furthest behind."""
    aggregates = frozenset().union(*(folder.projection.aggregates for folder in folders))
    after = min(folder.stamp.position for folder in folders)
    if after < position:
        replay = journal.replay(after=after, until=position, filters=sorted(aggregates))
        folded = 0
        # Closed here whatever a fold or a commit comes to: the reading holds a connection.
        async with closing(replay) as batches:
            with collecting_rarely():
                async for batch in batches:
                    # Folded as it comes, while the processor still has it at hand, and let go of: half the time it takes to
                    # gather all of a commit first.
                    events = decode_events(batch, catalogue, aggregates)
                    folded += len(batch)
                    for folder in folders:
                        await folder.fold(events)
                        if folded >= batch_events:
                            await folder.commit(batch[-1].position)
                    if folded >= batch_events:
                        folded = 0
    for folder in folders:
        await folder.apply((), position)
        await folder.settle()


async def fold_in_memory(
    journal: Journal,
    projections: Sequence[Projection],
    *,
    as_of: AsOf | None = None,
    catalogue: Catalogue = CATALOGUE,
    batch_events: int = BATCH_EVENTS,
) -> MemoryRowStore:
    """The views of `projections` as the journal (or its prefix `as_of`) gives them, in this process.

    Events that cannot be folded are passed over and recorded, as a live projector does.

    Raises:
        Unavailable: the journal is away.
    """
    store = MemoryRowStore()
    folders = [
        Folder(projection, store, await store.begin(projection.name, projection.version), rows_cached_max=sys.maxsize)
        for projection in projections
    ]
    wanted = as_of or AsOf()
    head = await journal.head()
    until = head if wanted.position is None else min(wanted.position, head)
    if wanted.ts_ns is None:
        await fold_until(journal, folders, until, catalogue, batch_events)
    else:
        await _fold_until_instant(journal, folders, until, wanted.ts_ns, catalogue, batch_events)
    for folder in folders:
        await store.swap(folder.stamp, None)
    return store


async def _fold_until_instant(
    journal: Journal, folders: Sequence[Folder], until: int, ts_ns: int, catalogue: Catalogue, batch_events: int
) -> None:
    aggregates = frozenset().union(*(folder.projection.aggregates for folder in folders))
    # Unfiltered: an event of any kind may be the one that ends the prefix.
    async with closing(gathered(journal.replay(until=until), batch_events)) as batches:
        async for batch in batches:
            kept = within(batch, ts_ns)
            if kept:
                events = decode_events(kept, catalogue, aggregates)
                for folder in folders:
                    await folder.apply(events, kept[-1].position)
            if len(kept) < len(batch):
                return


class Verified(NamedTuple):
    """A view checked: what its stamp claims, what its rows add up to, what the journal gives at the same position."""

    stamp: Stamp
    rows_digest: str
    journal_digest: str

    @property
    def is_good(self) -> bool:
        return self.stamp.digest == self.rows_digest == self.journal_digest


async def verify(
    journal: Journal, store: RowStore, projection: Projection, *, catalogue: Catalogue = CATALOGUE, attempts: int = 20
) -> Verified:
    """Check the current view against itself and against the journal, while it may be moving.

    Raises:
        Unavailable: there is no view, or it never stood still long enough to be read whole in `attempts` tries.
    """
    for _ in range(attempts):
        stamp = await store.current(projection.name)
        if stamp is None:
            break
        try:
            rows_digest = await _digest_of_rows(store, stamp)
        except Conflict:
            continue
        folded = await fold_in_memory(journal, [projection], as_of=AsOf(position=stamp.position), catalogue=catalogue)
        refolded = await folded.current(projection.name)
        return Verified(stamp, rows_digest, "" if refolded is None else refolded.digest)
    raise Unavailable(
        f"projection {projection.name} cannot be read whole: it is absent or moved in {attempts} tries",
        mend=f"ssmd projection rebuild {projection.name}",
    )


async def _digest_of_rows(store: RowStore, stamp: Stamp) -> str:
    digest, after = EMPTY_DIGEST, ""
    while page := await store.scan(stamp, after=after):
        digest = shift_digest(digest, added=sum(row_digest(key, value) for key, value in page), removed=0)
        after = page[-1][0]
    return digest_text(digest)
