"""Views opened for questions and for their care: from the cache where it serves, else folded from the journal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ssmd.errors import Misconfigured, Unavailable
from ssmd.wiring.backends import open_rows_store, open_storage, reading_journal
from ssmd.wiring.environment import ResolvedEnvironment

if TYPE_CHECKING:
    from ssmd.projections.projection import Projection
    from ssmd.projections.reading import AsOf
    from ssmd.projections.store import RowStore
    from ssmd.projections.views import Views
    from ssmd.streams.journal import Journal


@asynccontextmanager
async def asking_views(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    say: Callable[[str], None] | None = None,
    *,
    projections: Sequence[Projection],
    as_of: AsOf | None = None,
) -> AsyncGenerator[Views]:
    """What `projections.queries` read, whether the environment runs or not: as fresh as the journal, or `as_of`.

    Args:
        projections: those that the question needs.

    Raises:
        as `backends.reading_journal`; Malformed: the journal lost or changed what was folded or anchored, the range is
        named; Rejected: `as_of` is ahead of the journal.
    """
    from ssmd.projections.views import fold_views, freshest_views  # noqa: PLC0415 - see wiring.backends

    async with reading_journal(environment, variables, say) as journal:
        notes = await _check_anchors(environment, variables, journal)
        if as_of is not None:
            views = await fold_views(journal, as_of, projections)
            yield views._replace(notes=(*views.notes, *notes))
            return
        is_away = environment.is_embedded("cache") and environment.run is None
        has_store = environment.document.cache.backend == "redis" and not is_away
        store = open_rows_store(environment, variables) if has_store else None
        try:
            views = await freshest_views(store, journal, projections)
            yield views._replace(notes=(*views.notes, *notes))
        finally:
            if store is not None:
                await store.close()


async def _check_anchors(environment: ResolvedEnvironment, variables: Mapping[str, str], journal: Journal) -> tuple[str, ...]:
    """Check the journal's end against the last anchors; what could not be checked is a note."""
    from ssmd.projections.journal_guard import check_latest, decode_latest, latest_key  # noqa: PLC0415 - as above

    storage = open_storage(environment, variables)
    try:
        stored = await storage.get(latest_key(environment.name))
        if stored is not None:
            await check_latest(journal, environment.name, decode_latest(stored))
    except Unavailable as error:
        return (f"the journal was not checked against its anchors: {error.message}",)
    finally:
        await storage.close()
    return ()


@asynccontextmanager
async def keeping_views(
    environment: ResolvedEnvironment, variables: Mapping[str, str], say: Callable[[str], None] | None = None
) -> AsyncGenerator[tuple[Journal, RowStore]]:
    """Journal and row store of an environment, for those who rebuild, check and roll back.

    Raises:
        Misconfigured: its views are folded in process (cache: memory): there is nothing to keep.
        Unavailable: a server is away.
    """
    if environment.document.cache.backend != "redis":
        raise Misconfigured(
            f"the views of {environment.name} are folded from the journal for each question (cache: memory):"
            " nothing is kept that could be rebuilt",
            mend=f"set cache.backend to redis in exchanges/environments/{environment.name}.yaml",
        )
    store = open_rows_store(environment, variables)
    try:
        async with reading_journal(environment, variables, say) as journal:
            yield journal, store
    finally:
        await store.close()
