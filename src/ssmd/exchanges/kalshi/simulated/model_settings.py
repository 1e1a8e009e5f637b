"""Settings of the market model, and the load presets made of measured figures."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ssmd.exchanges.kalshi.simulated import pacing

Preset = Literal["", "median", "p99", "peak", "measured", "exchange"]

STEPS_FOR_A_DELTA_PPM: Final = 1_000_000
"""Orders the model needs for one `orderbook_delta` of the market they go to, in millionths (measured over seeds)."""


_POSITIVE: Final = (
    "markets", "rate", "roll_s", "lead_s", "empty_snapshot_ms", "determine_s", "settle_s", "depth", "trades_kept",
)  # fmt: skip


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model is made of; with `seed` it decides every byte.

    Attributes:
        markets: slots, >= 1; every fourth holds a rolling market.
        rate: orders a second of model time over all markets, >= 1; messages are slightly more.
        shape: "even", or "measured": seconds as different as measured, `rate` has no say.
        start_ns: model time at step 0.
        roll_s: life of a rolling market. The first ones close within this time of the start.
        lead_s: how long before its opening a rolling market is created.
        empty_snapshot_ms: typical wait from a close to the empty snapshot (drawn from half to twice this).
        determine_s, settle_s: from the close to `determined`, from there to `settled`.
        depth: levels a side when a book is first filled.
        trades_kept: the latest trades REST still knows.
        keeps_thursdays: trading pauses each Thursday from 03:00 to 05:00 Eastern Time.
        combos: so many are open at the start, quoted and not traded; more come on demand (`market_orders`).
    """

    seed: int
    markets: int = 20
    rate: int = 200
    shape: pacing.Shape = "even"
    start_ns: int = 0
    roll_s: int = 120
    lead_s: int = 10
    empty_snapshot_ms: int = 6_400
    determine_s: int = 10
    settle_s: int = 30
    depth: int = 20
    trades_kept: int = 20_000
    keeps_thursdays: bool = False
    combos: int = 0

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.combos < 0:
            raise ValueError(f"combos is {self.combos}; expected 0 or more")
        if self.lead_s > self.roll_s:
            raise ValueError(f"lead_s is {self.lead_s}; expected at most roll_s, {self.roll_s}")


def weights(markets: int) -> list[int]:
    """Zipf's weights of the slots: how orders are spread over the markets, the first being the busiest."""
    return [1_000_000 // (rank + 1) + 1 for rank in range(markets)]


def steps_ppm(markets: int) -> int:
    """Orders over all markets for one delta on the busiest, in millionths."""
    held = weights(markets)
    return STEPS_FOR_A_DELTA_PPM * sum(held) // held[0]


def with_preset(settings: ModelSettings, preset: Preset) -> ModelSettings:
    """`settings` with the load of a preset, whose figure is that of the busiest market's book.

    median, p99, peak: so many deltas in every second (100, 371, 643). measured: seconds as different as recorded ones,
    with bursts of hundreds within a millisecond. exchange: 20,000 open markets with thin books, the busiest measured,
    crypto rolling every quarter of an hour.
    """
    replace = msgspec.structs.replace
    figures = {"median": pacing.MEDIAN, "p99": pacing.P99, "peak": pacing.PEAK}
    if preset in figures:
        return replace(settings, rate=max(1, figures[preset] * steps_ppm(settings.markets) // 1_000_000))
    if preset == "measured":
        return replace(settings, shape="measured")
    if preset == "exchange":
        return replace(settings, markets=20_000, shape="measured", depth=6, roll_s=900)
    return settings
