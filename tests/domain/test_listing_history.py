"""What was true when, by what was known when: against a naive model that replays what each day knew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssmd.domain.listing import (
    Change,
    ListingEvent,
    Market,
    MarketAmended,
    MarketChanged,
    MarketClosed,
    MarketDelisted,
    MarketDetermined,
    MarketListed,
    MarketSettled,
    Standing,
    evolve_market,
)
from ssmd.domain.listing_history import KnownEvent, standing_at

MARKET = Market("KX-1", title="one", open_ns=5)


def test_a_fact_learned_late_counts_from_when_it_was_true() -> None:
    events = [
        KnownEvent(1, 10, MarketListed(MARKET)),
        KnownEvent(2, 50, MarketClosed("KX-1", 30)),
        KnownEvent(3, 60, MarketSettled("KX-1", 55, "yes", "1.00")),
    ]
    stages = {
        valid_ns: found.stage if (found := standing_at(events, valid_ns)) else None for valid_ns in (4, 5, 29, 30, 54, 55)
    }
    assert stages == {4: None, 5: "listed", 29: "listed", 30: "closed", 54: "closed", 55: "settled"}
    # By what was known at 20 nobody knew that it would be closed at 30.
    known = standing_at(events[:1], 40)
    assert known is not None
    assert known.stage == "listed"


def test_what_was_never_listed_by_then_is_nothing() -> None:
    assert standing_at([], 10) is None
    assert standing_at([KnownEvent(1, 10, MarketDelisted("KX-1", "gone"))], 20) is None


TIMES = st.integers(1, 60)
FACTS: st.SearchStrategy[ListingEvent] = st.one_of(
    st.builds(
        MarketListed, st.builds(Market, st.just("KX-1"), title=st.sampled_from("ab"), open_ns=st.sampled_from([0, 3, 30]))
    ),
    st.builds(MarketChanged, st.just("KX-1"), st.sampled_from("cd").map(lambda new: (Change("title", "", new),))),
    st.builds(MarketClosed, st.just("KX-1"), st.sampled_from([0, 7, 20])),
    st.builds(MarketDetermined, st.just("KX-1"), TIMES, st.sampled_from(["yes", "no"])),
    st.builds(MarketAmended, st.just("KX-1"), TIMES, st.just("listed"), st.just(""), st.just("")),
    st.builds(MarketDelisted, st.just("KX-1"), st.just("gone")),
)


@given(st.lists(st.tuples(TIMES, FACTS), max_size=12), TIMES)
def test_equals_a_model_that_steps_through_every_instant(told: list[tuple[int, ListingEvent]], valid_ns: int) -> None:
    events = [KnownEvent(position, ts_ns, fact) for position, (ts_ns, fact) in enumerate(told, 1)]
    naive: Standing | None = None
    was_listed = False
    for instant in range(valid_ns + 1):
        for one in events:
            if one.valid_ns == instant:
                naive = evolve_market(naive or Standing(Market("KX-1")), one.event)
                was_listed = was_listed or isinstance(one.event, MarketListed)
    assert standing_at(events, valid_ns) == (naive if was_listed else None)
