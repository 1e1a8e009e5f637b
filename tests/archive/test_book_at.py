"""`transforms.book_at`: the book a naive fold of everything gives, and every reason to doubt it."""

from __future__ import annotations

from typing import Any

import pytest

from ssmd.archive.reading import Wanted
from ssmd.domain.capture import GapOpened
from ssmd.errors import Rejected
from ssmd.exchanges.book import Book
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.decimals import render
from ssmd.schemas.records import BookDelta, BookSnapshot
from ssmd.transforms.book_at import book_at

WANTED = Wanted("test", "kalshi", "2026-05-14", KalshiMapper.version)
TICKER = "A-1"


@pytest.fixture
async def world(make_world: Any) -> Any:
    made = make_world()
    for _ in range(2):
        await made.session(count=150)
    await made.complete()
    return made


def naive(world: Any, at_ns: int) -> tuple[Book, BookSnapshot, int]:
    """The book, the snapshot it rests on, and the changes since."""
    book, first, deltas = Book(TICKER), None, 0
    for record in world.records:
        if record.ticker == TICKER and record.ts_recv_ns <= at_ns and isinstance(record, BookSnapshot | BookDelta):
            book.apply(record)
            first, deltas = (record, 0) if isinstance(record, BookSnapshot) else (first, deltas + 1)
    assert first is not None
    return book, first, deltas


async def test_at_any_instant_the_book_is_the_fold_of_all_before(world: Any) -> None:
    instants = [line.entry.ts_recv_ns for line in world.lines[8::23]]
    for at_ns in instants:
        found = await book_at(world.storage, WANTED, TICKER, at_ns)
        book, first, deltas = naive(world, at_ns)
        assert (found.digest, found.snapshot_ns, found.seq_first, found.deltas) == (
            book.digest, first.ts_recv_ns, first.seq, deltas
        )  # fmt: skip
        bids, asks = book.levels()
        assert found.bids == tuple((render(one.price, -4), render(one.size, -2)) for one in bids)
        assert found.asks == tuple((render(one.price, -4), render(one.size, -2)) for one in asks)
        shallow = await book_at(world.storage, WANTED, TICKER, at_ns, depth=2)
        assert (shallow.digest, shallow.bids) == (found.digest, found.bids[:2])


async def test_between_sessions_it_is_not_verified(world: Any) -> None:
    last_of_first = max(line.entry.ts_recv_ns for line in world.lines if line.session == world.lines[0].session)
    found = await book_at(world.storage, WANTED, TICKER, last_of_first)
    assert not found.verified
    assert any("closed-by-venue" in reason for reason in found.reasons)


async def test_a_gap_that_only_the_journal_knows_yet_counts(make_world: Any) -> None:
    world = make_world()
    entries = world.entries("main", 60, (TICKER,))
    await world.write("main", entries[0].ts_recv_ns, entries[:-1])  # killed: no word on its tape of how it ended
    at_ns = entries[-2].ts_recv_ns
    await world.complete()
    before = await book_at(world.storage, WANTED, TICKER, at_ns + 5)
    assert not any("gap" in reason for reason in before.reasons)
    hole = GapOpened(9, 1, 0, at_ns + 9, "g-1", "killed", at_ns, "", 0, 0, 0, (TICKER,), "it was killed")
    await world.fact("main", hole)
    await world.manifests()
    after = await book_at(world.storage, WANTED, TICKER, at_ns + 5)
    assert not after.verified
    assert any(reason.startswith("gap g-1 (killed)") for reason in after.reasons)
    assert after.digest == before.digest


async def test_without_a_snapshot_there_is_no_book(world: Any) -> None:
    with pytest.raises(Rejected, match="no snapshot of the book of NOPE"):
        await book_at(world.storage, WANTED, "NOPE", world.ts)
    with pytest.raises(Rejected, match="no snapshot"):
        await book_at(world.storage, WANTED, TICKER, world.lines[0].entry.ts_recv_ns)
