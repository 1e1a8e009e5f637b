"""The seeded market model: orders, trades and market lives, exact and the same for the same seed and step.

Theory of operation. Model time starts at `start_ns` and moves only with `step()`; when the steps are is `pacing`'s. A
step first does what the agenda says is due (markets created, opened, closed, settled; tickers), then lets one market,
drawn with Zipf's weights, take one order: a bid placed or cancelled around a fair price that wanders, or a taker that
meets the best bid of the other side (`orders`). `market_orders` changes lives on demand.
"""

from __future__ import annotations

import heapq
import uuid
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from random import Random

from ssmd.exchanges.kalshi.simulated import pacing, wire
from ssmd.exchanges.kalshi.simulated.combos import Combos, groups_of, worth
from ssmd.exchanges.kalshi.simulated.exchange_hours import ExchangeHours
from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS, Event, MarketSpec, is_rolling, long_market, rolling_market
from ssmd.exchanges.kalshi.simulated.market import ONE_DOLLAR, Market, Trade
from ssmd.exchanges.kalshi.simulated.model_settings import ModelSettings, steps_ppm, weights
from ssmd.exchanges.kalshi.simulated.orders import Orders
from ssmd.exchanges.kalshi.simulated.wire import Message

__all__ = ["MarketModel", "ModelSettings"]

_SETTLED_KEPT = 2_000
_ENDED = frozenset({"closed", "determined", "disputed", "amended", "finalized"})


class MarketModel:
    """The venue's state. `markets`, `events` and `trades` (oldest first, bounded) are for reading only.

    Attributes:
        now_ns: model time of the last step; next_ns: of the next one.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.markets: dict[str, Market] = {}
        self.events: dict[str, Event] = {}
        self.trades: deque[Trade] = deque(maxlen=settings.trades_kept)
        self.steps = 0
        self.added = 0  # markets listed on demand
        self.now_ns = settings.start_ns
        self.hours = ExchangeHours(keeps_thursdays=settings.keeps_thursdays)
        self.random = Random(settings.seed)  # noqa: S311 - a reproducible model, not a secret
        self.orders = Orders(
            self.random, settings.depth, self.trades.append, lambda at_ns, market: self.plan(at_ns, "ticker", market)
        )
        if settings.shape == "even":
            self._times = pacing.even(settings.start_ns, settings.rate)
        else:
            own = Random(f"pacing {settings.seed}")  # noqa: S311 - as above
            self._times = pacing.measured(settings.start_ns, steps_ppm(settings.markets), own)
        self.next_ns = next(self._times)
        self._agenda: list[tuple[int, int, str, str]] = []
        self._order = 0
        self._settled: deque[str] = deque()
        self._members: dict[str, int] = {}
        self._weights = list(accumulate(weights(settings.markets)))
        self._slots: list[Market] = [self._first(slot) for slot in range(settings.markets)]
        self.combos = Combos(self.random)
        groups = groups_of(self.markets.values()) if settings.combos else []
        for _ in range(settings.combos):
            self.mint(None, groups)

    def step(self) -> list[Message]:
        """Go on by one step, to `next_ns`, and say what happened, in order."""
        self.steps += 1
        now_ns = self.now_ns = self.next_ns
        self.next_ns = next(self._times)
        out: list[Message] = []
        agenda = self._agenda
        while agenda and agenda[0][0] <= now_ns:
            _, _, what, ticker = heapq.heappop(agenda)
            market = self.markets.get(ticker)
            if market is not None:  # else it was taken off the listing meanwhile
                self._due(what, market, now_ns, out)
        slot = bisect_right(self._weights, self.random.randrange(self._weights[-1]))
        market = self._slots[slot]
        if market.phase != "active":
            return out
        if not self.hours.resumes_ns(now_ns):
            self.orders.one(market, now_ns, out)
        elif self.hours.exchange_active(now_ns):
            self.orders.cancel(market, yes=self.random.randrange(2) == 0, now_ns=now_ns, out=out)
        return out

    # What a subscription asks of its venue (`subscriptions.Venue`).

    def orderbook(self, ticker: str, *, yes_priced: bool) -> bytes:
        """Body of a snapshot; a ticker the venue does not know has an empty book and `market_id` ""."""
        market = self.markets.get(ticker)
        if market is None:
            return wire.snapshot_body(ticker, "", {}, {}, yes_priced=False)
        return wire.snapshot_body(ticker, market.market_id, market.yes, market.no, yes_priced=yes_priced)

    def ticker(self, ticker: str) -> bytes | None:
        """Body of a ticker now, None for a market the venue does not know."""
        market = self.markets.get(ticker)
        return None if market is None else wire.ticker_body(market, self.now_ns)

    def ticker_of(self, market_id: str) -> str | None:
        """The ticker of a market id."""
        return next((market.spec.ticker for market in self.markets.values() if market.market_id == market_id), None)

    # Lives of markets.

    def _first(self, slot: int) -> Market:
        settings = self.settings
        start_ns = settings.start_ns
        if not is_rolling(slot):
            spec = long_market(slot, start_ns)
        else:
            rolling = (settings.markets + 2) // 4
            life_ns = settings.roll_s * SECOND_NS
            close_ns = start_ns + life_ns * (slot // 4 + 1) // rolling
            close_ns -= close_ns % SECOND_NS
            spec = rolling_market(slot, close_ns - life_ns - settings.lead_s * SECOND_NS, close_ns - life_ns, close_ns)
        market = self.enlist(spec)
        market.phase = "active"
        market.updated_ns = start_ns
        self.orders.fill(market, start_ns, None)
        return market

    def enlist(self, spec: MarketSpec) -> Market:
        """Add a market, not active yet; says nothing to anybody."""
        random = self.random
        cents = random.randrange(15, 86)
        market = Market(spec, str(uuid.UUID(int=random.getrandbits(128), version=4)), cents * 100)
        self.markets[spec.ticker] = market
        self.events.setdefault(spec.event.ticker, spec.event)
        self._members[spec.event.ticker] = self._members.get(spec.event.ticker, 0) + 1
        self.plan(spec.close_ns, "close", market)
        if spec.rolling:
            self.plan(spec.close_ns - self.settings.lead_s * SECOND_NS, "successor", market)
        return market

    def mint(self, out: list[Message] | None, groups: Sequence[Sequence[Market]]) -> bool:
        """List a combo of `groups_of` markets, with quotes; `out` None = nobody is told. False = there are too few."""
        spec = self.combos.mint(groups, self.now_ns)
        if spec is None:
            return False
        market = self.enlist(spec)
        market.phase = "active"
        if out is not None:
            out += [wire.event_message(spec.event), wire.created_message(spec)]
            out.append(wire.lifecycle_message(spec.ticker, "activated", {"is_deactivated": False}))
        self.orders.fill(market, self.now_ns, out)
        return True

    def delist(self, ticker: str) -> None:
        """Take a market off every list; says nothing to anybody."""
        gone = self.markets.pop(ticker)
        self.combos.forget(gone.spec)
        if gone.phase == "active":
            gone.phase = "initialized"  # its slot takes no orders any more
        event = gone.spec.event.ticker
        self._members[event] -= 1
        if not self._members[event]:
            del self._members[event], self.events[event]

    def plan(self, at_ns: int, what: str, market: Market) -> None:
        """Have `what` done at the first step at or after `at_ns`."""
        self._order += 1
        heapq.heappush(self._agenda, (at_ns, self._order, what, market.spec.ticker))

    def _due(self, what: str, market: Market, now_ns: int, out: list[Message]) -> None:
        if what == "ticker":
            market.ticker_pending = False
            market.ticker_sent_ns = now_ns
            market.sample(now_ns, self.orders.ledger)
            out.append(Message("ticker", "ticker", market.spec.ticker, wire.ticker_body(market, now_ns)))
            return
        market.updated_ns = now_ns
        match what:
            case "successor":
                self._create_successor(market, now_ns, out)
            case "activate":
                out.append(wire.lifecycle_message(market.spec.ticker, "activated", {"is_deactivated": False}))
            case "open":
                market.phase = "active"
                self._slots[market.spec.slot] = market
                self.orders.fill(market, now_ns, out)
            case "empty-snapshot":
                if market.phase in _ENDED:
                    out.append(wire.snapshot_message(market))
            case _:
                self._end(what, market, now_ns, out)

    def _end(self, what: str, market: Market, now_ns: int, out: list[Message]) -> None:
        # Orders from outside may have moved the close, or done one of these before.
        if what == "close" and market.phase not in _ENDED and market.spec.close_ns <= now_ns:
            self.close(market, now_ns, out)
        elif what == "determine" and market.phase == "closed":
            if market.spec.combo is None:
                self.determine(market, "", now_ns, out)
            else:
                self._judge(market, now_ns, out)
        elif what == "settle" and market.phase in {"determined", "amended"}:
            self._settle(market, now_ns, out)

    def _create_successor(self, market: Market, now_ns: int, out: list[Message]) -> None:
        spec = market.spec
        life_ns = self.settings.roll_s * SECOND_NS
        following = rolling_market(spec.slot, now_ns, spec.close_ns, spec.close_ns + life_ns)
        if following.ticker in self.markets:
            return  # the close was moved after the successor was made
        known = following.event.ticker in self.events
        successor = self.enlist(following)
        if not known:
            out.append(wire.event_message(following.event))
        out.append(wire.created_message(following))
        self.plan(now_ns + min(SECOND_NS, spec.close_ns - now_ns), "activate", successor)
        self.plan(following.open_ns, "open", successor)

    def close(self, market: Market, now_ns: int, out: list[Message]) -> None:
        """End a market's trading: its book drains, the empty snapshot and the result follow."""
        market.phase = "closed"
        self.orders.drain(market, now_ns, out)
        typical = self.settings.empty_snapshot_ms
        wait_ms = self.random.randrange(typical // 2, typical * 2)
        self.plan(now_ns + wait_ms * 1_000_000, "empty-snapshot", market)
        self.plan(now_ns + self.settings.determine_s * SECOND_NS, "determine", market)

    def determine(self, market: Market, result: str, now_ns: int, out: list[Message], value: int = 0) -> None:
        """Say how a market ended; `result` "" draws yes or no, `value` is what "scalar" pays (1/10,000 dollar)."""
        market.phase = "determined"
        market.result = result or ("yes" if self.random.randrange(ONE_DOLLAR) < market.fair else "no")
        market.settlement = value if result == "scalar" else ONE_DOLLAR * (market.result == "yes")
        fields = {
            "result": market.result,
            "determination_ts": now_ns // SECOND_NS,
            "settlement_value": wire.price(market.settlement),
        }
        out.append(wire.lifecycle_message(market.spec.ticker, "determined", fields))
        self.plan(now_ns + self.settings.settle_s * SECOND_NS, "settle", market)
        for ticker in self.combos.of_leg(market.spec.ticker):
            combo = self.markets[ticker]
            if combo.phase in {"active", "inactive"} and self._worth(combo) is not None:
                self.move_close(combo, now_ns, out)
                self.close(combo, now_ns, out)

    def _worth(self, combo: Market) -> int | None:
        return None if combo.spec.combo is None else worth(combo.spec.combo, self.markets)

    def _judge(self, combo: Market, now_ns: int, out: list[Message]) -> None:
        """Determine a combo by its legs, later where one is still open."""
        value = self._worth(combo)
        if value is None:
            self.plan(now_ns + SECOND_NS, "determine", combo)
        else:
            self.determine(combo, {0: "no", ONE_DOLLAR: "yes"}.get(value, "scalar"), now_ns, out, value)

    def move_close(self, market: Market, close_ns: int, out: list[Message]) -> None:
        """Have the market close at another time."""
        market.spec = market.spec._replace(close_ns=close_ns)
        fields = {"close_ts": close_ns // SECOND_NS}
        out.append(wire.lifecycle_message(market.spec.ticker, "close_date_updated", fields))

    def _settle(self, market: Market, now_ns: int, out: list[Message]) -> None:
        market.phase = "finalized"
        market.settled_ns = now_ns
        out.append(wire.lifecycle_message(market.spec.ticker, "settled", {"settled_ts": now_ns // SECOND_NS}))
        self._settled.append(market.spec.ticker)
        if len(self._settled) > _SETTLED_KEPT:
            oldest = self._settled.popleft()
            if oldest in self.markets:
                self.delist(oldest)
