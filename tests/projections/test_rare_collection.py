"""The cycle collector is left as it was found."""

import gc

import pytest

from ssmd.projections.rare_collection import OBJECTS_NEW, collecting_rarely


def test_overlapping_blocks_restore_what_was_before_the_first() -> None:
    before = gc.get_threshold()
    one, other = collecting_rarely(), collecting_rarely()
    one.__enter__()
    other.__enter__()
    assert gc.get_threshold() == (OBJECTS_NEW, *before[1:])
    one.__exit__(None, None, None)
    assert gc.get_threshold() == (OBJECTS_NEW, *before[1:])
    other.__exit__(None, None, None)
    assert gc.get_threshold() == before


@pytest.mark.parametrize("first", [0, OBJECTS_NEW * 2])
def test_who_wants_it_rarer_still_gets_that(first: int) -> None:
    before = gc.get_threshold()
    gc.set_threshold(first, *before[1:])
    try:
        with collecting_rarely():
            assert gc.get_threshold()[0] == first
        assert gc.get_threshold()[0] == first
    finally:
        gc.set_threshold(*before)


def test_an_error_within_restores_too() -> None:
    before = gc.get_threshold()
    with pytest.raises(ZeroDivisionError), collecting_rarely():
        _ = 1 / 0
    assert gc.get_threshold() == before
