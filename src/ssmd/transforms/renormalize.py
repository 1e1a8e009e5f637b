"""Today's mapper over a day's raw lines, held against the records that are archived.

A mapper needs its session from the first entry, and a session's number is the time it was made: sessions that began on
an earlier date are read from there on, and their earlier records thrown away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

import msgspec

from ssmd.archive.reading import Wanted, raw_lines, records
from ssmd.archive.shelf_manifest import raw_shelf
from ssmd.archive.storage import Storage
from ssmd.archive.versions import resolved
from ssmd.clock import date_of
from ssmd.errors import Malformed
from ssmd.exchanges.adapter import Mapper
from ssmd.schemas.records import KIND_OF, Record

SHOWN_MAX: Final = 20
DAYS_BACK_MAX: Final = 31
"""A session is not looked for further back: venues close connections long before."""

MakeMapper = Callable[[int], Mapper]


class Difference(msgspec.Struct, frozen=True):
    """A place where they differ: `archived` or `made` is None where there is none, else the record's fields that differ."""

    session: int
    n: int
    index: int
    kind: str
    ticker: str
    archived: dict[str, str] | None
    made: dict[str, str] | None


class Comparison(msgspec.Struct, frozen=True):
    """What came out. `made` and `archived` are records by kind; `differences` the first `SHOWN_MAX` of `differing`.

    `mappers_archived`: versions the date has records of, one where one was asked for; `by_session`: `differing`, by session.
    """

    date: str
    mappers_archived: tuple[int, ...]
    mapper_today: int
    made: dict[str, int]
    archived: dict[str, int]
    differing: int
    differences: tuple[Difference, ...]
    by_session: dict[int, int]

    @property
    def is_equal(self) -> bool:
        return not self.differing


class MappedEntry(NamedTuple):
    """What became of one entry of the date: `ordinal` counts those of its connection from 1."""

    connection: str
    session: int
    ordinal: int
    records: Sequence[Record]


async def mapped(
    storage: Storage, wanted: Wanted, make_mapper: MakeMapper, day_of: Callable[[int], str] = date_of
) -> AsyncIterator[list[MappedEntry]]:
    """Every entry of a date as `make_mapper`'s mappers see it, in the order of the raw lines, in batches.

    Args:
        day_of: the archive's date of an instant (UTC ns).

    Raises:
        Malformed: a session's beginning is not archived, or entries of it are missing: its records would be others.
    """
    mappers: dict[tuple[str, int], tuple[Mapper, int]] = {}
    ordinals: Counter[str] = Counter()
    for on_date in await _dates(storage, wanted, day_of):
        async for lines in raw_lines(storage, raw_shelf(wanted.env, wanted.feed, on_date)):
            made: list[MappedEntry] = []
            for connection, session, entry in lines:
                key = connection, session
                mapper, reached = mappers.get(key) or (make_mapper(session), 0)
                if entry.n != reached + 1:
                    raise Malformed(
                        f"session {session} of {connection}: entry {reached + 1} is not in the raw archive, {entry.n} is next",
                        mend="ssmd data verify",
                    )
                mappers[key] = mapper, entry.n
                records_of = mapper.map(entry).records
                if on_date == wanted.date:
                    ordinals[connection] += 1
                    made.append(MappedEntry(connection, session, ordinals[connection], records_of))
            if made:
                yield made


async def flattened(batches: AsyncIterator[list[MappedEntry]]) -> AsyncIterator[Sequence[Record]]:
    """The records alone."""
    async for batch in batches:
        if found := [record for entry in batch for record in entry.records]:
            yield found


async def _dates(storage: Storage, wanted: Wanted, day_of: Callable[[int], str]) -> list[str]:
    """The date, and those before it on which its sessions began."""
    first = wanted.date
    async for lines in raw_lines(storage, raw_shelf(wanted.env, wanted.feed, wanted.date)):
        for session in {line.session for line in lines}:
            first = min(first, day_of(session))
    day, last = date.fromisoformat(first), date.fromisoformat(wanted.date)
    day = max(day, last - timedelta(days=DAYS_BACK_MAX))
    return [(day + timedelta(days=number)).isoformat() for number in range((last - day).days + 1)]


async def compare(storage: Storage, wanted: Wanted, make_mapper: MakeMapper) -> Comparison:
    """Make the records of a date again and hold them against those archived (`wanted.mapper`).

    Raises:
        Malformed, Unavailable: as `mapped` and `reading.records`.
    """
    return await compared(storage, wanted, flattened(mapped(storage, wanted, make_mapper)), make_mapper(1).version)


async def compared(storage: Storage, wanted: Wanted, fresh: AsyncIterator[Sequence[Record]], version: int) -> Comparison:
    """Hold `fresh`, records of a date in order that mapper `version` made, against the archived ones; it is read to its end.

    Raises:
        Malformed, Unavailable: as `fresh` and `reading.records`.
    """
    known = await resolved(storage, wanted._replace(keeps_duplicates=True))
    made, archived = _Counted(), _Counted()
    found = _Differences()
    ours = _Ahead(fresh, made)
    theirs = _Ahead(records(storage, known), archived)
    while True:
        one, other = await ours.first(), await theirs.first()
        if one is None and other is None:
            break
        if one == other:
            ours.pop()
            theirs.pop()
            continue
        place, at = _place(one), _place(other)
        if other is None or (one is not None and place < at):
            found.add(None, one)
            ours.pop()
        elif one is None or at < place:
            found.add(other, None)
            theirs.pop()
        else:
            found.add(other, one)
            ours.pop()
            theirs.pop()
    mappers = (wanted.mapper,) if wanted.mapper else known.versions.mappers if known.versions else ()
    return Comparison(
        wanted.date, mappers, version, made.by_kind, archived.by_kind, found.count, tuple(found.shown), found.by_session
    )


def _place(record: Record | None) -> tuple[int, int, int, int]:
    return (0, 0, 0, 0) if record is None else (record.ts_recv_ns, record.session, record.n, record.index)


class _Counted:
    def __init__(self) -> None:
        self.by_kind: dict[str, int] = {}

    def add(self, record: Record) -> None:
        kind = KIND_OF[type(record)]
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1


class _Ahead:
    """Batches, one item at a time, with a look at the next."""

    def __init__(self, batches: AsyncIterator[Sequence[Record]], counted: _Counted) -> None:
        self._batches = batches
        self._counted = counted
        self._held: Sequence[Record] = ()
        self._at = 0

    async def first(self) -> Record | None:
        while self._at >= len(self._held):
            batch = await anext(self._batches, None)
            if batch is None:
                return None
            self._held, self._at = batch, 0
        return self._held[self._at]

    def pop(self) -> None:
        self._counted.add(self._held[self._at])
        self._at += 1


class _Differences:
    def __init__(self) -> None:
        self.count = 0
        self.by_session: dict[int, int] = {}
        self.shown: list[Difference] = []

    def add(self, archived: Record | None, made: Record | None) -> None:
        self.count += 1
        record = made or archived
        if record is not None:
            self.by_session[record.session] = self.by_session.get(record.session, 0) + 1
        if record is None or len(self.shown) >= SHOWN_MAX:
            return
        self.shown.append(
            Difference(
                record.session, record.n, record.index, KIND_OF[type(record)], record.ticker,
                _fields(archived, made), _fields(made, archived),
            )
        )  # fmt: skip


def _fields(record: Record | None, other: Record | None) -> dict[str, str] | None:
    if record is None:
        return None
    is_alike = type(record) is type(other)
    return {
        name: repr(getattr(record, name))
        for name in record.__struct_fields__
        if not is_alike or getattr(record, name) != getattr(other, name)
    }
