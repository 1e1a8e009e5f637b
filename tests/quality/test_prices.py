"""Grids hold exactly, at whatever exponents."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.evidence import frame_place, price_ranges
from ssmd.quality.prices import GridRange, PriceCounts
from ssmd.services.venue_trades import grid_of_detail

TAPERED = b"""{"price_ranges":[
{"start":"0.0000","end":"0.1000","step":"0.0010"},
{"start":"0.1000","end":"0.9000","step":"0.0100"},
{"start":"0.9000","end":"1.0000","step":"0.0010"}]}"""


def test_a_tapered_grid() -> None:
    grid = tuple(GridRange(*one) for one in price_ranges(TAPERED))
    counts = PriceCounts()
    for price in (10, 990, 1000, 1100, 8900, 9010, 9990, 10_000):
        counts.add(price, -4)
    counts.add(1_005, -4)
    counts.add(1_005, -4)
    counts.add(99_905, -5)
    assert counts.off_grid(grid) == {(1_005, -4): 2, (99_905, -5): 1}


@given(st.integers(0, 10**6), st.integers(-6, -2), st.integers(1, 500), st.integers(-6, -2))
def test_as_with_fractions(price: int, exponent: int, step: int, grid_exponent: int) -> None:
    grid = GridRange(0, 10**-grid_exponent, step, grid_exponent)
    value = Fraction(price) / 10**-exponent
    assert grid.has(price, exponent) == (0 <= value <= 1 and (value / (Fraction(step) / 10**-grid_exponent)).denominator == 1)


def test_what_is_no_grid() -> None:
    for body in (b'{"price_ranges":[{"start":"0","end":"1","step":"0"}]}', b'{"price_ranges":3}', b"{"):
        try:
            price_ranges(body)
        except Malformed:
            pass
        else:
            raise AssertionError(body)
    assert grid_of_detail('{"price_ranges":3}') == ()
    assert grid_of_detail('{"open_ts":3}') == ()


def test_places_of_frames() -> None:
    assert frame_place(b'{"type":"subscribed","id":1,"msg":{"channel":"trade","sid":7}}') == (7, 0, True, False)
    assert frame_place(b'{"type":"trade","sid":7,"seq":3,"msg":{}}') == (7, 3, False, False)
    assert frame_place(b'{"type":"ticker","sid":7,"seq":3,"msg":{}}') == (7, 0, False, False)
    assert frame_place(b'{"type":"unsubscribed","sid":7,"seq":4}') == (7, 4, False, True)
    assert frame_place(b'{"type":"error","sid":7,"seq":5,"msg":{"code":25}}') == (7, 5, False, True)
    assert frame_place(b'{"type":"error","sid":7,"seq":5,"msg":{"code":6}}') == (7, 5, False, False)
    assert frame_place(b"nonsense") is None
