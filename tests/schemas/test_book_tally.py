"""What equal changes come to is what taking each apart gives; where that cannot be told, it is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.archive.segment_index import _book_groups, _unlike_book_groups
from ssmd.schemas.book_tally import tally
from ssmd.schemas.codecs import encode_record
from ssmd.schemas.records import BookDelta, Side, SizeMeaning

BID, ASK, UNKNOWN = Side.BID, Side.ASK, Side.UNKNOWN
CHANGE, TOTAL = SizeMeaning.CHANGE, SizeMeaning.TOTAL


def change(
    n: int, ticker: str = "A-1", price: int = 40, size: int = 7, side: Side = BID, meaning: SizeMeaning = CHANGE, **given: int
) -> BookDelta:
    session, sid, exponent = given.get("session", 5), given.get("sid", 1), given.get("exponent", -4)
    return BookDelta("kalshi", ticker, n, 100 + n, session, n, n % 3, sid, 2 * n, exponent, -2, price, size, side, meaning)


changes = st.builds(
    change,
    n=st.integers(1, 1000),
    ticker=st.sampled_from(["A-1", "B-2", "A-3"]) | st.integers(0, 60).map(lambda number: f"T{number:02}"),
    price=st.integers(1, 3),
    size=st.integers(-2, 2),
    side=st.sampled_from([BID, BID, BID, ASK, UNKNOWN]) | st.just(BID),
    meaning=st.sampled_from([CHANGE] * 20 + [TOTAL]),
    session=st.sampled_from([5] * 20 + [6]),
    sid=st.sampled_from([1] * 20 + [2]),
)


@given(st.lists(st.lists(changes, min_size=1, max_size=80), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_groups_are_those_of_the_columns(written: Sequence[Sequence[BookDelta]]) -> None:
    contents = [b"".join(map(encode_record, some)) for some in written]
    assert tally(contents) is not None
    assert list(_book_groups(3, contents)) == list(_unlike_book_groups(3, contents))


def test_a_ticker_whose_bytes_stand_elsewhere_too_is_found_in_its_own_place() -> None:
    data = b"".join(encode_record(change(n, ticker=ticker)) for n, ticker in enumerate(["B-2", "A-1", "B-2", "A-1", "B-2"], 1))
    found = tally([data])
    assert found is not None
    assert (found.counts, found.first, found.last) == ({"B-2": 3, "A-1": 2}, {"B-2": 0, "A-1": 1}, {"B-2": 4, "A-1": 3})
    assert found.sums == {("B-2", -4, -2, 1, 40): 21, ("A-1", -4, -2, 1, 40): 14}
    assert found.place(3) == (104, 5, 4, 1, 1, 8)
    assert found.time_bounds() == (101, 105)
    assert (found.is_summable, found.is_one_subscription) == (True, True)


@pytest.mark.parametrize(
    "contents",
    [
        [],
        [b""],
        [encode_record(change(1)), encode_record(change(2, ticker="A-MUCH-LONGER-NAME"))],
        [encode_record(change(1)) + encode_record(change(2, exponent=-5))],
        [encode_record(change(1))[:-8]],
        [encode_record(change(1))[:-4] + bytes(3)],
        [encode_record(change(1))[:-8] + b"\x03" + encode_record(change(1))[-7:]],
    ],
)
def test_what_is_not_of_one_kind_is_left_to_others(contents: Sequence[bytes]) -> None:
    assert tally(contents) is None
