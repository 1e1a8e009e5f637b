"""Folding batches of journal events into one generation of one projection, each batch in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from ssmd.domain.decider import Catalogue
from ssmd.errors import Conflict, Malformed
from ssmd.projections.projection import Projection, position_token, row_key
from ssmd.projections.store import Changes, FoldableRows, Stamp
from ssmd.projections.working_set import ROWS_CACHED_MAX, NotLoaded, RowDamaged, WorkingSet
from ssmd.streams.journal import PoisonEvent, RecordedEvent

POISON: Final = "poison"
"""Table of the events a projection passed over: `poison/{position}` -> `Poison`."""


class Poison(msgspec.Struct, frozen=True):
    """An event that could not be folded; its bytes are in the journal at `position`."""

    position: int
    type: str
    aggregate: str
    reason: str


class Decoded(NamedTuple):
    """A journal message ready to be folded. Without `event`, `reason` says why it cannot be. `aggregate` "" = unknown."""

    position: int
    aggregate: str
    recorded: RecordedEvent | None
    event: msgspec.Struct | None
    reason: str = ""


def decode_events(
    batch: Iterable[RecordedEvent | PoisonEvent], catalogue: Catalogue, aggregates: frozenset[str]
) -> list[Decoded]:
    """The messages of `batch` that concern `aggregates`, decoded; what cannot be decoded says why."""
    decoded: list[Decoded] = []
    append, new, current = decoded.append, tuple.__new__, catalogue.current
    for recorded in batch:
        if isinstance(recorded, PoisonEvent):
            tokens = recorded.subject.split(".")
            aggregate = tokens[2] if len(tokens) > 2 else ""
            if aggregate in aggregates or not aggregate:
                append(Decoded(recorded.position, aggregate, None, None, recorded.reason))
            continue
        position, envelope, _ = recorded
        aggregate = envelope.aggregate
        if aggregate not in aggregates:
            continue
        try:
            append(new(Decoded, (position, aggregate, recorded, current[envelope.type](envelope.data), "")))
        except (KeyError, ValueError, RecursionError):
            append(_decode_closely(recorded, catalogue))
    return decoded


def _decode_closely(recorded: RecordedEvent, catalogue: Catalogue) -> Decoded:
    """What is of a former version, or not as it should be."""
    envelope = recorded.envelope
    try:
        event = catalogue.decode(envelope.type, envelope.data)
    except Malformed as error:
        return Decoded(recorded.position, envelope.aggregate, recorded, None, error.message)
    return Decoded(recorded.position, envelope.aggregate, recorded, event)


def in_pieces(batch: Sequence[RecordedEvent | PoisonEvent], size: int) -> Iterator[Sequence[RecordedEvent | PoisonEvent]]:
    """`batch` in pieces of at most `size` messages."""
    for start in range(0, len(batch), size):
        yield batch[start : start + size]


class Folder:
    """Follows the journal for one generation.

    After a raised Conflict or Unavailable it is of no more use: where the generation stands is unknown until a new
    folder is made from the store's stamp.

    Args:
        stamp: the generation as it is.
        is_strict: stop at an event that cannot be folded, rather than record it and pass on.
        is_ahead: `apply` returns while its commit is under way, so that the next batch is folded meanwhile; `stamp` is
            then where the generation will be, and `settle` has to be called at the end.
        before_commit: called when a batch is folded and nothing of it is committed.
    """

    def __init__(
        self,
        projection: Projection,
        store: FoldableRows,
        stamp: Stamp,
        *,
        is_strict: bool = False,
        is_ahead: bool = False,
        rows_cached_max: int = ROWS_CACHED_MAX,
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self.projection = projection
        self.stamp = stamp
        self.passed_over: list[Poison] = []
        """Events passed over by what was committed last, or is being folded."""
        self._is_committed = True
        self._store = store
        self._before_commit = before_commit
        self._is_strict = is_strict
        self._is_ahead = is_ahead
        self._commit: asyncio.Task[Stamp] | None = None
        self._folded = stamp.position
        self._rows = WorkingSet(stamp, rows_cached_max)

    async def apply(self, batch: Sequence[Decoded], position: int) -> Changes | None:
        """Fold the events of `batch` past the generation's position, and commit with `position` as the new one.

        Args:
            batch: in position order; events at or below the generation's position are passed by.
            position: at least that of the batch's last event; all events up to it have been given.

        Returns:
            what was committed; None when the generation is at `position` already.

        Raises:
            Malformed: strict, and an event cannot be folded; nothing of the batch is committed.
            RowDamaged, Conflict, Unavailable: from the store.
        """
        await self.fold(batch)
        return await self.commit(position)

    async def fold(self, batch: Sequence[Decoded]) -> None:
        """Fold the events of `batch` past what is folded; nothing is committed before `commit`.

        Raises:
            as `apply`.
        """
        if self._is_committed:
            self.passed_over, self._is_committed = [], False
        fold, rows, aggregates, done = self.projection.fold, self._rows, self.projection.aggregates, self._folded
        for decoded in batch:
            at, aggregate, recorded, event, _ = decoded
            if at <= done or (aggregate and aggregate not in aggregates):
                continue
            if recorded is None or event is None:
                self._pass_over(decoded, decoded.reason)
                continue
            try:
                fold(rows, recorded, event)
            except Exception as error:  # noqa: BLE001 - whatever one event does to a fold is looked into below
                await self._fold_again(decoded, recorded, event, error)
            else:
                rows.keep()
        if batch:
            self._folded = max(done, batch[-1].position)

    async def commit(self, position: int) -> Changes | None:
        """Commit what was folded, with `position` as the generation's new one; see `apply`."""
        self._is_committed = True
        if position <= self.stamp.position:
            return None
        self._folded = position
        changes = self._rows.changes(self.stamp, position, len(self.passed_over))
        self._before_commit()
        await self.settle()
        after = self.stamp._replace(
            position=position,
            digest=changes.digest,
            rows=self.stamp.rows + len(changes.added) - len(changes.removed),
            skipped=changes.skipped,
        )
        self._commit = asyncio.ensure_future(self._store.commit(self.stamp, changes))
        self.stamp = after
        if self._is_ahead:
            # Once around the loop: the commit is on its way before the next batch is folded.
            await asyncio.sleep(0)
        else:
            await self.settle()
        return changes

    async def settle(self) -> None:
        """Return once everything applied is committed.

        Raises:
            Conflict, Unavailable: it is not.
        """
        commit, self._commit = self._commit, None
        if commit is None:
            return
        try:
            found = await commit
        finally:
            # Cancelled here, nobody else waits for it.
            commit.cancel()
        if found != self.stamp:
            raise Conflict(f"projection {self.projection.name} came to {found} where {self.stamp} was folded")

    async def _fold_again(self, decoded: Decoded, recorded: RecordedEvent, event: msgspec.Struct, error: Exception) -> None:
        """Fold one event that met a row not read yet, as often as it takes, or pass it over."""
        while isinstance(error, NotLoaded):
            self._rows.discard()
            await self.settle()
            (value,) = await self._store.fetch(self.stamp, [error.key])
            self._rows.load(error.key, value)
            try:
                self.projection.fold(self._rows, recorded, event)
            except Exception as another:  # noqa: BLE001 - as above
                error = another
            else:
                self._rows.keep()
                return
        if isinstance(error, RowDamaged):
            raise error
        self._rows.discard()
        self._pass_over(decoded, f"{type(error).__name__}: {error}")

    def _pass_over(self, decoded: Decoded, reason: str) -> None:
        name = self.projection.name
        if self._is_strict:
            raise Malformed(
                f"projection {name} cannot fold the event at journal position {decoded.position}: {reason}",
                mend="ssmd journal verify",
            )
        envelope = None if decoded.recorded is None else decoded.recorded.envelope
        poison = Poison(
            decoded.position,
            "" if envelope is None else envelope.type,
            decoded.aggregate if envelope is None else f"{envelope.aggregate}/{envelope.aggregate_id}",
            reason,
        )
        self._rows.add(row_key(POISON, position_token(decoded.position)), poison)
        self._rows.keep()
        self.passed_over.append(poison)
