"""Which markets the simulated venue lists: series, events and the fixed facts of a market, made of a slot and a time.

A model of M markets has M slots. A slot's market either lives long or is "rolling": it closes after a while and the
next one of its series opens at that instant, as the 15-minute crypto markets do. Tickers look like the venue's; the
ones with a threshold contain a `.`, as real ones do.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ssmd.exchanges.kalshi.combos import is_combo

SECOND_NS = 1_000_000_000
_DAY_NS = 86_400 * SECOND_NS
_EASTERN = timedelta(hours=-5)  # tickers carry Eastern Time; a model needs no daylight saving
_STRIKES_AN_EVENT = 8


class Series(NamedTuple):
    """One series. `frequency` is the venue's free text."""

    ticker: str
    title: str
    category: str
    frequency: str


class Event(NamedTuple):
    """One event: the markets that are settled by the same happening."""

    ticker: str
    series: str
    title: str
    subtitle: str
    strike_ns: int


class Leg(NamedTuple):
    """One part of a combo: a side of another market."""

    event_ticker: str
    market_ticker: str
    side: str


class Combo(NamedTuple):
    """What a combo is made of."""

    collection: str
    legs: tuple[Leg, ...]


class MarketSpec(NamedTuple):
    """What never changes of one market.

    Attributes:
        slot: place in the model; a rolling slot has one market after the other.
        tick: price step in 1/10,000 dollar: 100 (linear_cent) or 10 (deci_cent).
        floor_strike: JSON number text, "" without.
        open_ns, close_ns: trading from (inclusive) to (exclusive).
        rolling: the slot's next market opens when this one closes.
        combo: its legs; None = it is none.
    """

    ticker: str
    event: Event
    slot: int
    title: str
    yes_sub_title: str
    tick: int
    strike_type: str
    floor_strike: str
    created_ns: int
    open_ns: int
    close_ns: int
    rolling: bool
    combo: Combo | None = None


_ROLLING = ("BTC", "ETH", "SOL", "XRP", "DOGE")
_LONG = (
    Series("KXBTCD", "Bitcoin price Above/below", "Crypto", "hourly"),
    Series("KXHIGHNY", "Highest temperature in NYC", "Climate and Weather", "daily"),
    Series("KXFED", "Fed meeting", "Economics", "custom"),
    Series("KXNFLGAME", "Professional Football Game", "Sports", "custom"),
)
_TEAMS = ("DET", "CIN", "BUF", "KC", "PHI", "DAL", "SF", "SEA")


def is_rolling(slot: int) -> bool:
    """Whether the slot's market is replaced when it closes: every fourth slot, from slot 1."""
    return slot % 4 == 1


def series_of(event: Event) -> Series:
    """The series an event made here belongs to."""
    if is_combo(event.series):
        return Series(event.series, "Combo", "Exotics", "custom")
    for series in _LONG:
        if series.ticker == event.series:
            return series
    coin = event.series.removeprefix("KX").removesuffix("15M")
    return Series(event.series, f"{coin} price up in the next minutes?", "Crypto", "fifteen_min")


def rolling_market(slot: int, created_ns: int, open_ns: int, close_ns: int) -> MarketSpec:
    """The market of a rolling slot that trades from `open_ns` to `close_ns`."""
    ordinal = slot // 4
    coin, strike = _ROLLING[ordinal % len(_ROLLING)], ordinal // len(_ROLLING)
    close = _local(close_ns)
    at = f"{close:%H%M%S}" if close.second else f"{close:%H%M}"
    event = Event(
        f"KX{coin}15M-{_date(close)}{at}",
        f"KX{coin}15M",
        f"{coin} price up by {close:%H:%M:%S} EST?",
        "",
        close_ns,
    )
    suffix = f"{close:%M}" if not strike else f"{close:%M}T{strike}"
    return MarketSpec(
        f"{event.ticker}-{suffix}",
        event,
        slot,
        event.title,
        "Price to beat: $73,499.99",
        10,
        "greater_or_equal",
        "73499.99",
        created_ns,
        open_ns,
        close_ns,
        rolling=True,
    )


def long_market(slot: int, start_ns: int) -> MarketSpec:
    """The market of a slot that stays open for days."""
    ordinal = slot - (slot + 2) // 4  # slots that are not rolling, counted from 0
    family = _LONG[ordinal % len(_LONG)]
    number, strike = divmod(ordinal // len(_LONG), _STRIKES_AN_EVENT)
    close_ns = start_ns - start_ns % _DAY_NS + (3 + number) * _DAY_NS + 22 * 3600 * SECOND_NS
    date = _date(_local(close_ns))
    tick, kind = 100, "greater"
    if family.ticker == "KXBTCD":
        code, label, floor, tick = f"T{73499 + 500 * strike}.99", f"${73500 + 500 * strike:,} or above", "", 10
        floor, date = f"{73499 + 500 * strike}.99", f"{date}17"
    elif family.ticker == "KXHIGHNY":
        code, label, floor, kind = (
            f"B{55 + 2 * strike}.5",
            f"{55 + 2 * strike}° to {56 + 2 * strike}°",
            f"{55 + 2 * strike}",
            "between",
        )
    elif family.ticker == "KXFED":
        code, label, floor = (
            f"T{3 + strike // 4}.{25 * (strike % 4):02d}",
            f"Above {3 + strike // 4}.{25 * (strike % 4):02d}%",
            "",
        )
        floor = f"{3 + strike // 4}.{25 * (strike % 4):02d}"
    else:
        code, label, floor, kind = _TEAMS[strike], _TEAMS[strike].title(), "", "structured"
    event = Event(f"{family.ticker}-{date}", family.ticker, f"{family.title} on {date}?", f"On {date}", close_ns)
    return MarketSpec(
        f"{event.ticker}-{code}",
        event,
        slot,
        f"{family.title}: {label}?",
        label,
        tick,
        kind,
        floor,
        start_ns - 2 * _DAY_NS,
        start_ns - _DAY_NS,
        close_ns,
        rolling=False,
    )


def added_market(number: int, now_ns: int) -> MarketSpec:
    """A market listed on demand, open for a day; they take no random orders. `number` counts them from 0."""
    event_number, strike = divmod(number, _STRIKES_AN_EVENT)
    close_ns = now_ns - now_ns % SECOND_NS + _DAY_NS
    event = Event(f"KXFED-NEW{event_number:05d}", "KXFED", f"Fed meeting {event_number}?", "", close_ns)
    floor = f"{3 + strike // 4}.{25 * (strike % 4):02d}"
    label = f"Above {floor}%"
    return MarketSpec(
        f"{event.ticker}-T{floor}",
        event,
        0,
        f"Fed meeting: {label}?",
        label,
        100,
        "greater",
        floor,
        now_ns,
        now_ns,
        close_ns,
        rolling=False,
    )


def _local(ts_ns: int) -> datetime:
    return datetime.fromtimestamp(ts_ns // SECOND_NS, tz=UTC) + _EASTERN


def _date(at: datetime) -> str:
    return f"{at:%y}{at:%b}{at:%d}".upper()
