"""Changes of the venue on demand: what happens to markets and to the exchange besides trading.

Each is a `VenueOrder`; a changed market says so on `market_lifecycle_v2` exactly as the venue does, and REST follows.
The venue has no stream message for a dispute, an amendment shows as a second `determined`.
"""

from __future__ import annotations

from itertools import islice
from typing import Literal

import msgspec

from ssmd.exchanges.kalshi.combos import is_combo
from ssmd.exchanges.kalshi.simulated import wire
from ssmd.exchanges.kalshi.simulated.combos import groups_of
from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS, added_market
from ssmd.exchanges.kalshi.simulated.market import ONE_DOLLAR, Market
from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel
from ssmd.exchanges.kalshi.simulated.wire import Message

MarketChange = Literal["pause", "resume", "close", "extend", "determine", "dispute", "amend", "regrid", "rename", "vanish"]
VenueChange = Literal["list", "combo", "fee-change", "pause-trading", "pause-exchange", "resume-exchange"]


class VenueOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change to come.

    Attributes:
        kind: of a market: `pause` (deactivated, book stays), `resume` (activated: resting orders are cancelled, new ones
            come), `close` (the close time moves to now, then it closes), `extend` (the close time moves by `for_s`; a
            closed one trades again), `determine` (closes too; with `result`), `dispute` a determined one, `amend` a
            disputed one (to `result`), `regrid` (price steps of 0.01 become 0.001), `rename` (metadata), `vanish`
            (no list has it any more, nobody is told). Of the venue: `list` new markets, mint a `combo` of open ones,
            `fee-change` of an event, `pause-trading` and `pause-exchange` for `for_s` seconds, `resume-exchange`.
        ticker: the market, "" = the first `count` that the change fits.
        count: how many markets.
        at_s: model seconds after the start; 0 = at once.
        for_s: model seconds a pause lasts, or a close time moves.
        result: "yes", "no", "scalar"; "" = drawn.
        value: what "scalar" pays, in 1/10,000 dollar.
    """

    kind: MarketChange | VenueChange
    ticker: str = ""
    count: int = 1
    at_s: int = 0
    for_s: int = 60
    result: Literal["", "yes", "no", "scalar"] = ""
    value: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.at_s < 0 or self.for_s < 1 or not 0 <= self.value <= ONE_DOLLAR:
            raise ValueError("expected count >= 1, at_s >= 0, for_s >= 1, value from 0 to 10000")


class NothingFits(Exception):
    """There is no market the order fits; the message says which would."""


_FITS: dict[str, frozenset[str]] = {
    "pause": frozenset({"active"}),
    "resume": frozenset({"inactive"}),
    "close": frozenset({"active", "inactive"}),
    "extend": frozenset({"active", "inactive", "closed"}),
    "determine": frozenset({"active", "inactive", "closed"}),
    "dispute": frozenset({"determined"}),
    "amend": frozenset({"disputed"}),
    "regrid": frozenset({"active", "inactive"}),
    "rename": frozenset({"initialized", "active", "inactive"}),
    "vanish": frozenset({"initialized", "active", "inactive", "closed", "determined", "finalized"}),
}


def apply(model: MarketModel, order: VenueOrder) -> list[Message]:
    """Do what is ordered, now; `at_s` is the caller's affair.

    Raises:
        NothingFits: nothing was changed.
    """
    out: list[Message] = []
    if order.kind in _FITS:
        for market in _markets(model, order):
            market.updated_ns = model.now_ns
            _change(model, market, order, out)
        return out
    now_ns = model.now_ns
    match order.kind:
        case "list":
            for _ in range(order.count):
                _list(model, out)
        case "combo":
            groups = groups_of(model.markets.values())
            for _ in range(order.count):
                if not model.mint(out, groups):
                    raise NothingFits("combo: no two events have open markets")
        case "fee-change":
            event = order.ticker or next(name for name in model.events if not is_combo(name))
            out.append(wire.fee_message(event))
        case "resume-exchange":
            model.hours.resume()
        case _:
            model.hours.pause(now_ns + order.for_s * SECOND_NS, whole_exchange=order.kind == "pause-exchange")
    return out


def _markets(model: MarketModel, order: VenueOrder) -> list[Market]:
    fits = _FITS[order.kind]
    if order.ticker:
        market = model.markets.get(order.ticker)
        if market is None or market.phase not in fits:
            found = "no such market" if market is None else market.phase
            raise NothingFits(f"{order.kind} {order.ticker}: {found}; expected {', '.join(sorted(fits))}")
        return [market]
    found_ = list(islice((market for market in model.markets.values() if market.phase in fits), order.count))
    if not found_:
        raise NothingFits(f"{order.kind}: no market is {', '.join(sorted(fits))}")
    return found_


def _change(model: MarketModel, market: Market, order: VenueOrder, out: list[Message]) -> None:
    ticker, now_ns = market.spec.ticker, model.now_ns
    match order.kind:
        case "pause":
            market.phase = "inactive"
            out.append(wire.lifecycle_message(ticker, "deactivated", {"is_deactivated": True}))
        case "resume":
            _activate(model, market, out)
        case "close":
            model.move_close(market, now_ns, out)
            model.close(market, now_ns, out)
        case "extend":
            model.move_close(market, market.spec.close_ns + order.for_s * SECOND_NS, out)
            model.plan(market.spec.close_ns, "close", market)
            if market.phase == "closed":
                _activate(model, market, out)
        case "determine":
            if market.phase != "closed":
                model.move_close(market, now_ns, out)
                model.close(market, now_ns, out)
            model.determine(market, order.result, now_ns, out, order.value)
        case "vanish":
            model.delist(ticker)
        case _:
            _change_quietly(model, market, order, out)


def _change_quietly(model: MarketModel, market: Market, order: VenueOrder, out: list[Message]) -> None:
    """Changes that leave the book as it is."""
    ticker, now_ns = market.spec.ticker, model.now_ns
    match order.kind:
        case "dispute":
            market.phase = "disputed"
        case "amend":
            model.determine(market, order.result or ("no" if market.result == "yes" else "yes"), now_ns, out, order.value)
            market.phase = "amended"
        case "regrid":
            market.spec = market.spec._replace(tick=10)
            structure, ranges = wire.price_grid(market.spec)
            fields = {"price_level_structure": structure, "price_ranges": ranges}
            out.append(wire.lifecycle_message(ticker, "price_level_structure_updated", fields))
        case "rename":
            market.spec = market.spec._replace(yes_sub_title=f"{market.spec.yes_sub_title} (clarified)")
            fields = {"yes_sub_title": market.spec.yes_sub_title}
            out.append(wire.lifecycle_message(ticker, "metadata_updated", fields))
        case _:
            raise AssertionError(order.kind)


def _activate(model: MarketModel, market: Market, out: list[Message]) -> None:
    market.phase = "active"
    out.append(wire.lifecycle_message(market.spec.ticker, "activated", {"is_deactivated": False}))
    model.orders.drain(market, model.now_ns, out)
    model.orders.fill(market, model.now_ns, out)


def _list(model: MarketModel, out: list[Message]) -> None:
    spec = added_market(model.added, model.now_ns)
    model.added += 1
    if spec.event.ticker not in model.events:
        out.append(wire.event_message(spec.event))
    market = model.enlist(spec)
    market.phase = "active"
    out.append(wire.created_message(spec))
    out.append(wire.lifecycle_message(spec.ticker, "activated", {"is_deactivated": False}))
    model.orders.fill(market, model.now_ns, out)
