"""The seeded market model: orders, trades and market lives, exact and the same for the same seed and step.

Theory of operation. Model time starts at `start_ns` and moves only with `step()`: step k is at start + k / rate seconds.
A step first does what the agenda says is due (markets created, opened, closed, settled; tickers), then lets one
market, drawn with Zipf's weights, take one order: a bid placed or cancelled around a fair price that wanders, or a
taker that meets the best bid of the other side. Books stay uncrossed and no level ever goes below zero.
"""

from __future__ import annotations

import heapq
import uuid
from bisect import bisect_right
from collections import deque
from itertools import accumulate
from random import Random

import msgspec

from ssmd.exchanges.kalshi.simulated import wire
from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS, Event, MarketSpec, is_rolling, long_market, rolling_market
from ssmd.exchanges.kalshi.simulated.market import ONE_DOLLAR, Market, Trade
from ssmd.exchanges.kalshi.simulated.wire import Message

_TICKER_EVERY_NS = SECOND_NS
_TRADES_KEPT = 20_000
_SETTLED_KEPT = 2_000


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model is made of; with `seed` it decides every byte.

    Attributes:
        markets: slots, >= 1; every fourth holds a rolling market.
        rate: orders a second of model time over all markets, >= 1; messages are slightly more.
        start_ns: model time at step 0.
        roll_s: life of a rolling market. The first ones close within this time of the start.
        lead_s: how long before its opening a rolling market is created.
        empty_snapshot_ms: typical wait from a close to the empty snapshot (drawn from half to twice this).
        determine_s, settle_s: from the close to `determined`, from there to `settled`.
        depth: levels a side when a book is first filled.
    """

    seed: int
    markets: int = 20
    rate: int = 200
    start_ns: int = 0
    roll_s: int = 120
    lead_s: int = 10
    empty_snapshot_ms: int = 6_400
    determine_s: int = 10
    settle_s: int = 30
    depth: int = 20

    def __post_init__(self) -> None:
        for name in ("markets", "rate", "roll_s", "lead_s", "empty_snapshot_ms", "determine_s", "settle_s", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.lead_s > self.roll_s:
            raise ValueError(f"lead_s is {self.lead_s}; expected at most roll_s, {self.roll_s}")


class MarketModel:
    """The venue's state. `markets`, `events` and `trades` (oldest first, bounded) are for reading only."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.markets: dict[str, Market] = {}
        self.events: dict[str, Event] = {}
        self.trades: deque[Trade] = deque(maxlen=_TRADES_KEPT)
        self.steps = 0
        self._random = Random(settings.seed)  # noqa: S311 - a reproducible model, not a secret
        self._agenda: list[tuple[int, int, str, str]] = []
        self._order = 0
        self._settled: deque[str] = deque()
        self._weights = list(accumulate(1_000_000 // (rank + 1) + 1 for rank in range(settings.markets)))
        self._slots: list[Market] = [self._first(slot) for slot in range(settings.markets)]

    @property
    def now_ns(self) -> int:
        """Model time of the last step."""
        return self.settings.start_ns + self.steps * SECOND_NS // self.settings.rate

    def step(self) -> list[Message]:
        """Go on by one step and say what happened, in order."""
        self.steps += 1
        now_ns = self.now_ns
        out: list[Message] = []
        agenda = self._agenda
        while agenda and agenda[0][0] <= now_ns:
            _, _, what, ticker = heapq.heappop(agenda)
            self._due(what, self.markets[ticker], now_ns, out)
        slot = bisect_right(self._weights, self._random.randrange(self._weights[-1]))
        market = self._slots[slot]
        if market.phase == "active":
            self._order_in(market, now_ns, out)
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
        market = self._list(spec)
        market.phase = "active"
        market.updated_ns = start_ns
        self._fill(market, start_ns, [])
        return market

    def _list(self, spec: MarketSpec) -> Market:
        random = self._random
        cents = random.randrange(15, 86)
        market = Market(spec, str(uuid.UUID(int=random.getrandbits(128), version=4)), cents * 100)
        self.markets[spec.ticker] = market
        self.events.setdefault(spec.event.ticker, spec.event)
        self._plan(spec.close_ns, "close", market)
        if spec.rolling:
            self._plan(spec.close_ns - self.settings.lead_s * SECOND_NS, "successor", market)
        return market

    def _plan(self, at_ns: int, what: str, market: Market) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (at_ns, self._order, what, market.spec.ticker))

    def _due(self, what: str, market: Market, now_ns: int, out: list[Message]) -> None:
        if what == "ticker":
            market.ticker_pending = False
            market.ticker_sent_ns = now_ns
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
                self._fill(market, now_ns, out)
            case "close":
                self._close(market, now_ns, out)
            case "empty-snapshot":
                out.append(wire.snapshot_message(market))
            case "determine":
                self._determine(market, now_ns, out)
            case _:
                self._settle(market, now_ns, out)

    def _create_successor(self, market: Market, now_ns: int, out: list[Message]) -> None:
        spec = market.spec
        life_ns = self.settings.roll_s * SECOND_NS
        following = rolling_market(spec.slot, now_ns, spec.close_ns, spec.close_ns + life_ns)
        known = following.event.ticker in self.events
        successor = self._list(following)
        if not known:
            out.append(wire.event_message(following.event))
        out.append(wire.created_message(following))
        self._plan(now_ns + min(SECOND_NS, spec.close_ns - now_ns), "activate", successor)
        self._plan(following.open_ns, "open", successor)

    def _close(self, market: Market, now_ns: int, out: list[Message]) -> None:
        market.phase = "closed"
        for yes, side in ((True, market.yes), (False, market.no)):
            for level, count in sorted(side.items(), reverse=True):
                self._delta(market, yes=yes, level=level, delta=-count, now_ns=now_ns, out=out)
        typical = self.settings.empty_snapshot_ms
        wait_ms = self._random.randrange(typical // 2, typical * 2)
        self._plan(now_ns + wait_ms * 1_000_000, "empty-snapshot", market)
        self._plan(now_ns + self.settings.determine_s * SECOND_NS, "determine", market)

    def _determine(self, market: Market, now_ns: int, out: list[Message]) -> None:
        market.phase = "determined"
        market.result = "yes" if self._random.randrange(ONE_DOLLAR) < market.fair else "no"
        fields = {
            "result": market.result,
            "determination_ts": now_ns // SECOND_NS,
            "settlement_value": "1.0000" if market.result == "yes" else "0.0000",
        }
        out.append(wire.lifecycle_message(market.spec.ticker, "determined", fields))
        self._plan(now_ns + self.settings.settle_s * SECOND_NS, "settle", market)

    def _settle(self, market: Market, now_ns: int, out: list[Message]) -> None:
        market.phase = "finalized"
        market.settled_ns = now_ns
        out.append(wire.lifecycle_message(market.spec.ticker, "settled", {"settled_ts": now_ns // SECOND_NS}))
        self._settled.append(market.spec.ticker)
        if len(self._settled) > _SETTLED_KEPT:
            gone = self.markets.pop(self._settled.popleft()).spec.event.ticker
            if all(held.spec.event.ticker != gone for held in self.markets.values()):
                del self.events[gone]

    # Orders.

    def _fill(self, market: Market, now_ns: int, out: list[Message]) -> None:
        for distance in range(1, self.settings.depth + 1):
            for yes in (True, False):
                level = self._level(market, yes=yes, distance=distance)
                if level:
                    self._delta(market, yes=yes, level=level, delta=self._count(), now_ns=now_ns, out=out)

    def _order_in(self, market: Market, now_ns: int, out: list[Message]) -> None:
        random = self._random
        draw = random.randrange(100)
        if draw < 10:
            step = market.spec.tick if draw < 5 else -market.spec.tick
            market.fair = min(max(market.fair + step, 500), ONE_DOLLAR - 500)
        yes = random.randrange(2) == 0
        draw = random.randrange(100)
        if draw < 12:
            self._take(market, taker_yes=yes, now_ns=now_ns, out=out)
        elif draw < 55 and len(market.yes if yes else market.no) * 4 > self.settings.depth * 3:
            self._cancel(market, yes=yes, now_ns=now_ns, out=out)
        else:
            reach = 2 * self.settings.depth
            distance = min(random.randrange(1, reach + 1), random.randrange(1, reach + 1))
            level = self._level(market, yes=yes, distance=distance)
            other = market.best_no if yes else market.best_yes
            if level and level + other >= ONE_DOLLAR:
                self._take(market, taker_yes=yes, now_ns=now_ns, out=out)
            elif level:
                self._delta(market, yes=yes, level=level, delta=self._count(), now_ns=now_ns, out=out)

    def _cancel(self, market: Market, *, yes: bool, now_ns: int, out: list[Message]) -> None:
        side = market.yes if yes else market.no
        if not side:
            return
        levels = list(side)
        level = levels[self._random.randrange(len(levels))]
        held = side[level]
        whole = held < 100 or self._random.randrange(3) == 0
        self._delta(
            market, yes=yes, level=level, delta=-(held if whole else self._random.randrange(1, held)), now_ns=now_ns, out=out
        )

    def _take(self, market: Market, *, taker_yes: bool, now_ns: int, out: list[Message]) -> None:
        resting = market.no if taker_yes else market.yes
        if not resting:
            return
        level = max(resting)
        count = min(resting[level], self._count())
        trade_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        yes_price = ONE_DOLLAR - level if taker_yes else level
        trade = Trade(trade_id, market.spec.ticker, yes_price, count, taker_yes, now_ns)
        market.last_price, market.last_count = yes_price, count
        market.volume += count
        opened = self._random.randrange(3) > 0 or market.open_interest < count
        market.open_interest += count if opened else -count
        self.trades.append(trade)
        out.append(wire.trade_message(trade))
        self._delta(market, yes=not taker_yes, level=level, delta=-count, now_ns=now_ns, out=out)

    def _delta(self, market: Market, *, yes: bool, level: int, delta: int, now_ns: int, out: list[Message]) -> None:
        market.change(yes=yes, price=level, delta=delta)
        market.updated_ns = now_ns
        out.append(wire.delta_message(market, yes=yes, level=level, delta=delta, ts_ns=now_ns))
        if not market.ticker_pending:
            market.ticker_pending = True
            self._plan(max(now_ns, market.ticker_sent_ns + _TICKER_EVERY_NS), "ticker", market)

    def _level(self, market: Market, *, yes: bool, distance: int) -> int:
        """Price `distance` steps away from the fair price, 0 where the grid ends."""
        tick = market.spec.tick
        fair = market.fair if yes else ONE_DOLLAR - market.fair
        level = fair - fair % tick - distance * tick
        return level if level >= tick else 0

    def _count(self) -> int:
        """An order's size: mostly whole contracts, one in five fractional."""
        whole = self._random.randrange(1, 500) * 100
        return whole if self._random.randrange(5) else whole + self._random.randrange(1, 100)
