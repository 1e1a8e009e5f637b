"""`transforms.renormalize`: today's mapper gives again what it gave, over midnight too; and what differs is shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ssmd.archive.reading import Wanted
from ssmd.clock import date_of
from ssmd.errors import Malformed
from ssmd.exchanges.adapter import Mapped
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.blocks import Entry
from ssmd.schemas.records import KIND_OF, BookDelta
from ssmd.transforms.renormalize import compare

WANTED = Wanted("test", "kalshi", "2026-05-14", KalshiMapper.version)
MIDNIGHT = 1_778_803_200_000_000_000


def mapper(session: int) -> KalshiMapper:
    return KalshiMapper("kalshi", session)


def counts(world: Any, date: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in world.records:
        if date_of(record.ts_recv_ns) == date:
            kind = KIND_OF[type(record)]
            found[kind] = found.get(kind, 0) + 1
    return found


async def test_the_same_records_come_out_again_gaps_included(make_world: Any) -> None:
    world = make_world()
    for connection in ("east", "west"):
        for _ in range(2):
            await world.session(count=150, connection=connection)
    await world.complete()
    found = await compare(world.storage, WANTED, mapper)
    assert found.is_equal
    assert found.made == found.archived == counts(world, WANTED.date)
    assert found.made["gap"] > 0


async def test_a_session_over_midnight_is_mapped_from_its_beginning(make_world: Any) -> None:
    world = make_world()
    world.ts = MIDNIGHT - 100_000_000
    await world.session(count=300)
    await world.complete()
    for date in ("2026-05-14", "2026-05-15"):
        found = await compare(world.storage, WANTED._replace(date=date), mapper)
        assert found.is_equal
        assert found.made == counts(world, date)
        assert found.made["book"] > 50


class Other(KalshiMapper):
    """A later version that sees one size otherwise, and drops every trade."""

    version = KalshiMapper.version + 1

    def map(self, entry: Entry) -> Mapped:
        mapped = super().map(entry)
        records = [
            msgspec.structs.replace(one, size=one.size + 1) if isinstance(one, BookDelta) and one.n == 30 else one
            for one in mapped.records
            if KIND_OF[type(one)] != "trade"
        ]
        return Mapped(records, mapped.facts)


async def test_what_differs_is_shown(make_world: Any) -> None:
    world = make_world()
    await world.session(count=150)
    await world.complete()
    found = await compare(world.storage, WANTED, lambda session: Other("kalshi", session))
    assert (found.mappers_archived, found.mapper_today) == ((KalshiMapper.version,), KalshiMapper.version + 1)
    (changed,) = [record for record in world.records if isinstance(record, BookDelta) and record.n == 30]
    trades = [record for record in world.records if KIND_OF[type(record)] == "trade"]
    assert found.differing == 1 + len(trades)
    (shown,) = [one for one in found.differences if one.kind == "book"]
    assert (shown.n, shown.archived, shown.made) == (30, {"size": str(changed.size)}, {"size": str(changed.size + 1)})
    assert [one.n for one in found.differences if one.made is None] == [record.n for record in trades][
        : len(found.differences) - 1
    ]


async def test_a_session_without_its_beginning_cannot_be_mapped(make_world: Any) -> None:
    world = make_world()
    session = world.ts
    entries = world.entries("main", 100, ("A",))
    await world.write("main", session, entries[10:])
    await world.complete()
    with pytest.raises(Malformed, match="entry 1 is not in the raw archive, 11 is next"):
        await compare(world.storage, WANTED, mapper)
