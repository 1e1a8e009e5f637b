"""Claims that overlap become one list: what is painted over what, and nothing twice. Against a painter, instant by instant."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ssmd.quality.coverage import Verdict
from ssmd.quality.intervals import Claim, Interval, channel_of, painted, sums

_claims = st.lists(
    st.builds(
        Claim,
        st.sampled_from(["main", "other"]),
        st.sampled_from(["", "trade", "orderbook_delta"]),
        st.sampled_from(["verified", "unverifiable", "missing", "repaired"]),
        st.sampled_from(["", "x"]),
        st.sampled_from(["g1", "g2"]),
        st.integers(0, 40),
        st.integers(0, 40),
        st.just(1),
        st.just(False),
    ),
    max_size=12,
)


def at_an_instant(claims: list[Claim], channel: str, at: int) -> str:
    best = ""
    for connection in ("main", "other"):
        here = [
            one
            for one in claims
            if one.connection == connection and one.channel in {"", channel} and one.start_ns <= at < one.end_ns
        ]
        missing = {one.gap_id for one in here if one.verdict == "missing"}
        repaired = {one.gap_id for one in here if one.verdict == "repaired"}
        told = {one.verdict for one in here}
        if missing:
            found = "repaired" if missing <= repaired else "missing"
        else:
            found = next((one for one in ("unverifiable", "verified") if one in told), "")
        ranks = ("", "missing", "unverifiable", "repaired", "verified")
        best = max(best, found, key=ranks.index)
    return best


@given(_claims, st.sampled_from(["trade", "orderbook_delta"]), st.integers(0, 20), st.integers(0, 40))
def test_as_a_naive_painter(claims: list[Claim], channel: str, start: int, length: int) -> None:
    end = start + length
    found = painted(claims, channel, start, end)
    canvas = {at: verdict for at in range(start, end) if (verdict := at_an_instant(claims, channel, at))}
    assert {at: one.verdict for one in found for at in range(one.start_ns, one.end_ns)} == canvas
    assert all(before.end_ns < after.start_ns or before[2:] != after[2:] for before, after in itertools.pairwise(found))
    assert sum(sums(found).values()) == len(canvas)


def claim(verdict: Verdict, start: int, end: int, gap_id: str = "", *, session: int = 1, is_open: bool = False) -> Claim:
    cause = "killed" if verdict == "missing" else ""
    return Claim("main", "trade", verdict, cause, gap_id, start, end, session, is_open)


def test_a_hole_that_nobody_ended_ends_where_a_later_session_has_the_ticker() -> None:
    hole = claim("missing", 10, 90, "g", is_open=True)
    assert painted([hole, claim("verified", 0, 10)], "trade", 0, 100) == (
        Interval(0, 10, "verified", ""), Interval(10, 90, "missing", "killed"),
    )  # fmt: skip
    later = claim("verified", 40, 60, session=2)
    assert painted([hole, later], "trade", 0, 100) == (
        Interval(10, 40, "missing", "killed"), Interval(40, 60, "verified", ""),
    )  # fmt: skip


def test_the_book_says_how_a_ticker_is_covered_where_it_has_one() -> None:
    assert channel_of([]) == ""
    assert channel_of([claim("verified", 0, 1)]) == "trade"
    assert (
        channel_of([claim("verified", 0, 1), claim("missing", 0, 1)._replace(channel="orderbook_delta")]) == "orderbook_delta"
    )
