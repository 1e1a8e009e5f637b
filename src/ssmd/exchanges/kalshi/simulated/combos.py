"""Combos of the simulated venue: minted on demand from open markets, settled by what becomes of their legs.

A combo pays what its legs pay, multiplied: so it is lost with the first leg that is, and won only with all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Final

from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS, Combo, Event, Leg, MarketSpec
from ssmd.exchanges.kalshi.simulated.market import ONE_DOLLAR, Market

SERIES: Final = "KXMVECROSSCATEGORY"
COLLECTION: Final = "KXMVECROSSCATEGORY-R"
LEGS_MAX: Final = 3
_TICK: Final = 10


class Combos:
    """Makes combos, drawn from `random`, and knows which hang on a market."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._by_leg: dict[str, list[str]] = {}

    def mint(self, groups: Sequence[Sequence[Market]], now_ns: int) -> MarketSpec | None:
        """A new combo, trading from now on until the last of its legs closes; None where there are not two groups.

        Args:
            groups: open markets, those of one event together: a combo has at most one of each.
        """
        random = self._random
        if len(groups) < 2:
            return None
        chosen = random.sample(groups, min(len(groups), random.randrange(2, LEGS_MAX + 1)))
        markets = [group[random.randrange(len(group))] for group in chosen]
        legs = tuple(Leg(held.spec.event.ticker, held.spec.ticker, "yes" if random.randrange(2) else "no") for held in markets)
        close_ns = max(held.spec.close_ns for held in markets)
        event = Event(f"{SERIES}-S2026{random.getrandbits(40):010X}", SERIES, "Combo", "MVE", close_ns)
        said = ",".join(f"{leg.side} {held.spec.yes_sub_title}" for leg, held in zip(legs, markets, strict=True))
        ticker = f"{event.ticker}-{random.getrandbits(44):011X}"
        for leg in legs:
            self._by_leg.setdefault(leg.market_ticker, []).append(ticker)
        since_ns = now_ns - now_ns % SECOND_NS
        return MarketSpec(
            ticker, event, 0, said, said, _TICK, "custom", "", now_ns, since_ns, close_ns,
            rolling=False, combo=Combo(COLLECTION, legs),
        )  # fmt: skip

    def of_leg(self, ticker: str) -> tuple[str, ...]:
        """Combos with a leg on this market."""
        return tuple(self._by_leg.get(ticker, ()))

    def forget(self, spec: MarketSpec) -> None:
        """The combo is listed no more."""
        for leg in spec.combo.legs if spec.combo is not None else ():
            left = [ticker for ticker in self._by_leg.get(leg.market_ticker, ()) if ticker != spec.ticker]
            if left:
                self._by_leg[leg.market_ticker] = left
            else:
                self._by_leg.pop(leg.market_ticker, None)


def groups_of(markets: Iterable[Market]) -> list[list[Market]]:
    """Markets that a combo may be made of, by event."""
    found: dict[str, list[Market]] = {}
    for held in markets:
        if held.phase == "active" and held.spec.combo is None:
            found.setdefault(held.spec.event.ticker, []).append(held)
    return list(found.values())


def worth(combo: Combo, markets: Mapping[str, Market]) -> int | None:
    """What a YES contract pays (1/10,000 dollar, rounded down), None while that is open. A leg that is gone is lost."""
    value, is_open = ONE_DOLLAR, False
    for leg in combo.legs:
        held = markets.get(leg.market_ticker)
        if held is not None and not held.result:
            is_open = True
            continue
        paid = 0 if held is None else held.settlement if leg.side == "yes" else ONE_DOLLAR - held.settlement
        value = value * paid // ONE_DOLLAR
    return None if is_open and value else value
