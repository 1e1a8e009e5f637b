"""The order of one connection's blocks, whatever order they come in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssmd.archive.continuity import HOLD_BYTES_MAX, NOWHERE, Continuity, Place, Unit


def chain(*sizes: tuple[int, int]) -> list[Unit[int]]:
    """Blocks of (session, entries), one after another."""
    units: list[Unit[int]] = []
    link, n, last_session = None, 0, 0
    for at, (session, entries) in enumerate(sizes):
        n = n if session == last_session else 0
        own = f"digest {at}"
        units.append(Unit("main", session, n + 1, n + entries, link, own, "2026-05-14", "", at + 1, at + 1, f"id {at}", 10, at))
        link, n, last_session = own, n + entries, session
    return units


BLOCKS = chain((5, 1), (5, 3), (5, 2), (9, 1), (9, 4), (12, 1))


def test_blocks_in_order_go_on_at_once() -> None:
    continuity: Continuity[int] = Continuity()
    assert [continuity.offer(unit) for unit in BLOCKS] == [[unit] for unit in BLOCKS]
    assert continuity.reached == Place(12, 1)
    assert not continuity.is_holding


@given(st.permutations(BLOCKS), st.lists(st.sampled_from(BLOCKS), max_size=6))
def test_in_any_order_and_repeated_they_go_on_once_in_order(order: list[Unit[int]], repeated: list[Unit[int]]) -> None:
    continuity: Continuity[int] = Continuity()
    gone = [unit for offered in [*order, *repeated] for unit in continuity.offer(offered)]
    assert gone == BLOCKS
    assert continuity.duplicates == len(repeated)
    assert continuity.chain_breaks == 0


@given(st.sets(st.integers(0, 5)))
def test_given_up_all_that_came_goes_on_in_order(missing: set[int]) -> None:
    continuity: Continuity[int] = Continuity()
    came = [unit for unit in BLOCKS if unit.content not in missing]
    gone = [unit for offered in came for unit in continuity.offer(offered)]
    while continuity.is_holding:
        assert continuity.missing()
        gone += continuity.give_up()
    assert gone == came


def test_after_a_restart_repeats_are_dropped_and_the_next_goes_on_without_a_link() -> None:
    continuity: Continuity[int] = Continuity(Place(5, 4))
    assert [continuity.offer(unit) for unit in BLOCKS[:4]] == [[], [], [BLOCKS[2]], [BLOCKS[3]]]
    assert continuity.duplicates == 2


def test_a_missing_session_is_known_by_the_link() -> None:
    continuity: Continuity[int] = Continuity()
    for unit in BLOCKS[:3]:
        continuity.offer(unit)
    assert continuity.offer(BLOCKS[5]) == []
    assert continuity.missing() == "hole on main: expected what follows entry 6 of session 5, got entry 1 of session 12"


def test_a_connection_whose_beginning_is_gone_waits_for_it() -> None:
    continuity: Continuity[int] = Continuity()
    assert continuity.offer(BLOCKS[3]) == []
    assert continuity.missing() == (
        "hole on main: expected the first entry of the connection's first session, got entry 1 of session 9"
    )
    assert continuity.reached == NOWHERE


def test_a_broken_link_within_a_session_is_counted() -> None:
    continuity: Continuity[int] = Continuity()
    continuity.offer(BLOCKS[0])
    other = BLOCKS[1]._replace(follows="another")
    assert continuity.offer(other) == [other]
    assert continuity.chain_breaks == 1


def test_what_is_held_is_bounded() -> None:
    continuity: Continuity[int] = Continuity()
    continuity.offer(BLOCKS[1]._replace(size_bytes=HOLD_BYTES_MAX))
    assert not continuity.is_full
    continuity.offer(BLOCKS[4]._replace(size_bytes=1))
    assert continuity.is_full
    assert continuity.give_up() == [BLOCKS[1]._replace(size_bytes=HOLD_BYTES_MAX)]
    assert not continuity.is_full
