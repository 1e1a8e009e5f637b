"""The load presets have the measured figures."""

from __future__ import annotations

import statistics
from collections import Counter
from itertools import islice
from random import Random

import pytest

from ssmd.exchanges.kalshi.simulated import pacing
from ssmd.exchanges.kalshi.simulated.model_settings import ModelSettings, Preset, with_preset
from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel

START_NS = 1_795_363_200_000_000_000
SECOND_NS = 1_000_000_000


def test_quantiles_are_the_measured_ones() -> None:
    assert [pacing.messages(ppm) for ppm in (0, 500_000, 990_000, 1_000_000)] == [20, 100, 371, 643]


def test_measured_seconds_have_the_measured_median_and_tail_and_bursts() -> None:
    seconds: Counter[int] = Counter()
    milliseconds: Counter[int] = Counter()
    before = 0
    for at_ns in islice(pacing.measured(START_NS, 1_000_000, Random(3)), 400_000):
        assert at_ns >= before
        before = at_ns
        seconds[at_ns // SECOND_NS] += 1
        milliseconds[at_ns // 1_000_000] += 1
    figures = sorted([*seconds.values()][:-1])
    assert 90 <= statistics.median(figures) <= 110
    assert 340 <= figures[len(figures) * 99 // 100] <= 400
    assert 560 <= figures[-1] <= 643
    assert max(milliseconds.values()) >= 200


def test_even_steps_are_where_they_always_were() -> None:
    assert [*islice(pacing.even(START_NS, 3), 3)] == [START_NS + 333_333_333, START_NS + 666_666_666, START_NS + SECOND_NS]


@pytest.mark.parametrize(("preset", "figure"), [("median", 100), ("p99", 371), ("peak", 643)])
@pytest.mark.parametrize("markets", [1, 20])
def test_the_busiest_market_has_the_presets_figure(preset: Preset, figure: int, markets: int) -> None:
    held = MarketModel(with_preset(ModelSettings(seed=5, markets=markets, start_ns=START_NS, roll_s=10_000), preset))
    busiest = next(iter(held.markets))
    deltas = 0
    while held.now_ns < START_NS + 5 * SECOND_NS:
        deltas += sum(message.kind == "orderbook_delta" and message.ticker == busiest for message in held.step())
    assert figure * 0.85 <= deltas / 5 <= figure * 1.15


def test_the_exchange_preset_is_20_000_open_markets() -> None:
    settings = with_preset(ModelSettings(seed=1), "exchange")
    assert (settings.markets, settings.shape) == (20_000, "measured")
