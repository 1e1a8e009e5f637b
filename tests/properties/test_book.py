"""The book against a naive one on Decimals, at mixed exponents."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.exchanges.book import Book, Level
from ssmd.schemas.decimals import render
from ssmd.schemas.records import BookDelta, BookSnapshot, Side, SizeMeaning

EXPONENTS = st.tuples(st.sampled_from([-4, -3, -5]), st.sampled_from([-2, -3, 0]))
Sides = dict[Side, dict[Decimal, Decimal]]


def delta(
    price: int, size: int, side: Side, meaning: SizeMeaning = SizeMeaning.CHANGE, exponents: tuple[int, int] = (-4, -2)
) -> BookDelta:
    return BookDelta("f", "T", 0, 1, 1, 1, 0, 1, 1, *exponents, price, size, side, meaning)


def snapshot(
    bids: tuple[tuple[int, int], ...], asks: tuple[tuple[int, int], ...], exponents: tuple[int, int] = (-4, -2)
) -> BookSnapshot:
    return BookSnapshot("f", "T", 0, 1, 1, 1, 0, 1, 1, *exponents, bids, asks, False)


DELTAS = st.builds(
    delta,
    st.integers(1, 30),
    st.integers(-5, 5),
    st.sampled_from([Side.BID, Side.ASK]),
    st.sampled_from(SizeMeaning),
    EXPONENTS,
)
LEVELS = st.dictionaries(st.integers(1, 30), st.integers(1, 9), max_size=5).map(lambda levels: tuple(sorted(levels.items())))
SNAPSHOTS = st.builds(snapshot, LEVELS, LEVELS, EXPONENTS)


def naive(sides: Sides, record: BookDelta | BookSnapshot) -> None:
    def value(mantissa: int, exponent: int) -> Decimal:
        return Decimal(mantissa).scaleb(exponent)

    if isinstance(record, BookSnapshot):
        for side, told in ((Side.BID, record.bids), (Side.ASK, record.asks)):
            sides[side] = {value(p, record.price_exponent): value(s, record.size_exponent) for p, s in told}
        return
    levels, price = sides[record.side], value(record.price, record.price_exponent)
    before = levels.get(price, Decimal(0)) if record.meaning == SizeMeaning.CHANGE else Decimal(0)
    levels[price] = before + value(record.size, record.size_exponent)
    if not levels[price]:
        del levels[price]


def decimals(book: Book, levels: tuple[Level, ...]) -> list[tuple[Decimal, Decimal]]:
    return [(Decimal(render(p, book.price_exponent)), Decimal(render(s, book.size_exponent))) for p, s in levels]


@settings(max_examples=150, deadline=None)
@given(st.lists(DELTAS | SNAPSHOTS, max_size=40))
def test_it_is_the_naive_book(records: list[BookDelta | BookSnapshot]) -> None:
    book, sides = Book("T"), {Side.BID: {}, Side.ASK: {}}  # type: tuple[Book, Sides]
    was_crossed = False
    for record in records:
        negative_before = {(side, price) for side in sides for price, size in sides[side].items() if size < 0}
        naive(sides, record)
        found = {finding.what for finding in book.apply(record)}
        bids, asks = book.levels()
        want_bids = sorted(((p, s) for p, s in sides[Side.BID].items() if s > 0), reverse=True)
        want_asks = sorted((p, s) for p, s in sides[Side.ASK].items() if s > 0)
        assert (decimals(book, bids), decimals(book, asks)) == (want_bids, want_asks)
        assert book.best_bid == (bids[0] if bids else None)
        assert book.best_ask == (asks[0] if asks else None)
        is_crossed = bool(want_bids and want_asks and want_bids[0][0] >= want_asks[0][0])
        assert ("crossed" in found) == (is_crossed and not was_crossed)
        was_crossed = is_crossed
        negative = {(side, price) for side in sides for price, size in sides[side].items() if size < 0}
        if negative - negative_before:
            assert "negative-level" in found
        if not negative:
            assert "negative-level" not in found
    assert book.levels(2) == (bids[:2], asks[:2]) if records else book.levels() == ((), ())


@given(st.lists(DELTAS, max_size=15))
def test_the_digest_is_of_values_not_of_exponents(deltas: list[BookDelta]) -> None:
    book, finer = Book("T"), Book("T")
    finer.apply(snapshot((), (), (-9, -6)))
    for record in deltas:
        book.apply(record)
        finer.apply(record)
    assert finer.price_exponent == -9
    assert finer.digest == book.digest
    book.apply(delta(77, 1, Side.BID))
    assert finer.digest != book.digest


def test_findings_say_what_and_where() -> None:
    book = Book("T")
    assert [finding.detail for finding in book.apply(delta(4000, -150, Side.BID))] == ["T: bid 0.4000 has size -1.50"]
    assert book.best_bid is None
    assert book.apply(delta(4000, 350, Side.BID)) == ()
    assert book.best_bid == Level(4000, 200)
    crossed = book.apply(delta(3900, 100, Side.ASK))
    assert [(finding.what, finding.detail) for finding in crossed] == [
        ("crossed", "T: best bid 0.4000 is not below best ask 0.3900")
    ]
    assert [finding.what for finding in book.apply(delta(1, 1, Side.UNKNOWN))] == ["unknown-side"]


@pytest.mark.parametrize("records", [[], [snapshot((), ())], [delta(1, 1, Side.BID), delta(1, -1, Side.BID)]])
def test_empty_books_are_equal(records: list[BookDelta | BookSnapshot]) -> None:
    book = Book("T")
    for record in records:
        book.apply(record)
    assert book.levels() == ((), ())
    assert book.digest == Book("T").digest
