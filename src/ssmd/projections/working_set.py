"""The rows a fold works on: what has been read of a generation, what the batch changed, what the event at hand changed.

A fold asks for rows as if all were there. One that has not been read yet ends the attempt with `NotLoaded`; the runner
reads it and folds the event again. So folds stay plain functions, and a failed event leaves nothing behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from ssmd.errors import Malformed
from ssmd.projections.projection import RowType, row_digest, shift_digest
from ssmd.projections.store import Changes, Stamp

ROWS_CACHED_MAX: Final = 100_000
"""Past this many rows in memory everything already committed is forgotten (and read again when needed)."""
KEYS_KNOWN_MAX: Final = 4_000_000
"""Past this many rows (about 100 bytes each) it is no longer remembered which of them there are."""

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


class _Missing(msgspec.Struct, frozen=True):
    """Stands where a key was not known."""


_MISSING: Final = _Missing()
_ADDED: Final = _Missing()


class WorkingSet:
    """Rows of one generation under change (implements `projection.Rows`).

    Args:
        stamp: where the generation is.
        rows_cached_max: see `ROWS_CACHED_MAX`.
    """

    def __init__(self, stamp: Stamp, rows_cached_max: int = ROWS_CACHED_MAX) -> None:
        self._rows_cached_max = rows_cached_max
        self._stored: dict[str, bytes | None] = {}
        # Any: each key's own type of row, or None. (A cast would be a call for each row read.)
        self._now: dict[str, Any] = {}
        # Keys the batch wrote, in order; may hold some whose write was undone.
        self._changed: dict[str, None] = {}
        # What the event at hand wrote over, in order.
        self._undo: list[tuple[str, msgspec.Struct | None]] = []
        # Rows the batch `add`ed that no fold has asked for since.
        self._added: dict[str, msgspec.Struct] = {}
        # The event at hand is folded: its writes belong to the batch. (No function of ours: this is once per event.)
        self.keep: Callable[[], None] = self._undo.clear
        # Hashes of the keys that may be stored but are not in memory. None = not known: the generation had rows already. Of
        # one that began here everything is known, and a key not in it does not exist: nothing needs to be asked.
        self._present: set[int] | None = None if stamp.rows else set()
        # Tables of rows that were `add`ed: never in memory.
        self._forgotten: set[str] = set()

    def get(self, key: str, row: type[RowType]) -> RowType | None:
        known = self._now.get(key, _MISSING)
        if known is not _MISSING:
            return known  # type: ignore[no-any-return]
        if key in self._added:
            return self._take_up(key)  # type: ignore[return-value]
        stored = self._read(key)
        value = self._now[key] = None if stored is None else decode_row(stored, row)
        return value

    def put(self, key: str, value: msgspec.Struct | None) -> None:
        before = self._now.get(key, _MISSING)
        if before is _MISSING:
            if key in self._added:
                before = self._take_up(key)
            else:
                self._read(key)
        self._undo.append((key, before))
        self._now[key] = value
        self._changed[key] = None

    def add(self, key: str, value: msgspec.Struct) -> None:
        if key in self._now or key in self._added:
            self.put(key, value)
            return
        self._added[key] = value
        self._undo.append((key, _ADDED))

    def delete(self, key: str) -> None:
        self.put(key, None)

    def _take_up(self, key: str) -> msgspec.Struct:
        """From now on an added row is one like others: known not to be stored."""
        value = self._now[key] = self._added.pop(key)
        self._stored[key] = None
        self._changed[key] = None
        return value

    def _read(self, key: str) -> bytes | None:
        """Stored bytes of a row before the batch."""
        stored = self._stored.get(key, b"")
        if stored != b"":
            return stored
        if self._present is None or hash(key) in self._present or (self._forgotten and _table(key) in self._forgotten):
            raise NotLoaded(key)
        return None

    def load(self, key: str, value: bytes | None) -> None:
        """Take in what the generation holds at `key`."""
        self._stored[key] = value

    def discard(self) -> None:
        """The event at hand is not folded: its writes never were."""
        for key, before in reversed(self._undo):
            if before is _MISSING:
                self._now.pop(key, None)
            elif before is not _ADDED:
                self._now[key] = before
            elif self._added.pop(key, None) is None:
                self._now[key] = None  # taken up since: known, and not there
        self._undo.clear()

    def changes(self, stamp: Stamp, position: int, skipped: int) -> Changes:
        """What the batch did to the generation at `stamp`. The next batch is based on it: it has to be committed."""
        encode, now, stored, from_bytes, sha256 = _encoder.encode, self._now, self._stored, int.from_bytes, hashlib.sha256
        puts: dict[str, bytes] = {}
        plus = minus = 0
        # As `row_digest`, without the call: this is once per row of a rebuild.
        for key, new in self._added.items():
            value_bytes = puts[key] = encode(new)
            plus += from_bytes(sha256(b"%b\0%b" % (key.encode(), value_bytes)).digest(), "big")
        added, removed = list(puts), list[str]()
        self._forgotten.update({key.partition("/")[0] for key in added})
        for key in self._changed:
            value = now.get(key, _MISSING)
            if value is _MISSING:
                continue
            before = stored.get(key)
            after = stored[key] = None if value is None else encode(value)
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
                plus += from_bytes(sha256(b"%b\0%b" % (key.encode(), after)).digest(), "big")
        self._changed, self._added = {}, {}
        if len(now) > self._rows_cached_max:
            self._forget()
        digest = shift_digest(int(stamp.digest, 16), added=plus, removed=minus)
        return Changes(puts, added, removed, position, f"{digest:064x}", stamp.skipped + skipped)

    def _forget(self) -> None:
        if self._present is not None:
            self._present.update(hash(key) for key, value in self._stored.items() if value is not None)
            if len(self._present) > KEYS_KNOWN_MAX:
                self._present = None
        self._now, self._stored = {}, {}


def _table(key: str) -> str:
    return key.partition("/")[0]
