"""Plans of kills: complete, repeatable, and honest about what cannot be killed."""

from __future__ import annotations

import pytest

from ssmd import crash_points
from ssmd.errors import Misconfigured
from ssmd.services.chaos.plan import AT_START, SERVERS, TARGETS, WITHIN_S, checked_targets, every_crash_point, random_kills


def test_every_point_of_every_component_is_in_the_plan_once() -> None:
    strikes = [strike for wave in every_crash_point(seed=3) for strike in wave]
    expected = sorted((component, point) for component, points in crash_points.OF_COMPONENT.items() for point in points)
    assert sorted((strike.target, strike.point) for strike in strikes) == expected
    assert {strike.nth for strike in strikes if strike.point in AT_START} == {1}
    assert all(len({strike.target for strike in wave}) == len(wave) for wave in every_crash_point())


def test_a_plan_follows_from_its_seed() -> None:
    assert random_kills(3, seed=5) == random_kills(3, seed=5)
    assert random_kills(3, seed=5) != random_kills(3, seed=6)
    assert [sorted(strike.target for strike in wave) for wave in random_kills(2)] == [sorted(TARGETS)] * 2
    assert all(0 <= strike.after_s <= WITHIN_S for wave in random_kills(20) for strike in wave)


def test_targets_are_checked() -> None:
    assert checked_targets([]) == TARGETS
    assert checked_targets(["nats-transport", "connector", "connector"]) == ("nats-transport", "connector")
    with pytest.raises(Misconfigured, match="'cache' cannot be killed"):
        checked_targets(["cache"])


def test_servers_have_no_points_of_ours() -> None:
    assert every_crash_point(SERVERS) == []
