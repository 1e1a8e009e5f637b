"""What a projection is: a named, versioned, pure fold of journal events into rows.

Rows are text keys with immutable values. A key's parts are tokens (`identifiers.encode_token`) with "/" between, so
every key is unambiguous, holds no NUL, and rows of one kind share a prefix. A row's stored bytes are the JSON of its
struct, keys in the struct's order, so equal rows are equal bytes.

The digest of a view is the sum, mod 2**256, of SHA-256(key NUL value) over its rows: it does not depend on the order
in which rows came about, and changes with one row at the cost of that row. Equal fold, equal position: equal digest,
whatever the batches were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar

import msgspec

from ssmd.clock import date_of, iso_of
from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.identifiers import encode_token
from ssmd.streams.journal import RecordedEvent

RowType = TypeVar("RowType", bound=msgspec.Struct)

EMPTY_DIGEST: Final = 0
"""Digest of a view without rows."""
_MODULUS: Final = 1 << 256


class Rows(Protocol):
    """A view as one fold may see it: rows by key. There is no scan: a fold finds what it needs by key."""

    def get(self, key: str, row: type[RowType]) -> RowType | None:
        """The row at `key`, None = there is none."""
        ...

    def put(self, key: str, value: msgspec.Struct) -> None:
        """Write the row at `key`; `value` is frozen."""
        ...

    def add(self, key: str, value: msgspec.Struct) -> None:
        """Write a row whose key holds this event's position, so that it cannot exist yet: nothing needs to be read."""
        ...

    def delete(self, key: str) -> None:
        """Take the row at `key` away, if there is one."""
        ...


Fold = Callable[[Rows, RecordedEvent, Any], object]
"""`fold(rows, recorded, event)`: `event` is the decoded data of `recorded`. Pure but for `rows`; nobody looks at what it
returns."""


@dataclass(frozen=True)
class Projection:
    """One view of the journal.

    Attributes:
        name: token of keyspaces and commands ("days").
        version: rises whenever the same events would give other rows.
        aggregates: kinds of aggregate whose events it folds; others pass it by.
        fold: see `Fold`.
    """

    name: str
    version: int
    aggregates: frozenset[str]
    fold: Fold


# The same few names come again and again; taking them apart and together once is most of a fold's cost saved.
_token = lru_cache(1 << 16)(encode_token)
_parts = lru_cache(1 << 14)(AggregateId.parse)
_DAY_NS: Final = 86_400 * 1_000_000_000


def row_key(*parts: str) -> str:
    """The key made of `parts`; each is encoded as one token."""
    return "/".join([_token(part) for part in parts])


def id_parts(envelope: Envelope) -> tuple[str, ...]:
    """Parts of the id of the event's aggregate."""
    return _parts(envelope.aggregate, envelope.aggregate_id).parts


@lru_cache(1 << 12)
def _date_of_day(day: int) -> str:
    return date_of(day * _DAY_NS)


def utc_date(ts_ns: int) -> str:
    """As `clock.date_of`."""
    return _date_of_day(ts_ns // _DAY_NS)


@lru_cache(1 << 12)
def _iso_of_second(second: int) -> str:
    return iso_of(second * 1_000_000_000)[:19]


def utc_text(ts_ns: int) -> str:
    """As `clock.iso_of`, for times that come by the second rather than from all over."""
    second, fraction = divmod(ts_ns, 1_000_000_000)
    return f"{_iso_of_second(second)}.{fraction:09d}Z"


def row_prefix(*parts: str) -> str:
    """Prefix of the keys that begin with exactly these parts."""
    return row_key(*parts) + "/"


def position_token(position: int) -> str:
    """A journal position (or session) as a key part that sorts as the number does."""
    return f"{position:020}"


def row_digest(key: str, value: bytes) -> int:
    """What one row adds to the digest."""
    return int.from_bytes(hashlib.sha256(key.encode() + b"\0" + value).digest(), "big")


def shift_digest(digest: int, *, added: int, removed: int) -> int:
    """`digest` with the sums `added` and `removed` of row digests."""
    return (digest + added - removed) % _MODULUS


def digest_text(digest: int) -> str:
    """The digest as 64 hex digits."""
    return f"{digest:064x}"
