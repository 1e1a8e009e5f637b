import pytest

from ssmd.domain.environment import DECIDER, Applied, RecordApply, RecordTeardown, State, TornDown
from ssmd.errors import Rejected

APPLY = RecordApply("r1", "c1", "5f", ("x: 1 -> 2",), ("create stream e-raw",))
APPLIED = Applied("r1", "c1", "5f", ("x: 1 -> 2",), ("create stream e-raw",))


def test_an_apply_is_recorded_once() -> None:
    assert DECIDER.decide(State(), APPLY) == (APPLIED,)
    state = DECIDER.fold([APPLIED])
    assert state == State("applied", "r1", "c1", "5f", ("x: 1 -> 2",))
    assert DECIDER.decide(state, APPLY) == ()


def test_applying_the_same_anew_says_nothing_unless_something_had_to_change() -> None:
    state = DECIDER.fold([APPLIED])
    assert DECIDER.decide(state, RecordApply("r2", "c1", "5f", ("x: 1 -> 2",), ())) == ()
    again = RecordApply("r2", "c1", "5f", ("x: 1 -> 2",), ("create stream e-raw",))
    assert DECIDER.decide(state, again) == (Applied("r2", "c1", "5f", ("x: 1 -> 2",), ("create stream e-raw",)),)
    assert DECIDER.decide(state, RecordApply("r2", "c2", "5f")) == (Applied("r2", "c2", "5f", (), ()),)


def test_a_teardown_of_a_day_leaves_the_environment_applied() -> None:
    state = DECIDER.fold([APPLIED, TornDown("r2", "2026-05-14", ("12 objects",))])
    assert (state.status, state.config) == ("applied", "c1")
    state = DECIDER.fold([TornDown("r3", "", ("stream e-raw",))], state)
    assert (state.status, state.config) == ("torn-down", "c1")
    assert DECIDER.decide(state, RecordTeardown("r4")) == ()
    assert DECIDER.decide(state, RecordApply("r5", "c1", "5f", ("x: 1 -> 2",))) == (
        Applied("r5", "c1", "5f", ("x: 1 -> 2",), ()),
    )


def test_what_is_not_identified_is_refused() -> None:
    with pytest.raises(Rejected, match="identified"):
        DECIDER.decide(State(), RecordTeardown(""))
