"""What queries read from: the cache when it is current, else the cache with the journal's tail folded on top, else the
journal folded in this process. The same folds everywhere, so the same answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import Catalogue
from ssmd.errors import Conflict, Malformed, Rejected, Unavailable
from ssmd.projections.access import CLIENTS, KEYS
from ssmd.projections.captures import CAPTURES
from ssmd.projections.days import DAYS
from ssmd.projections.folder import Folder
from ssmd.projections.gaps import GAPS
from ssmd.projections.inventory import INVENTORY
from ssmd.projections.manifests import MANIFESTS
from ssmd.projections.projection import Projection
from ssmd.projections.quality import QUALITY
from ssmd.projections.reading import AsOf
from ssmd.projections.rebuild import BATCH_EVENTS, fold_in_memory, fold_until
from ssmd.projections.secmaster import SECMASTER
from ssmd.projections.store import Changes, Page, ReadableRows, RowStore, Stamp
from ssmd.projections.troubles import DEAD_LETTERS, FEEDBACK
from ssmd.streams.journal import Journal

QUERIED: Final[tuple[Projection, ...]] = (
    DAYS,
    CAPTURES,
    GAPS,
    INVENTORY,
    QUALITY,
    SECMASTER,
    KEYS,
    CLIENTS,
    DEAD_LETTERS,
    FEEDBACK,
)
"""Those that `queries` reads."""
PROJECTIONS: Final[tuple[Projection, ...]] = (*QUERIED, MANIFESTS)
"""Every projection, in the order in which they are shown."""

PATIENCE_SECONDS: Final = 0.25
"""How long a query waits for a live projector to reach the head it saw, before it folds the missing tail itself."""
_POLL_SECONDS: Final = 0.01
_TRIES: Final = 3


class Views(NamedTuple):
    """Rows of the projections that queries need.

    Attributes:
        position: journal position that every answer includes at least.
        source: cache; cache+journal: the journal's newest events folded on top of the cache; journal: folded whole.
        skipped: events that could not be folded, by projection; answers may lack what they said.
        notes: what else whoever reads an answer should know.
    """

    rows: ReadableRows
    position: int
    source: Literal["cache", "cache+journal", "journal"]
    skipped: dict[str, int]
    notes: tuple[str, ...] = ()

    async def read(self, projection: str, *, keys: Sequence[str] = (), prefixes: Sequence[str] = ()) -> Page:
        """See `store.ReadableRows`."""
        return await self.rows.read(projection, keys=keys, prefixes=prefixes)

    def warnings(self) -> tuple[str, ...]:
        """What whoever reads an answer should know, in words."""
        return self.notes + tuple(
            f"projection {name} passed over {count} events it could not fold (ssmd journal verify names them)"
            for name, count in self.skipped.items()
            if count
        )


async def open_views(store: RowStore, projections: Sequence[Projection] = QUERIED) -> Views:
    """Views as the store has them, however old.

    Raises:
        Unavailable: the store is away, or lacks a projection at the version this program folds.
    """
    return _views(store, await _stamps(store, projections), "cache")


async def fold_views(
    journal: Journal,
    as_of: AsOf | None = None,
    projections: Sequence[Projection] = QUERIED,
    *,
    catalogue: Catalogue = CATALOGUE,
) -> Views:
    """Views folded from the journal, or its prefix `as_of`, in this process.

    Raises:
        Rejected: `as_of` is a position the journal has not reached.
        Unavailable: the journal is away.
    """
    if as_of is not None and as_of.position is not None:
        head = await journal.head()
        if as_of.position > head:
            raise Rejected("as-of-ahead", f"the journal ends at position {head}, there is no {as_of.position} yet")
    store = await fold_in_memory(journal, projections, as_of=as_of, catalogue=catalogue)
    return _views(store, await _stamps(store, projections), "journal")


async def freshest_views(
    store: RowStore | None,
    journal: Journal,
    projections: Sequence[Projection] = QUERIED,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    catalogue: Catalogue = CATALOGUE,
) -> Views:
    """Views that include everything the journal held when this was called, by the cheapest way there is.

    With the journal away the store's views are given as they are, with a note.

    Args:
        store: None = there is none.

    Raises:
        Unavailable: the journal is away, and so are the store's views.
        Malformed: the journal ends before what the store has folded: it lost its tail.
    """
    if store is not None:
        try:
            head = await journal.head()
        except Unavailable as error:
            views = await open_views(store, projections)
            note = f"the journal is away ({error.message}): the answer is as of position {views.position}"
            return views._replace(notes=(note,))
        for _ in range(_TRIES):
            try:
                return await _from_store(store, journal, projections, head, patience_seconds, catalogue)
            except Conflict:
                # The view moved while its tail was folded: it is being kept up, look again.
                continue
            except Unavailable:
                # Store or journal; if it is the journal, the next line says so.
                break
    return await fold_views(journal, None, projections, catalogue=catalogue)


async def _from_store(
    store: RowStore,
    journal: Journal,
    projections: Sequence[Projection],
    head: int,
    patience_seconds: float,
    catalogue: Catalogue,
) -> Views:
    stamps = await _patient_stamps(store, projections, head, patience_seconds)
    if any(stamp.position > head for stamp in stamps):
        _refuse_lost_tail(stamps, await journal.head())
    if all(stamp.position >= head for stamp in stamps):
        return _views(store, stamps, "cache")
    tail = _Tail(store, stamps)
    folders = [Folder(projection, tail, stamp) for projection, stamp in zip(projections, stamps, strict=True)]
    await fold_until(journal, folders, max(head, *(stamp.position for stamp in stamps)), catalogue, BATCH_EVENTS)
    return _views(tail, [folder.stamp for folder in folders], "cache+journal")


def _refuse_lost_tail(stamps: Sequence[Stamp], head: int) -> None:
    for stamp in stamps:
        if stamp.position > head:
            raise Malformed(
                f"the journal ends at position {head}, projection {stamp.projection} has folded up to {stamp.position}:"
                f" events {head + 1}..{stamp.position} are lost from the journal",
                mend="restore the journal, or accept the loss with: ssmd projection rebuild --all",
            )


async def _stamps(store: RowStore, projections: Sequence[Projection]) -> list[Stamp]:
    stamps = []
    for projection in projections:
        stamp = await store.current(projection.name)
        if stamp is None or stamp.version != projection.version:
            found = "absent or damaged" if stamp is None else f"at version {stamp.version}"
            raise Unavailable(
                f"projection {projection.name} is {found}, version {projection.version} is needed",
                mend=f"ssmd projection rebuild {projection.name}",
            )
        stamps.append(stamp)
    return stamps


async def _patient_stamps(
    store: RowStore, projections: Sequence[Projection], head: int, patience_seconds: float
) -> list[Stamp]:
    """The stamps once all are at `head`, or as they are after `patience_seconds`."""
    stamps = await _stamps(store, projections)
    tries = int(patience_seconds / _POLL_SECONDS)
    while tries > 0 and any(stamp.position < head for stamp in stamps):
        tries -= 1
        await asyncio.sleep(_POLL_SECONDS)
        stamps = await _stamps(store, projections)
    return stamps


def _views(rows: ReadableRows, stamps: Sequence[Stamp], source: Literal["cache", "cache+journal", "journal"]) -> Views:
    skipped = {stamp.projection: stamp.skipped for stamp in stamps}
    return Views(rows, min((stamp.position for stamp in stamps), default=0), source, skipped)


class _Tail:
    """A store seen through the newest events, which are folded in this process only (commits stay here)."""

    def __init__(self, store: RowStore, stamps: Sequence[Stamp]) -> None:
        self._store = store
        self._based_on = {stamp.projection: stamp for stamp in stamps}
        self._stamps = dict(self._based_on)
        self._changed: dict[str, dict[str, bytes | None]] = {stamp.projection: {} for stamp in stamps}

    async def fetch(self, stamp: Stamp, keys: Sequence[str]) -> list[bytes | None]:
        changed = self._changed[stamp.projection]
        stored = await self._store.fetch(self._based_on[stamp.projection], keys)
        return [changed.get(key, value) for key, value in zip(keys, stored, strict=True)]

    async def commit(self, stamp: Stamp, changes: Changes) -> Stamp:
        changed = self._changed[stamp.projection]
        changed.update(changes.puts)
        changed.update(dict.fromkeys(changes.removed))
        rows = stamp.rows + len(changes.added) - len(changes.removed)
        after = stamp._replace(position=changes.position, digest=changes.digest, skipped=changes.skipped, rows=rows)
        self._stamps[stamp.projection] = after
        return after

    async def read(self, projection: str, *, keys: Sequence[str] = (), prefixes: Sequence[str] = ()) -> Page:
        page = await self._store.read(projection, keys=keys, prefixes=prefixes)
        base, here = self._based_on[projection], self._stamps[projection]
        if page.stamp.version == here.version and page.stamp.position >= here.position:
            return page
        if page.stamp.version != base.version or page.stamp.position < base.position:
            raise Unavailable(f"projection {projection} was replaced while it was read", mend="ask again")
        # Between base and here: every row that changed since base is in `_changed`, as it is here.
        rows = dict(page.rows)
        wanted, starts = set(keys), tuple(prefixes)
        for key, value in self._changed[projection].items():
            if key in wanted or key.startswith(starts):
                if value is None:
                    rows.pop(key, None)
                else:
                    rows[key] = value
        return Page(here, dict(sorted(rows.items())))
