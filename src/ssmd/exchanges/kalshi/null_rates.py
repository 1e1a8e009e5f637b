"""Optional fields that used to be there and are not any more: the drift that no single frame shows.

A frame without an optional field is a good frame, so nothing is told of it. A field that came with (nearly) all frames
and is missing from most of the last ten is told. Of deltas every fourth is looked at, of all else every frame, so a
field that disappears at once is told within 68 frames of its type.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from ssmd.exchanges.kalshi.drift import Finding
from ssmd.exchanges.kalshi.frames import OrderbookDelta, OrderbookSnapshot, TickerFrame, TradeFrame

WINDOW: Final = 10
MISSING_MIN: Final = 8
"""Of the frames of a window, from which on a field is missing from most."""
BEFORE_MIN: Final = 20
"""Frames that must have been seen before, of which at most one in RARE lacked the field."""
RARE: Final = 20
DELTAS_EVERY: Final = 4

_FIELDS: Final[dict[type, tuple[str, tuple[str, ...]]]] = {
    OrderbookDelta: ("orderbook_delta", ("market_id", "ts", "ts_ms")),
    OrderbookSnapshot: ("orderbook_snapshot", ("market_id",)),
    TickerFrame: (
        "ticker",
        ("market_id", "yes_bid_size_fp", "yes_ask_size_fp", "last_trade_size_fp", "volume_fp", "open_interest_fp", "ts_ms"),
    ),
    TradeFrame: ("trade", ("no_price_dollars", "taker_side", "taker_outcome_side", "taker_book_side", "ts", "ts_ms")),
}


class _Rates:
    __slots__ = ("frames", "frames_before", "missing", "nulls_before")

    def __init__(self, fields: int) -> None:
        self.frames = 0
        self.missing = [0] * fields
        self.frames_before = 0
        self.nulls_before = [0] * fields


class NullRates:
    """How often the optional fields of each frame type are missing, in one session.

    Attributes:
        deltas: so many in order have come; the caller counts, and has every DELTAS_EVERY-th looked at.
    """

    deltas = 0  # of the class: checkpoints from before it was counted under this name lack it

    def __init__(self) -> None:
        self._rates = {frame: _Rates(len(fields)) for frame, (_, fields) in _FIELDS.items()}

    def look(self, frame: Any) -> list[Finding]:
        """Count one data frame; what has disappeared."""
        kind = frame.__class__
        rates = self._rates.get(kind)
        if rates is None:
            return []
        values = _GETTERS[kind](frame.msg)
        rates.frames += 1
        # An empty text and a time of 0 stand for "absent" in the structs; a size of nothing is "0.00".
        if not all(values):
            for index, value in enumerate(values):
                if not value:
                    rates.missing[index] += 1
        return self._judge(kind, rates) if rates.frames == WINDOW else []

    def _judge(self, kind: type, rates: _Rates) -> list[Finding]:
        frame_type, fields = _FIELDS[kind]
        found = []
        for index, missing in enumerate(rates.missing):
            before = rates.nulls_before[index]
            if missing >= MISSING_MIN and rates.frames_before >= BEFORE_MIN and before * RARE <= rates.frames_before:
                detail = f"missing from {missing} of {WINDOW} frames, from {before} of {rates.frames_before} before"
                found.append(Finding("null-rate", frame_type, f"msg.{fields[index]}", detail))
            rates.nulls_before[index] = before + missing
        rates.frames_before += WINDOW
        rates.frames = 0
        rates.missing = [0] * len(fields)
        return found


def _getter(fields: tuple[str, ...]) -> Callable[[Any], tuple[object, ...]]:
    get = attrgetter(*fields)
    # With one name attrgetter gives no tuple.
    return get if len(fields) > 1 else lambda body: (get(body),)


_GETTERS: Final = {frame: _getter(fields) for frame, (_, fields) in _FIELDS.items()}
