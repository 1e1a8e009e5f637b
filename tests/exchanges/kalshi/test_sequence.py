from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssmd.exchanges.kalshi.sequence import Sequences


def test_in_order_missing_and_late() -> None:
    sequences = Sequences()
    sequences.begin(1)
    assert [sequences.observe(1, seq) for seq in (1, 2, 5, 5, 3, 6)] == [0, 0, 2, -1, -3, 0]


def test_the_first_frame_is_judged_only_after_its_ack() -> None:
    sequences = Sequences()
    assert sequences.observe(1, 40) == 0
    sequences.begin(2)
    assert sequences.observe(2, 3) == 2


def test_data_before_its_ack_counts_on_and_a_second_ack_starts_over() -> None:
    sequences = Sequences()
    assert sequences.observe(1, 1) == 0
    sequences.begin(1)
    assert sequences.observe(1, 2) == 0
    sequences.begin(1)
    assert sequences.observe(1, 1) == 0


def test_follows_takes_only_what_is_in_order() -> None:
    sequences = Sequences()
    assert not sequences.follows(1, 1)
    sequences.begin(1)
    assert [sequences.follows(1, seq) for seq in (1, 3, 1, 2, 3)] == [True, False, False, True, True]
    sequences.end(1)
    assert not sequences.follows(1, 4)
    assert sequences.observe(1, 9) == 0


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 5))
def test_what_is_missing_adds_up_to_what_was_dropped(kept: list[bool], sid: int) -> None:
    sequences = Sequences()
    sequences.begin(sid)
    arrived = [seq for seq, is_kept in enumerate(kept, 1) if is_kept]
    missing = sum(sequences.observe(sid, seq) for seq in arrived)
    assert missing == (arrived[-1] - len(arrived) if arrived else 0)
