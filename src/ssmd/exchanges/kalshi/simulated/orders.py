"""What traders do on the simulated venue: bids, cancels, takers. Books stay uncrossed and no level goes below zero."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from random import Random

from ssmd.exchanges.kalshi.simulated import wire
from ssmd.exchanges.kalshi.simulated.candles import Ledger
from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS
from ssmd.exchanges.kalshi.simulated.market import ONE_DOLLAR, Market, Trade
from ssmd.exchanges.kalshi.simulated.wire import Message

_TICKER_EVERY_NS = SECOND_NS


class Orders:
    """Draws orders from `random` and applies them.

    Args:
        depth: levels a side when a book is filled.
        trades: told every trade.
        plan_ticker: asked to have a market's ticker sent at a time.
    """

    def __init__(
        self, random: Random, depth: int, trades: Callable[[Trade], None], plan_ticker: Callable[[int, Market], None]
    ) -> None:
        self._random = random
        self._depth = depth
        self._trades = trades
        self._plan_ticker = plan_ticker
        self.ledger = Ledger()

    def fill(self, market: Market, now_ns: int, out: list[Message] | None) -> None:
        """Give an empty book its first levels; `out` None = nobody is told."""
        for distance in range(1, self._depth + 1):
            for yes in (True, False):
                level = self._level(market, yes=yes, distance=distance)
                if level:
                    self.change(market, yes=yes, level=level, delta=self._count(), now_ns=now_ns, out=out)

    def drain(self, market: Market, now_ns: int, out: list[Message]) -> None:
        """Cancel everything that rests, as the venue does at a close and at a reactivation."""
        for yes, side in ((True, market.yes), (False, market.no)):
            for level, count in sorted(side.items(), reverse=True):
                self.change(market, yes=yes, level=level, delta=-count, now_ns=now_ns, out=out)

    def one(self, market: Market, now_ns: int, out: list[Message]) -> None:
        """Let somebody bid, cancel or take."""
        random = self._random
        draw = random.randrange(100)
        if draw < 10:
            step = market.spec.tick if draw < 5 else -market.spec.tick
            market.fair = min(max(market.fair + step, 500), ONE_DOLLAR - 500)
        yes = random.randrange(2) == 0
        draw = random.randrange(100)
        if draw < 12:
            self._take(market, taker_yes=yes, now_ns=now_ns, out=out)
        elif draw < 55 and len(market.yes if yes else market.no) * 4 > self._depth * 3:
            self.cancel(market, yes=yes, now_ns=now_ns, out=out)
        else:
            reach = 2 * self._depth
            distance = min(random.randrange(1, reach + 1), random.randrange(1, reach + 1))
            level = self._level(market, yes=yes, distance=distance)
            other = market.best_no if yes else market.best_yes
            if level and level + other >= ONE_DOLLAR:
                self._take(market, taker_yes=yes, now_ns=now_ns, out=out)
            elif level:
                self.change(market, yes=yes, level=level, delta=self._count(), now_ns=now_ns, out=out)

    def cancel(self, market: Market, *, yes: bool, now_ns: int, out: list[Message]) -> None:
        """Take back some or all of a level."""
        side = market.yes if yes else market.no
        if not side:
            return
        levels = list(side)
        level = levels[self._random.randrange(len(levels))]
        held = side[level]
        whole = held < 100 or self._random.randrange(3) == 0
        delta = -(held if whole else self._random.randrange(1, held))
        self.change(market, yes=yes, level=level, delta=delta, now_ns=now_ns, out=out)

    def change(self, market: Market, *, yes: bool, level: int, delta: int, now_ns: int, out: list[Message] | None) -> None:
        """Change a level, say so, and have the ticker follow."""
        market.change(yes=yes, price=level, delta=delta)
        market.updated_ns = now_ns
        if out is not None:
            out.append(wire.delta_message(market, yes=yes, level=level, delta=delta, ts_ns=now_ns))
        if not market.ticker_pending:
            market.ticker_pending = True
            self._plan_ticker(max(now_ns, market.ticker_sent_ns + _TICKER_EVERY_NS), market)

    def _take(self, market: Market, *, taker_yes: bool, now_ns: int, out: list[Message]) -> None:
        resting = market.no if taker_yes else market.yes
        if not resting:
            return
        level = max(resting)
        count = min(resting[level], self._count())
        trade_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        yes_price = ONE_DOLLAR - level if taker_yes else level
        trade = Trade(trade_id, market.spec.ticker, yes_price, count, taker_yes, now_ns)
        market.traded(yes_price, count, now_ns, self.ledger)
        market.last_price, market.last_count = yes_price, count
        market.volume += count
        opened = self._random.randrange(3) > 0 or market.open_interest < count
        market.open_interest += count if opened else -count
        self._trades(trade)
        out.append(wire.trade_message(trade))
        self.change(market, yes=not taker_yes, level=level, delta=-count, now_ns=now_ns, out=out)

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
