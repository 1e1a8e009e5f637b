"""What REST answers from, and what an answer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ssmd.exchanges.kalshi.simulated.exchange_hours import ExchangeHours
from ssmd.exchanges.kalshi.simulated.listing import Event
from ssmd.exchanges.kalshi.simulated.market import Market, Trade

Query = Mapping[str, str]


class Listed(Protocol):
    """The seeded model, or what a capture holds. Trades are oldest first."""

    @property
    def markets(self) -> Mapping[str, Market]: ...

    @property
    def events(self) -> Mapping[str, Event]: ...

    @property
    def trades(self) -> Sequence[Trade]: ...

    @property
    def now_ns(self) -> int: ...

    @property
    def hours(self) -> ExchangeHours: ...


class Answer(NamedTuple):
    """HTTP status and JSON body."""

    status: int
    body: object


def not_found(what: str) -> Answer:
    """404 in the venue's words."""
    return Answer(404, {"error": {"code": "not_found", "message": "not found", "details": f"{what} not found"}})
