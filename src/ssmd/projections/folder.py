"""Folding batches of journal events into one generation of one projection, each batch in one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from ssmd.domain.decider import Catalogue
from ssmd.errors import Malformed
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
    decoded = []
    for recorded in batch:
        if isinstance(recorded, PoisonEvent):
            tokens = recorded.subject.split(".")
            aggregate = tokens[2] if len(tokens) > 2 else ""
            if aggregate in aggregates or not aggregate:
                decoded.append(Decoded(recorded.position, aggregate, None, None, recorded.reason))
            continue
        envelope = recorded.envelope
        if envelope.aggregate not in aggregates:
            continue
        try:
            event = catalogue.decode(envelope.type, envelope.data)
        except Malformed as error:
            decoded.append(Decoded(recorded.position, envelope.aggregate, recorded, None, error.message))
        else:
            decoded.append(Decoded(recorded.position, envelope.aggregate, recorded, event))
    return decoded


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
        before_commit: called when a batch is folded and nothing of it is committed.
    """

    def __init__(
        self,
        projection: Projection,
        store: FoldableRows,
        stamp: Stamp,
        *,
        is_strict: bool = False,
        rows_cached_max: int = ROWS_CACHED_MAX,
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self.projection = projection
        self.stamp = stamp
        self._store = store
        self._is_strict = is_strict
        self._before_commit = before_commit
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
        if position <= self.stamp.position:
            return None
        skipped = 0
        for decoded in batch:
            if decoded.position <= self.stamp.position:
                continue
            if decoded.aggregate and decoded.aggregate not in self.projection.aggregates:
                continue
            skipped += await self._fold(decoded)
        changes, encoded = self._rows.changes(self.stamp, position, skipped)
        self._before_commit()
        self.stamp = await self._store.commit(self.stamp, changes)
        self._rows.settle(encoded)
        return changes

    async def _fold(self, decoded: Decoded) -> int:
        """Fold one event; 1 when it was passed over."""
        reason = decoded.reason
        while decoded.recorded is not None and decoded.event is not None:
            try:
                self.projection.fold(self._rows, decoded.recorded, decoded.event)
            except NotLoaded as missing:
                self._rows.discard()
                (value,) = await self._store.fetch(self.stamp, [missing.key])
                self._rows.load(missing.key, value)
            except RowDamaged:
                raise
            except Exception as error:  # noqa: BLE001 - whatever one event does to a fold is recorded with its position
                self._rows.discard()
                reason = f"{type(error).__name__}: {error}"
                break
            else:
                self._rows.keep()
                return 0
        self._pass_over(decoded, reason)
        return 1

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
