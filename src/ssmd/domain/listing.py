"""Aggregate `listing . {feed} . {venue event}`: the master data of one venue event's markets, as the venue tells it.

    listed -> closed -> determined -> settled
    listed | closed | determined | settled -> delisted -> relisted: listed again, as the venue shows it then

Prices, volumes, open interest and update times are no master data and have no place here. A stage may be skipped (the
venue was not asked in time), and one that went back is an amendment.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ssmd.domain.decider import Decider
from ssmd.errors import Rejected

AGGREGATE: Final = "listing"

Stage = Literal["listed", "closed", "determined", "settled"]
_STAGES: Final[tuple[Stage, ...]] = ("listed", "closed", "determined", "settled")


class Market(msgspec.Struct, frozen=True):
    """A market's master data. Times are UTC, 0 = the venue does not say. `attributes`: all else of it, as text."""

    ticker: str
    series: str = ""
    category: str = ""
    title: str = ""
    open_ns: int = 0
    close_ns: int = 0
    expiry_ns: int = 0
    attributes: dict[str, str] = {}


class Change(msgspec.Struct, frozen=True):
    """One field's old and new value as text; of an attribute the field is "attributes.NAME", and None = it is absent."""

    field: str
    old: str | None
    new: str | None


# Commands


class ObserveMarket(msgspec.Struct, frozen=True):
    """The venue shows the market so."""

    market: Market


class ObserveStage(msgspec.Struct, frozen=True):
    """The venue says how far the market is. `result`: what was determined, `value` its settlement; "" = not said."""

    ticker: str
    stage: Stage
    at_ns: int
    result: str = ""
    value: str = ""


class ObserveAbsence(msgspec.Struct, frozen=True):
    """The venue does not show the market any more. `reason`: how that is known."""

    ticker: str
    reason: str


# Events


class MarketListed(msgspec.Struct, frozen=True, tag_field="type", tag="listing.market-listed.v1"):
    market: Market

    @property
    def ticker(self) -> str:
        return self.market.ticker


class MarketChanged(msgspec.Struct, frozen=True, tag_field="type", tag="listing.market-changed.v1"):
    """`changes` are sorted by field."""

    ticker: str
    changes: tuple[Change, ...]


class MarketClosed(msgspec.Struct, frozen=True, tag_field="type", tag="listing.market-closed.v1"):
    ticker: str
    at_ns: int


class MarketDetermined(msgspec.Struct, frozen=True, tag_field="type", tag="listing.market-determined.v1"):
    ticker: str
    at_ns: int
    result: str


class MarketSettled(msgspec.Struct, frozen=True, tag_field="type", tag="listing.market-settled.v1"):
    """`value`: what one contract paid, decimal text."""

    ticker: str
    at_ns: int
    result: str
    value: str


class MarketAmended(msgspec.Struct, frozen=True, tag_field="type", tag="listing.market-amended.v1"):
    """The venue took back what it had said: the market is at `stage` with `result` and `value`."""

    ticker: str
    at_ns: int
    stage: Stage
    result: str
    value: str


class MarketDelisted(msgspec.Struct, frozen=True, tag_field="type", tag="listing.market-delisted.v1"):
    ticker: str
    reason: str


class MarketRelisted(msgspec.Struct, frozen=True, tag_field="type", tag="listing.market-relisted.v1"):
    """The whole market again, and at stage "listed": meanwhile its ticker may have been another event's."""

    market: Market

    @property
    def ticker(self) -> str:
        return self.market.ticker


ListingCommand = ObserveMarket | ObserveStage | ObserveAbsence
ListingEvent = (
    MarketListed
    | MarketChanged
    | MarketClosed
    | MarketDetermined
    | MarketSettled
    | MarketAmended
    | MarketDelisted
    | MarketRelisted
)
EVENTS = (
    MarketListed,
    MarketChanged,
    MarketClosed,
    MarketDetermined,
    MarketSettled,
    MarketAmended,
    MarketDelisted,
    MarketRelisted,
)


# State


class Standing(msgspec.Struct, frozen=True):
    """A market and how far it is."""

    market: Market
    stage: Stage = "listed"
    result: str = ""
    value: str = ""
    is_delisted: bool = False


class State(msgspec.Struct, frozen=True):
    """The event's markets by ticker."""

    markets: dict[str, Standing] = {}


def decide(state: State, command: ListingCommand) -> tuple[ListingEvent, ...]:
    match command:
        case ObserveMarket(market=market):
            return _observe(state, market)
        case ObserveStage(ticker=ticker):
            standing = state.markets.get(ticker)
            if standing is None:
                raise Rejected("market-not-listed", f"market {ticker} was never listed")
            return _stage(standing, command)
        case ObserveAbsence(ticker=ticker, reason=reason):
            standing = state.markets.get(ticker)
            return () if standing is None or standing.is_delisted else (MarketDelisted(ticker, reason),)


def _observe(state: State, market: Market) -> tuple[ListingEvent, ...]:
    if not market.ticker:
        raise Rejected("no-ticker", "a market needs a ticker")
    standing = state.markets.get(market.ticker)
    if standing is None:
        return (MarketListed(market),)
    if standing.is_delisted:
        return (MarketRelisted(market),)
    changes = changes_between(standing.market, market)
    return (MarketChanged(market.ticker, changes),) if changes else ()


def _stage(standing: Standing, command: ObserveStage) -> tuple[ListingEvent, ...]:
    # A later stage keeps what an earlier one said, unless it says otherwise.
    result = command.result or (standing.result if command.stage in ("determined", "settled") else "")
    value = command.value or (standing.value if command.stage == "settled" else "")
    said = (command.stage, result, value)
    if said == (standing.stage, standing.result, standing.value):
        return ()
    event: ListingEvent
    match command.stage:
        case "closed":
            event = MarketClosed(command.ticker, command.at_ns)
        case "determined":
            event = MarketDetermined(command.ticker, command.at_ns, result)
        case _:
            event = MarketSettled(command.ticker, command.at_ns, result, value)
    after = evolve_market(standing, event)
    is_forward = _STAGES.index(command.stage) > _STAGES.index(standing.stage)
    is_news_only = is_forward and standing.result in ("", result) and (after.stage, after.result, after.value) == said
    # What takes back something that was said is an amendment, whatever stage it comes with.
    return (event if is_news_only else MarketAmended(command.ticker, command.at_ns, *said),)


_TIMES: Final = ("open_ns", "close_ns", "expiry_ns")
_PLAIN: Final = ("series", "category", "title", *_TIMES)


def changes_between(old: Market, new: Market) -> tuple[Change, ...]:
    """What turns `old` into `new`, by field."""
    changes = [
        Change(field, str(getattr(old, field)), str(getattr(new, field)))
        for field in _PLAIN
        if getattr(old, field) != getattr(new, field)
    ]
    changes += [
        Change(f"attributes.{name}", old.attributes.get(name), new.attributes.get(name))
        for name in old.attributes.keys() | new.attributes.keys()
        if old.attributes.get(name) != new.attributes.get(name)
    ]
    return tuple(sorted(changes, key=lambda change: change.field))


def changed(market: Market, changes: tuple[Change, ...]) -> Market:
    """`market` with `changes`; a field nobody knows, and a time that is no number, are passed by."""
    fields: dict[str, str | int] = {}
    attributes = dict(market.attributes)
    for change in changes:
        head, dot, name = change.field.partition(".")
        if head == "attributes" and dot:
            attributes.pop(name, None)
            if change.new is not None:
                attributes[name] = change.new
        elif head in _TIMES:
            if change.new is not None and change.new.removeprefix("-").isdecimal() and change.new.isascii():
                fields[head] = int(change.new)
        elif head in _PLAIN and not dot:
            fields[head] = change.new or ""
    return msgspec.structs.replace(market, **fields, attributes=dict(sorted(attributes.items())))


def evolve(state: State, event: ListingEvent) -> State:
    ticker = event.ticker
    standing = state.markets.get(ticker)
    return State(state.markets | {ticker: evolve_market(standing or Standing(Market(ticker)), event)})


def evolve_market(standing: Standing, event: ListingEvent) -> Standing:
    """One market after an event of its own."""
    replace = msgspec.structs.replace
    match event:
        case MarketListed(market=market) | MarketRelisted(market=market):
            return Standing(market)
        case MarketChanged(changes=changes):
            return replace(standing, market=changed(standing.market, changes))
        case MarketClosed():
            return replace(standing, stage="closed")
        case MarketDetermined(result=result):
            return replace(standing, stage="determined", result=result)
        case MarketSettled(result=result, value=value):
            return replace(standing, stage="settled", result=result, value=value)
        case MarketAmended(stage=stage, result=result, value=value):
            return replace(standing, stage=stage, result=result, value=value)
        case MarketDelisted():
            return replace(standing, is_delisted=True)


DECIDER: Decider[ListingCommand, ListingEvent, State] = Decider(AGGREGATE, ("feed", "event"), State(), decide, evolve, EVENTS)
