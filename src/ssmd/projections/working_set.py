"""The rows a fold works on: what has been read of a generation, what the batch changed, what the event at hand changed.

A fold asks for rows as if all were there. One that has not been read yet ends the attempt with `NotLoaded`; the runner
reads it and folds the event again. So folds stay plain functions, and a failed event leaves nothing behind.
"""

from __future__ import annotations

from typing import Final, cast

import msgspec

from ssmd.errors import Malformed
from ssmd.projections.projection import RowType, row_digest, shift_digest
from ssmd.projections.store import Changes, Stamp

ROWS_CACHED_MAX: Final = 100_000
"""Past this many rows in memory everything already committed is forgotten (and read again when needed)."""

_encoder: Final = msgspec.json.Encoder()
_decoders: Final[dict[type[msgspec.Struct], msgspec.json.Decoder[msgspec.Struct]]] = {}


class NotLoaded(Exception):
    """The row at `key` has to be read first (control flow between the working set and the folder, no error)."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class RowDamaged(Malformed):
    """A stored row does not have the shape its projection gives it."""


def encode_row(row: msgspec.Struct) -> bytes:
    """A row's stored bytes."""
    return _encoder.encode(row)


def decode_row(value: bytes, row: type[RowType]) -> RowType:
    """The row in stored bytes.

    Raises:
        RowDamaged: the store holds something else.
    """
    decoder = _decoders.get(row)
    if decoder is None:
        decoder = _decoders[row] = cast("msgspec.json.Decoder[msgspec.Struct]", msgspec.json.Decoder(row))
    try:
        return cast("RowType", decoder.decode(value))
    except msgspec.DecodeError as error:
        raise RowDamaged(f"a stored row is no {row.__name__}: {error}", mend="ssmd projection rebuild") from error


class WorkingSet:
    """Rows of one generation under change (implements `projection.Rows`).

    Args:
        stamp: where the generation is.
        rows_cached_max: see `ROWS_CACHED_MAX`.
    """

    def __init__(self, stamp: Stamp, rows_cached_max: int = ROWS_CACHED_MAX) -> None:
        self._rows_cached_max = rows_cached_max
        self._stored: dict[str, bytes | None] = {}
        self._values: dict[str, msgspec.Struct | None] = {}
        self._batch: dict[str, msgspec.Struct | None] = {}
        self._event: dict[str, msgspec.Struct | None] = {}
        self._added: set[str] = set()
        # A generation without rows is known whole: a key not seen here does not exist.
        self._is_whole = stamp.rows == 0
        self._forgotten: set[str] = set()

    def get(self, key: str, row: type[RowType]) -> RowType | None:
        for layer in (self._event, self._batch, self._values):
            if key in layer:
                return cast("RowType | None", layer[key])
        stored = self._read(key)
        value = None if stored is None else decode_row(stored, row)
        self._values[key] = value
        return value

    def put(self, key: str, value: msgspec.Struct) -> None:
        if key not in self._batch:
            self._read(key)
        self._event[key] = value

    def add(self, key: str, value: msgspec.Struct) -> None:
        self._event[key] = value
        self._added.add(key)

    def delete(self, key: str) -> None:
        if key not in self._batch:
            self._read(key)
        self._event[key] = None

    def _read(self, key: str) -> bytes | None:
        """Stored bytes of a row before the batch."""
        try:
            return self._stored[key]
        except KeyError:
            if key in self._added or (self._is_whole and _table(key) not in self._forgotten):
                return None
            raise NotLoaded(key) from None

    def load(self, key: str, value: bytes | None) -> None:
        """Take in what the generation holds at `key`."""
        self._stored[key] = value

    def keep(self) -> None:
        """The event at hand is folded: its writes belong to the batch."""
        self._batch.update(self._event)
        self._event = {}

    def discard(self) -> None:
        """The event at hand is not folded: its writes never were."""
        self._added.difference_update(self._event.keys() - self._batch.keys())
        self._event = {}

    def changes(self, stamp: Stamp, position: int, skipped: int) -> tuple[Changes, dict[str, bytes | None]]:
        """What the batch did to the generation at `stamp`, and the encoded rows to `settle` once that is committed."""
        puts: dict[str, bytes] = {}
        added: list[str] = []
        removed: list[str] = []
        encoded: dict[str, bytes | None] = {}
        plus = minus = 0
        for key, value in self._batch.items():
            before = None if key in self._added else self._read(key)
            after = None if value is None else _encoder.encode(value)
            encoded[key] = after
            if before == after:
                continue
            if before is None:
                added.append(key)
            else:
                minus += row_digest(key, before)
            if after is None:
                removed.append(key)
            else:
                puts[key] = after
                plus += row_digest(key, after)
        digest = shift_digest(int(stamp.digest, 16), added=plus, removed=minus)
        return Changes(puts, added, removed, position, f"{digest:064x}", stamp.skipped + skipped), encoded

    def settle(self, encoded: dict[str, bytes | None]) -> None:
        """The batch is committed: it is what the generation holds now."""
        for key, value in encoded.items():
            if key in self._added:
                self._forgotten.add(_table(key))
            else:
                self._stored[key] = value
                self._values[key] = self._batch[key]
        self._batch = {}
        self._added = set()
        if len(self._stored) > self._rows_cached_max:
            self._stored = {}
            self._values = {}
            self._is_whole = False


def _table(key: str) -> str:
    return key.partition("/")[0]
